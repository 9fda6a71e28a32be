"""Conversion of requests and responses between the exchange and httpx, for both clients."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from polymodal_client.exchange import Lost, Reply, Send

CONNECT_S: Final = 5.0
"""Timeout of connecting, so that an address that does not respond leaves time for another attempt."""
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,256}")


def base_url(url: str) -> str:
    """Return a service's address, validated. Raises ValueError."""
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
        raise ValueError(f"url: {url!r}; allowed: http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def headers(api_key: str | None) -> dict[str, str]:
    """Return the header fields of every request. Raises ValueError for an invalid key, without repeating it."""
    if api_key is None:
        return {}
    if not _KEY.fullmatch(api_key):
        raise ValueError("api_key: not a key; allowed: one of `polymodal keys add`")
    return {"Authorization": f"Bearer {api_key}"}


def arguments(step: Send) -> dict[str, Any]:
    """Return the arguments of `build_request` of httpx."""
    call = step.call
    body: dict[str, Any] = {}
    if call.json is not None:
        body["json"] = call.json
    if call.files:
        body["files"] = {name: (name, content) for name, content in call.files.items()}
        body["data"] = dict(call.fields or {})
    timeout = httpx.Timeout(step.timeout_s, connect=min(step.timeout_s, CONNECT_S))
    return {
        "method": call.method,
        "url": call.path,
        "headers": {"Accept": "application/json", **step.headers},
        "timeout": timeout,
        **body,
    }


def reply(response: httpx.Response, body: bytes) -> Reply:
    """Convert a response that was read to its end."""
    fields: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, fields, body)


def lost(error: httpx.RequestError) -> Lost:
    """Convert an error of httpx to a reason why there was no answer, and to whether a retry is useful."""
    message = str(error) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            return Lost("nothing there answers", in_time=True)
        case httpx.TimeoutException():
            return Lost("no answer in time", in_time=False)
        case httpx.ConnectError():
            return Lost(f"no connection ({message})", in_time=True)
    return Lost(f"the connection broke ({message})", in_time=True)
