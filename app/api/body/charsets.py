"""Parameters of header fields, and texts in the charsets that they name."""

import codecs
import re
from encodings.aliases import aliases

from polymodal.app.api.body.problems import MalformedBody, RepeatedField, UnsupportedMediaType, shown

# A parameter of a header field. A quote that is not closed belongs to the value.
_PARAMETER = re.compile(rb';\s*([^\s;=]+)\s*=\s*("(?:[^"\\]|\\.)*+"(?=\s*(?:;|\Z))|[^;]*)')


def _codecs() -> dict[str, str]:
    """Return Python's codecs by charset name, as in WHATWG's Encoding Standard, which maps some charsets to a superset."""
    names = ["ascii", "utf_8", "utf_16", "utf_16_le", "utf_16_be", "koi8_r", "koi8_u", "mac_roman", "mac_cyrillic"]
    names += ["gb18030", "euc_jp", "iso2022_jp"]
    names += [f"cp{number}" for number in (866, 874, 932, 949, 950, *range(1250, 1259))]
    names += [f"iso8859_{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)]
    larger = {"latin_1": "cp1252", "iso8859_9": "cp1254", "iso8859_11": "cp874", "tis_620": "cp874"}
    larger |= {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}
    larger |= {"windows_874": "cp874", "windows_31j": "cp932"}  # names that Python lacks
    known = {name: name for name in names} | larger
    return known | {alias.removeprefix("x_"): known[codec] for alias, codec in aliases.items() if codec in known}


_CODECS = _codecs()


def parameters_of(where: str, value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the value of a header field and its parameters; the value and names are in lower case. Raises RepeatedField."""
    kind, _, _ = value.partition(b";")
    parameters: dict[bytes, bytes] = {}
    for name, text in _PARAMETER.findall(value, len(kind)):
        if (key := name.lower()) in parameters:
            raise RepeatedField(where, f"parameter {shown(key.decode('latin-1'))} twice", "each parameter once")
        quoted = len(text) > 1 and text.startswith(b'"') and text.endswith(b'"')
        parameters[key] = text[1:-1] if quoted else text.rstrip()
    return kind.strip().lower(), parameters


def codec_of(where: str, charset: bytes) -> str:
    """Return Python's codec for a charset. Raises UnsupportedMediaType for one that is not in `_CODECS`."""
    name = charset.strip().decode("latin-1")
    try:
        return _CODECS[name.lower().replace("-", "_").removeprefix("x_")]
    except KeyError:
        allowed = "utf-8, utf-16, windows-1252 or another charset of the WHATWG's Encoding Standard"
        raise UnsupportedMediaType(where, f"charset {shown(name)}", allowed) from None


def in_utf8(where: str, content: bytes, charset: bytes) -> bytes:
    """Transcode a text to UTF-8. A byte order mark overrides the charset. Text that is UTF-8 already is not validated here."""
    codec = codec_of(where, charset) if charset else "utf_8"
    if content.startswith(codecs.BOM_UTF8):
        return content.removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codec = "utf_16"
    elif codec == "utf_8":
        return content
    elif codec == "utf_16":  # without a mark, as .NET writes it
        codec = "utf_16_le"
    try:
        return content.decode(codec).encode()
    except UnicodeDecodeError as error:
        problem = f"a byte that is not {codec.replace('_', '-')} at position {error.start}"
        raise MalformedBody(where, problem, "bytes of the declared charset") from None
