"""A running service, asked over HTTP as its clients would; with the standard library, as serving needs no HTTP client."""

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import urlsplit

from app.doctor.finding import Finding, fail, ok, warn
from model import Description

TIMEOUT_S: Final = 10.0
MOST_BYTES: Final = 16 * 2**20
AREA: Final = "service"
_PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="  # a PNG of 1 × 1
)
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,256}")
_NEEDS_KEY: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    media_type: str
    body: bytes
    ms: float

    @property
    def told(self) -> Any:  # noqa: ANN401 — whatever JSON says
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """Why it is no 200, as far as it says so."""
        try:
            return f"{self.status}, {self.told['detail']}"
        except (ValueError, LookupError, TypeError):
            return f"{self.status}, {self.media_type or 'without a media type'}, from something else than Polymodal"


class Door:
    """A service's address, and a key for it."""

    def __init__(self, url: str, key: str | None, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError when the address is none, or the key, which is not repeated."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url}: allowed: http://HOST:PORT or https://HOST")
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the key is none; allowed: one of `polymodal keys add`")
        self.url, self._base, self._timeout_s = url, parts.path.rstrip("/"), timeout_s
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """One request on a connection of its own, within the time. Raises OSError or http.client.HTTPException."""
        started = time.perf_counter()
        connection = self._connection()
        headers = dict(self._headers)
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, self._base + path, content, headers)
            answer = connection.getresponse()
            read = self._read(answer, started + self._timeout_s)
        finally:
            connection.close()
        media_type = (answer.getheader("Content-Type") or "").partition(";")[0]
        return Reply(answer.status, media_type, read, (time.perf_counter() - started) * 1000)

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    @staticmethod
    def _read(answer: http.client.HTTPResponse, until: float) -> bytes:
        """A server that sends a byte now and then gets no more time than any other."""
        read = bytearray()
        while chunk := answer.read1(65536):
            read += chunk
            if time.perf_counter() > until:
                raise TimeoutError("the answer did not end in time")
            if len(read) > MOST_BYTES:
                raise http.client.HTTPException(f"more than {MOST_BYTES:,} bytes")
        return bytes(read)


def look(url: str, key: str | None, loaded: Sequence[Description], timeout_s: float = TIMEOUT_S) -> Iterator[Finding]:
    """At probes, versions, models and one classification; ends where going on would only repeat the reason."""
    try:
        door = Door(url, key, timeout_s)
    except ValueError as problem:
        yield fail(AREA, url, str(problem), "polymodal doctor --url http://127.0.0.1:8000")
        return
    try:
        live = door.ask("GET", "/livez")
    except (OSError, http.client.HTTPException, ValueError) as problem:
        yield fail(AREA, url, _reason(problem, timeout_s), "is it started, and is this its address? polymodal serve")
        return
    if not _is_ours(live) or live.status == HTTPStatus.NOT_FOUND:
        advice = "give the address of the service itself, without a path: --url http://127.0.0.1:8000"
        yield fail(AREA, url, f"answers /livez with {live.detail}", advice)
        return
    for findings in (_probes(door, live), _version(door), _models(door, key, loaded)):
        try:
            yield from findings
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as problem:
            yield fail(AREA, url, _reason(problem, timeout_s), "look at its log")


def speaks_polymodal(url: str) -> bool:
    """Whether what answers there is a service of ours."""
    try:
        return _is_ours(Door(url, None, timeout_s=2).ask("GET", "/livez"))
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _is_ours(live: Reply) -> bool:
    try:
        told = live.told
        return "state" in told or str(told["type"]).startswith("urn:polymodal:")
    except (ValueError, LookupError, TypeError):
        return False


def _probes(door: Door, live: Reply) -> Iterator[Finding]:
    advice = {
        "/livez": "restart it: a batch hangs",
        "/startupz": "wait: it still loads its models",
        "/readyz": "send requests elsewhere until it is ready; its log says why it is not",
    }
    for path, what in advice.items():
        reply = live if path == "/livez" else door.ask("GET", path)
        if reply.status == HTTPStatus.OK:
            yield ok(AREA, path, f"{reply.told['state']}, {reply.ms:.1f} ms")
        else:
            yield fail(AREA, path, reply.detail, what)


def _version(door: Door) -> Iterator[Finding]:
    reply = door.ask("GET", "/openapi.json")
    if reply.status != HTTPStatus.OK:
        yield ok(AREA, "version", f"not told: /openapi.json answers {reply.status}")
        return
    there = reply.told["info"]["version"]
    try:
        here = version("polymodal")
    except PackageNotFoundError:
        here = there
    if there == here:
        yield ok(AREA, "version", f"{there}, as here")
    else:
        yield warn(AREA, "version", f"{there}, and here is {here}", "update one of them")


def _models(door: Door, key: str | None, loaded: Sequence[Description]) -> Iterator[Finding]:
    reply = door.ask("GET", "/v1/models")
    if reply.status in _NEEDS_KEY:
        yield _refused(reply, key)
        yield from _classification(door, key, {})
        return
    if reply.status != HTTPStatus.OK:
        yield fail(AREA, "models", reply.detail, "look at its log")
        return
    served = {each["name"]: each for each in reply.told["models"]}
    default = served[reply.told["default"]]
    yield ok(AREA, "keys", "this key opens it" if key else "none is needed")
    for here in loaded:
        there = served.get(here.name)
        if there is None:
            yield warn(AREA, here.name, f"not served; it serves {', '.join(served)}", "set its POLYMODAL_BUNDLES")
        elif there["digest"] == here.digest:
            yield ok(AREA, here.name, f"version {here.digest[:12]}…, as here, on {there['runtime']}")
        else:
            found = f"version {str(there['digest'])[:12]}…, and here is {here.digest[:12]}…"
            yield warn(AREA, here.name, found, "bring the newer bundle to the other place, and restart the service")
    yield from _classification(door, key, default)


def _classification(door: Door, key: str | None, model: Mapping[str, Any]) -> Iterator[Finding]:
    inputs = {each["name"] for each in model.get("inputs", ({"name": "text"},))}
    asked = {"text": "polymodal doctor asks"} if "text" in inputs else {"image": _PIXEL}
    reply = door.ask("POST", "/v1/classify", asked)
    if reply.status == HTTPStatus.OK:
        found = f"{reply.ms:.1f} ms for {' and '.join(asked)}, a new connection included; by {reply.told['model']}"
        yield ok(AREA, "one answer", found)
    elif reply.status in _NEEDS_KEY:
        if model:  # the models were open to this key, classifying is not
            yield _refused(reply, key)
    else:
        advice = "it is busy, ask again later" if reply.status == HTTPStatus.TOO_MANY_REQUESTS else "look at its log"
        yield fail(AREA, "one answer", reply.detail, advice)


def _refused(reply: Reply, key: str | None) -> Finding:
    if key is None:
        return warn(AREA, "keys", "a key is needed", "--key KEY; `polymodal keys add` makes one")
    return fail(AREA, "keys", reply.detail, "give a key that is valid and has the scopes classify and models")


def _reason(problem: Exception, timeout_s: float) -> str:
    match problem:
        case TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case ConnectionRefusedError():
            return "nobody listens there"
        case OSError():
            return problem.strerror or str(problem)
        case http.client.HTTPException():
            return f"something else than HTTP: {type(problem).__name__}"
    return f"an answer that can't be understood: {problem}"[:200]
