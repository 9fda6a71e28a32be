"""Files encoded as text: base64 in every unambiguous spelling, and data: URIs."""

import base64
import binascii
import re

from polymodal.app.api.body.problems import MalformedBody, UrlNotAccepted, bounded, shown

_BLANKS = " \t\r\n\v\f"
_INDENTS = re.compile(rb"(?<![ \t])[ \t]*+[\r\n\v\f][ \t\r\n\v\f]*+")  # line breaks and the blanks around them
_BASE64_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
BASE64 = "base64 as in RFC 4648, of one alphabet, with all of its padding or none, also in lines; or a data: URI of it"
_DATA_URI_HEAD = 1024  # characters before the comma
_PIECE_BYTES = 65_536  # unescaped at a time
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")  # base64 has no colon
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")


def file_of(where: str, encoded: str, limit: int) -> bytes:
    """Decode a file from base64 or a data: URI. Raises MalformedBody, TooManyBytes or UrlNotAccepted."""
    encoded = encoded.strip(_BLANKS)
    if url := _URL.match(encoded):
        raise UrlNotAccepted.of(where, url[1].lower())
    if encoded[:7].lower() == "data%3a":
        encoded = _unescaped(where, encoded).decode("latin-1")
    if encoded[:5].lower() == "data:":
        if (comma := encoded.find(",", 0, _DATA_URI_HEAD)) < 0:
            raise MalformedBody(where, "a data: URI without a comma", BASE64)
        _, *parameters = encoded[:comma].lower().split(";")
        encoded = encoded[comma + 1 :]
        if "base64" not in map(str.strip, parameters):
            if "%" not in encoded:  # every image file has bytes that need escapes
                raise MalformedBody(where, "a data: URI without ;base64", BASE64)
            return bounded(where, _unescaped(where, encoded), limit)
    return decode_base64(where, _unescaped(where, encoded) if "%" in encoded else _ascii(where, encoded), limit)


def _ascii(where: str, text: str) -> str:
    """Return the text itself. Raises MalformedBody unless it is ASCII."""
    if not text.isascii():
        at = next(number for number, character in enumerate(text) if not character.isascii())
        problem = f"invalid base64 or data: URI, with {shown(text[at])} at position {at}"
        raise MalformedBody(where, problem, BASE64)
    return text


def _unescaped(where: str, text: str) -> bytes:
    """Decode the percent-escapes of an ASCII text to bytes. Raises MalformedBody."""
    content = _ascii(where, text).encode()
    if bad := _BAD_ESCAPE.search(text):
        raise MalformedBody(where, f"a bad percent-escape at position {bad.start()}", BASE64)
    # urllib.parse.unquote_to_bytes does the same, but makes an object of every escape, which takes 20 times the memory.
    unescaped, at = bytearray(), 0
    while at < len(content):
        end = at + _PIECE_BYTES
        if (cut := content.rfind(b"%", end - 2, end)) > 0:  # do not cut within an escape
            end = cut
        unescaped += binascii.a2b_qp(content[at:end].replace(b"=", b"=3D").replace(b"%", b"="))
        at = end
    return bytes(unescaped)


def decode_base64(where: str, packed: bytes | bytearray | str, limit: int) -> bytes:
    """Decode base64 of either alphabet, with or without padding, also in lines. Raises MalformedBody if it is ambiguous.

    A str must be ASCII. `base64.b64decode` would copy it.
    """
    try:
        content = binascii.a2b_base64(packed, strict_mode=True)
        usual = len(packed) == (len(content) + 2) // 3 * 4  # binascii accepts too much padding
    except binascii.Error:
        usual = False
    if not usual:
        packed = _normalised(where, packed.encode() if isinstance(packed, str) else bytes(packed))
        content = binascii.a2b_base64(packed, strict_mode=True)
    end = packed[-4:]
    if (rest := len(content) % 3) and base64.b64encode(content[-rest:]) != (
        end.encode() if isinstance(end, str) else end
    ):
        raise MalformedBody(where, "invalid base64, whose last letter has bits of no byte", BASE64)
    return bounded(where, content, limit)


def _normalised(where: str, packed: bytes) -> bytes:
    """Normalise base64: one line, standard alphabet, padding. Raises MalformedBody with the reason."""
    packed = packed.strip()
    if b" " in packed or b"\t" in packed:
        packed = _INDENTS.sub(b"", packed)
    packed = packed.translate(None, b"\r\n\v\f")
    letters = packed.rstrip(b"=")
    padding, signs = len(packed) - len(letters), letters.translate(None, _BASE64_LETTERS)
    reason = None
    if foreign := signs.translate(None, b"+/-_"):
        reason = f"with {shown(chr(foreign[0]))} at position {letters.index(foreign[:1])}"
    elif (b"+" in signs or b"/" in signs) and (b"-" in signs or b"_" in signs):
        reason = 'of two alphabets, with "+" or "/" and with "-" or "_"'
    elif len(letters) % 4 == 1:
        reason = f"of {len(letters)} letters, which is one too many or too few"
    elif padding and padding != -len(letters) % 4:
        reason = f'of {len(letters)} letters with {padding} "="'
    if reason:
        raise MalformedBody(where, f"invalid base64, {reason}", BASE64)
    return letters.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(letters) % 4)
