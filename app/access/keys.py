"""API keys: the file of their hashes, which the service reads and `polymodal keys` writes, and the key in a request.

A key is 256 random bits, which cannot be guessed. SHA-256 is therefore enough. A slow hash, as for passwords, would only delay
every request (docs/decisions/0011).
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from polymodal.app.access.scopes import scopes
from polymodal.app.problems import RequestError

log = structlog.get_logger(__name__)

Headers = Iterable[tuple[bytes, bytes]]  # as in an ASGI scope: names in lower case

PREFIX = "pm_"
MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 1000
"""Every request is compared with all keys, which takes less than a millisecond for 1,000."""
_SECRET_BYTES = 32
_REREAD_S = 1.0
_OWNER_ONLY = 0o600
_MAX_PROBLEMS = 5
_ALLOWED: dict[int | str, str] = {
    "name": "up to 64 letters, digits, '.', '_' and '-'",
    "sha256": "64 hexadecimal digits in lower case",
    "expires": "a day such as 2027-01-31, a time such as 2027-01-31T12:00:00Z, or nothing",
}
_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_CREDENTIAL: Final = re.compile(rb"[A-Za-z0-9._~+/=-]{1,256}")  # RFC 6750's b64token, bounded


class KeysError(Exception):
    """A file of keys that cannot be used. The message names the file, what was found and what is allowed."""


class Unauthorized(RequestError):
    """A request without a valid key."""

    status = 401
    code = "unauthorized"
    title = "A valid key is needed"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})

    def __init__(self, presented: str = "none") -> None:
        super().__init__("key", presented, "Authorization: Bearer KEY, or X-API-Key: KEY")


def _moment(value: object) -> object:
    """Convert a day, or a time without a zone, to a time in UTC, so that a file means the same on every machine."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):  # TOML has days
        value = datetime.combine(value, datetime.min.time())
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _scope(name: str) -> str:
    """Return the name of a scope. Raises pydantic's error for a Literal, which never repeats the value."""
    if name not in scopes():
        *others, last = (f"'{scope}'" for scope in scopes())
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": f"{', '.join(others)} or {last}"}
        )
    return name


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
Scope = Annotated[str, AfterValidator(_scope)]


class Key(BaseModel):
    """One record of the file. It does not contain the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Logged with each request that was made with the key."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key's characters, in hexadecimal."""
    scopes: frozenset[Scope] = Field(min_length=1)
    """Scopes that the key grants."""
    created: Moment
    expires: Moment | None = None
    """The time from which on the key is invalid; None if it never expires."""

    def expired(self, now: datetime) -> bool:
        """Return whether the key has expired."""
        return self.expires is not None and self.expires <= now


class _Keys(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[Key, ...] = Field(max_length=MAX_KEYS)


def new_key() -> str:
    """Return a new random key."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: str) -> str:
    """Return the hash of a key, which the file stores."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_record(name: str, sha256: str, scopes: Iterable[str], expires: str | None) -> Key:
    """Return the record of a new key. `expires` is days from now (90d), a day or a time. Raises KeysError."""
    now = datetime.now(UTC).replace(microsecond=0)
    until: object = expires
    if expires and (days := _DAYS.fullmatch(expires)):
        until = now + timedelta(days=int(days[1]))
    record = {"name": name, "sha256": sha256, "scopes": list(scopes), "created": now, "expires": until}
    try:
        key = Key.model_validate(record)
    except ValidationError as error:
        raise KeysError("; ".join(_explained(entry["loc"], entry["msg"]) for entry in error.errors())) from None
    if key.expired(now):
        raise KeysError(f"expires: {expires} is over; allowed: a time to come, or days from now such as 90d")
    return key


def parse_keys(content: bytes, *, toml: bool) -> tuple[Key, ...]:
    """Parse the bytes of a file into records. Raises KeysError, whose message repeats no value, because it might be a key."""
    try:
        text = content.decode()
        document: Any = tomllib.loads(text) if toml else json.loads(text)
    except (ValueError, RecursionError):  # the parsers' own messages may quote the content
        raise KeysError(f"not readable as {'TOML' if toml else 'JSON'}") from None
    try:
        keys = _Keys.model_validate(document).keys
    except ValidationError as error:
        problems = [_explained(entry["loc"], entry["msg"]) for entry in error.errors(include_input=False)]
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise KeysError("; ".join(problems[:_MAX_PROBLEMS]) + more) from None
    if repeated := _repeated(key.name for key in keys):
        raise KeysError(f"the name {repeated} twice; allowed: each name once")
    if _repeated(key.sha256 for key in keys):
        raise KeysError("the same sha256 twice; allowed: each key once")
    return keys


def _explained(place: tuple[int | str, ...], message: str) -> str:
    """Return a message with its position in the file. It contains only names of known fields, as any other might be a key."""
    known = {"keys", *Key.model_fields}
    where = ".".join(str(step) if isinstance(step, int) or step in known else "(unknown field)" for step in place)
    allowed = f"; allowed: {_ALLOWED[place[-1]]}" if place and place[-1] in _ALLOWED else ""
    return f"{where or 'the file'}: {message[:1].lower()}{message[1:]}{allowed}"


def _repeated(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read the records of a file in JSON, or in TOML if its suffix is .toml. Raises KeysError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}; allowed: a file written by `polymodal keys add`") from None
    if len(content) > MAX_FILE_BYTES:
        raise KeysError(f"{path}: more than {MAX_FILE_BYTES:,} bytes; allowed: at most that")
    try:
        return parse_keys(content, toml=_is_toml(path))
    except KeysError as problem:
        raise KeysError(f"{path}: {problem}") from None


def _is_toml(path: Path) -> bool:
    return path.suffix.lower() == ".toml"


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file atomically. A new file is readable only by its owner. Raises KeysError for TOML, which is only read."""
    if _is_toml(path):
        raise KeysError(f"{path}: TOML; allowed: a JSON file, as only those are written")
    path = path.resolve()  # replaces the target of a link, not the link
    records = [key.model_dump(mode="json", exclude_none=True) for key in keys]
    for record in records:
        record["scopes"].sort()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"keys": records}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
            _copy_owner(path, file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _copy_owner(path: Path, handle: int) -> None:
    """Give the new file the owner, group and mode of the old one, because a service may run as another user."""
    with suppress(FileNotFoundError, PermissionError):
        before = path.stat()
        os.fchown(handle, before.st_uid, before.st_gid)
        os.fchmod(handle, stat.S_IMODE(before.st_mode) & ~stat.S_IRWXO)


class KeysFile:
    """The keys of a file. A changed file is read again while the service runs, at most once a second.

    While it can't be read, the keys that were read before stay valid.
    """

    def __init__(
        self, path: Path, stale: Callable[[bool], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file. Raises KeysError. `stale` is called after each change, with True if the changed file can't be read."""
        self._path = path
        self._stale = stale
        self._monotonic = monotonic
        self._version = self._stat()
        self._keys = read_keys(path)
        self._next_check = monotonic() + _REREAD_S
        self._check_mode()

    @property
    def count(self) -> int:
        """Number of records, including expired ones. Not `__len__`, because a file without keys must not be false."""
        return len(self._keys)

    def find(self, key: str) -> Key | None:
        """Return the record of a key, even if it has expired; None without one. Its time does not depend on the keys."""
        if (now := self._monotonic()) >= self._next_check:
            self._next_check = now + _REREAD_S
            self._reread()
        sha256 = digest(key)
        matching = [record for record in self._keys if hmac.compare_digest(record.sha256, sha256)]
        return matching[0] if matching else None

    def _reread(self) -> None:
        if (version := self._stat()) == self._version:
            return
        self._version = version
        try:
            keys = read_keys(self._path)
        except KeysError as problem:
            log.error("api_keys_file_refused", problem=str(problem), still_valid=len(self._keys))  # noqa: TRY400
            self._stale(True)
            return
        self._keys = keys
        self._stale(False)
        log.info("api_keys_read", keys=len(keys))
        self._check_mode()

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _check_mode(self) -> None:
        with suppress(OSError):
            if self._path.stat().st_mode & stat.S_IROTH:
                log.warning("api_keys_file_readable_by_all", path=str(self._path), next=f"chmod o= {self._path}")


def presented_key(headers: Headers) -> str:
    """Return the key in a request's header fields. Raises Unauthorized, which never repeats a value.

    Other schemes of Authorization are ignored, as they may be for a proxy in front of the service.
    """
    keys: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credential = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                keys.add(credential.strip())
        elif name == b"x-api-key":
            keys.add(value.strip())
    if not keys:
        raise Unauthorized
    if len(keys) > 1:
        raise Unauthorized("several that differ")
    (key,) = keys
    if not _CREDENTIAL.fullmatch(key):
        raise Unauthorized("one that is malformed")
    return key.decode("ascii")


def authenticate(keys: KeysFile, headers: Headers) -> Key:
    """Return the record of the key in a request's header fields. Raises Unauthorized."""
    key = keys.find(presented_key(headers))
    if key is None:
        raise Unauthorized("one that is unknown")
    if key.expired(datetime.now(UTC)):
        raise Unauthorized("one that has expired")
    return key
