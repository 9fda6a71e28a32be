"""A running service, checked over HTTP; with the standard library, as an installation for serving has no HTTP client."""

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

from polymodal.app.doctor.result import CheckResult, fail, ok, warn
from polymodal.app.probes import LIVEZ, READYZ, STARTUPZ
from polymodal.model import MODALITIES, Description

TIMEOUT_S: Final = 10.0
MOST_BYTES: Final = 16 * 2**20
AREA: Final = "service"
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,256}")
_NEEDS_KEY: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response; `ms`: time from connecting to its last byte."""

    status: int
    media_type: str
    body: bytes
    ms: float

    @property
    def document(self) -> Any:  # noqa: ANN401 — any JSON
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The reason of a response that is no 200."""
        try:
            return f"{self.status}, {self.document['detail']}"
        except (ValueError, LookupError, TypeError):
            return f"{self.status}, {self.media_type or 'without a media type'}, from something else than Polymodal"


class ServiceClient:
    """Requests to the address of a service, with a key."""

    def __init__(self, url: str, key: str | None, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError for an invalid address, and for an invalid key, which is not repeated."""
        address = urlsplit(url if "://" in url else f"http://{url}")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{url}: allowed: http://HOST:PORT or https://HOST")
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the key is none; allowed: one of `polymodal keys add`")
        self.url, self._base, self._timeout_s = url, address.path.rstrip("/"), timeout_s
        self._secure, self._host, self._port = address.scheme == "https", address.hostname, address.port
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Send a request on a new connection, within the timeout. Raises OSError or http.client.HTTPException."""
        started = time.perf_counter()
        connection = self._connection()
        headers = dict(self._headers)
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, self._base + path, content, headers)
            response = connection.getresponse()
            received = self._read(response, started + self._timeout_s)
        finally:
            connection.close()
        media_type = (response.getheader("Content-Type") or "").partition(";")[0]
        return Reply(response.status, media_type, received, (time.perf_counter() - started) * 1000)

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    @staticmethod
    def _read(response: http.client.HTTPResponse, until: float) -> bytes:
        """Return a body. Raises TimeoutError also for a server that keeps sending single bytes."""
        body = bytearray()
        while chunk := response.read1(65536):
            body += chunk
            if time.perf_counter() > until:
                raise TimeoutError("the answer did not end in time")
            if len(body) > MOST_BYTES:
                raise http.client.HTTPException(f"more than {MOST_BYTES:,} bytes")
        return bytes(body)


def check(
    url: str, key: str | None, loaded: Sequence[Description], timeout_s: float = TIMEOUT_S
) -> Iterator[CheckResult]:
    """Check probes, versions, models and one classification; stop at a failure that the next checks would repeat."""
    try:
        client = ServiceClient(url, key, timeout_s)
    except ValueError as problem:
        yield fail(AREA, url, str(problem), "polymodal doctor --url http://127.0.0.1:8000")
        return
    try:
        live = client.request("GET", LIVEZ)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        yield fail(AREA, url, _reason(problem, timeout_s), "is it started, and is this its address? polymodal serve")
        return
    if not _is_ours(live) or live.status == HTTPStatus.NOT_FOUND:
        advice = "give the address of the service itself, without a path: --url http://127.0.0.1:8000"
        yield fail(AREA, url, f"answers {LIVEZ} with {live.detail}", advice)
        return
    for results in (_probes(client, live), _version(client), _models(client, key, loaded)):
        try:
            yield from results
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as problem:
            yield fail(AREA, url, _reason(problem, timeout_s), "look at its log")


def is_polymodal(url: str) -> bool:
    """Return whether a Polymodal service answers at an address."""
    try:
        return _is_ours(ServiceClient(url, None, timeout_s=2).request("GET", LIVEZ))
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _is_ours(live: Reply) -> bool:
    try:
        document = live.document
        return "state" in document or str(document["type"]).startswith("urn:polymodal:")
    except (ValueError, LookupError, TypeError):
        return False


def _probes(client: ServiceClient, live: Reply) -> Iterator[CheckResult]:
    advice_by_path = {
        LIVEZ: "restart it: a batch hangs",
        STARTUPZ: "wait: it still loads its models",
        READYZ: "send requests elsewhere until it is ready; its log has the reason",
    }
    for path, advice in advice_by_path.items():
        reply = live if path == LIVEZ else client.request("GET", path)
        if reply.status == HTTPStatus.OK:
            yield ok(AREA, path, f"{reply.document['state']}, {reply.ms:.1f} ms")
        else:
            yield fail(AREA, path, reply.detail, advice)


def _version(client: ServiceClient) -> Iterator[CheckResult]:
    reply = client.request("GET", "/openapi.json")
    if reply.status != HTTPStatus.OK:
        yield ok(AREA, "version", f"unknown: /openapi.json returns {reply.status}")
        return
    served = reply.document["info"]["version"]
    try:
        installed = version("polymodal")
    except PackageNotFoundError:
        installed = served
    if served == installed:
        yield ok(AREA, "version", f"{served}, as here")
    else:
        yield warn(AREA, "version", f"{served}, and here is {installed}", "update one of them")


def _models(client: ServiceClient, key: str | None, loaded: Sequence[Description]) -> Iterator[CheckResult]:
    reply = client.request("GET", "/v1/models")
    if reply.status in _NEEDS_KEY:
        yield _key_problem(reply, key)
        yield from _classification(client, key, {})
        return
    if reply.status != HTTPStatus.OK:
        yield fail(AREA, "models", reply.detail, "look at its log")
        return
    served = {model["name"]: model for model in reply.document["models"]}
    default = served[reply.document["default"]]
    yield ok(AREA, "keys", "this key is valid" if key else "none is needed")
    for local in loaded:
        model = served.get(local.name)
        if model is None:
            yield warn(AREA, local.name, f"not served; it serves {', '.join(served)}", "set its POLYMODAL_BUNDLES")
        elif model["digest"] == local.digest:
            yield ok(AREA, local.name, f"version {local.digest[:12]}…, as here, on {model['runtime']}")
        else:
            versions = f"version {str(model['digest'])[:12]}…, and here is {local.digest[:12]}…"
            yield warn(AREA, local.name, versions, "bring the newer bundle to the other place, and restart the service")
    yield from _classification(client, key, default)


def _classification(client: ServiceClient, key: str | None, model: Mapping[str, Any]) -> Iterator[CheckResult]:
    names = {spec["name"] for spec in model.get("inputs", ())}
    task, *_ = model.get("tasks") or ["classify"]
    known = [modality for modality in MODALITIES.values() if not names or modality.name in names]
    inputs = {modality.name: modality.example for modality in sorted(known, key=lambda one: not one.textual)[:1]}
    reply = client.request("POST", f"/v1/{task}", inputs)
    if reply.status == HTTPStatus.OK:
        timing = (
            f"{reply.ms:.1f} ms for {' and '.join(inputs)}, a new connection included; by {reply.document['model']}"
        )
        yield ok(AREA, "one answer", timing)
    elif reply.status in _NEEDS_KEY:
        if model:  # this key has the scope models, but not classify
            yield _key_problem(reply, key)
    else:
        advice = "it is busy, try again later" if reply.status == HTTPStatus.TOO_MANY_REQUESTS else "look at its log"
        yield fail(AREA, "one answer", reply.detail, advice)


def _key_problem(reply: Reply, key: str | None) -> CheckResult:
    if key is None:
        return warn(AREA, "keys", "a key is needed", "--key KEY; `polymodal keys add` makes one")
    return fail(AREA, "keys", reply.detail, "give a key that is valid and has the scopes classify and models")


def _reason(problem: Exception, timeout_s: float) -> str:
    match problem:
        case TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case ConnectionRefusedError():
            return "no process listens there"
        case OSError():
            return problem.strerror or str(problem)
        case http.client.HTTPException():
            return f"something else than HTTP: {type(problem).__name__}"
    return f"an answer that can't be understood: {problem}"[:200]
