"""API keys: the file that lists them by their hashes, read by the service and written by `polymodal keys`.

A key is 256 bits of chance, so nobody finds it by trying, however quickly its hash is computed: SHA-256 is right, and the slow
hashes that passwords need would only slow every request down (docs/decisions/0011).
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
from typing import Annotated, Any, Literal, get_args

import structlog
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

log = structlog.get_logger(__name__)

Scope = Literal["classify", "models", "metrics", "docs"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "pm_"
MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 1000
"""Each is compared with for every request: 1,000 take less than a millisecond."""
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


class KeysError(Exception):
    """What is wrong with a file of keys; the message names the file, what was found and what is allowed."""


def _moment(value: object) -> object:
    """A day or a time without a zone means UTC, so that a file means the same on every machine."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):  # TOML knows days
        value = datetime.combine(value, datetime.min.time())
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class Key(BaseModel):
    """One record of the file. The key itself stands nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Stands in the log beside each request that was made with the key."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key's characters, in hexadecimal."""
    scopes: frozenset[Scope] = Field(min_length=1)
    """What the key opens."""
    created: Moment
    expires: Moment | None = None
    """From this moment on the key opens nothing."""

    def expired(self, now: datetime) -> bool:
        """Whether the key's time is over."""
        return self.expires is not None and self.expires <= now


class _Keys(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[Key, ...] = Field(max_length=MAX_KEYS)


def new_key() -> str:
    """A key that nobody has seen yet."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_record(name: str, sha256: str, scopes: Iterable[str], expires: str | None) -> Key:
    """The record of a new key. `expires`: days from now (90d), or a day or time. Raises KeysError."""
    now = datetime.now(UTC).replace(microsecond=0)
    until: object = expires
    if expires and (days := _DAYS.fullmatch(expires)):
        until = now + timedelta(days=int(days[1]))
    record = {"name": name, "sha256": sha256, "scopes": list(scopes), "created": now, "expires": until}
    try:
        key = Key.model_validate(record)
    except ValidationError as error:
        raise KeysError("; ".join(_explained(each["loc"], each["msg"]) for each in error.errors())) from None
    if key.expired(now):
        raise KeysError(f"expires: {expires} is over; allowed: a time to come, or days from now such as 90d")
    return key


def parse_keys(content: bytes, *, toml: bool) -> tuple[Key, ...]:
    """The records in a file's bytes. Raises KeysError, whose message never repeats a value: it might be a key."""
    try:
        text = content.decode()
        found: Any = tomllib.loads(text) if toml else json.loads(text)
    except (ValueError, RecursionError):  # the parsers' own messages may quote what they found
        raise KeysError(f"not readable as {'TOML' if toml else 'JSON'}") from None
    try:
        keys = _Keys.model_validate(found).keys
    except ValidationError as error:
        problems = [_explained(each["loc"], each["msg"]) for each in error.errors(include_input=False)]
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise KeysError("; ".join(problems[:_MAX_PROBLEMS]) + more) from None
    if repeated := _repeated(key.name for key in keys):
        raise KeysError(f"the name {repeated} twice; allowed: each name once")
    if _repeated(key.sha256 for key in keys):
        raise KeysError("the same sha256 twice; allowed: each key once")
    return keys


def _explained(place: tuple[int | str, ...], message: str) -> str:
    """Positions and the names of fields; any other name is the file's own word, and might be a key."""
    known = {"keys", *Key.model_fields}
    where = ".".join(str(step) if isinstance(step, int) or step in known else "(unknown field)" for step in place)
    allowed = f"; allowed: {_ALLOWED[place[-1]]}" if place and place[-1] in _ALLOWED else ""
    return f"{where or 'the file'}: {message[:1].lower()}{message[1:]}{allowed}"


def _repeated(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def read_keys(path: Path) -> tuple[Key, ...]:
    """The records of a file, JSON or, by its ending, TOML. Raises KeysError."""
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
    """Replace the file as a whole, so that no reader ever finds half of it. A new one is its owner's alone.

    Raises KeysError for TOML, which is for those who write the file by hand.
    """
    if _is_toml(path):
        raise KeysError(f"{path}: TOML; allowed: a JSON file, as only those are written")
    path = path.resolve()  # where a link stands, what it leads to is replaced
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
            _as_it_was(path, file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _as_it_was(path: Path, handle: int) -> None:
    """A file that is replaced keeps its owner and group, or a service of another user could read it no more."""
    with suppress(FileNotFoundError, PermissionError):
        before = path.stat()
        os.fchown(handle, before.st_uid, before.st_gid)
        os.fchmod(handle, stat.S_IMODE(before.st_mode) & ~stat.S_IRWXO)


class KeysFile:
    """The keys that are valid now: the file is looked at again while the service runs, at most once a second.

    A file that can't be read any more changes nothing: who had a key keeps it until the file is right again.
    """

    def __init__(
        self, path: Path, stale: Callable[[bool], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises KeysError when the file can't be read now. `stale` is told whether a later version can't be."""
        self._path = path
        self._stale = stale
        self._monotonic = monotonic
        self._version = self._stat()
        self._keys = read_keys(path)
        self._look_again = monotonic() + _REREAD_S
        self._check_mode()

    @property
    def count(self) -> int:
        """Records of the file, expired ones included. Not its length: a file without keys must not pass for no file."""
        return len(self._keys)

    def find(self, key: str) -> Key | None:
        """The record of a key, expired or not; the time it takes tells nothing about other keys."""
        if (now := self._monotonic()) >= self._look_again:
            self._look_again = now + _REREAD_S
            self._reread()
        given = digest(key)
        matching = [each for each in self._keys if hmac.compare_digest(each.sha256, given)]
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
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _check_mode(self) -> None:
        with suppress(OSError):
            if self._path.stat().st_mode & stat.S_IROTH:
                log.warning("api_keys_file_readable_by_all", path=str(self._path), next=f"chmod o= {self._path}")
