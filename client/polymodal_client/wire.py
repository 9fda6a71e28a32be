"""What both clients tell httpx and hear from it: no time is spent here."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from polymodal_client.exchange import Lost, Reply, Send

CONNECT_S: Final = 5.0
"""At most, of one attempt: an address that swallows everything leaves time for another attempt."""
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,256}")


def base_url(url: str) -> str:
    """A service's address. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"url: {url!r}; allowed: http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def headers(api_key: str | None) -> dict[str, str]:
    """What every request carries. Raises ValueError for what is no key, without repeating it."""
    if api_key is None:
        return {}
    if not _KEY.fullmatch(api_key):
        raise ValueError("api_key: not a key; allowed: one of `polymodal keys add`")
    return {"Authorization": f"Bearer {api_key}"}


def arguments(step: Send) -> dict[str, Any]:
    """Of `build_request`."""
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
    """A response that was read to its end."""
    fields: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, fields, body)


def lost(error: httpx.RequestError) -> Lost:
    """Why there was no answer, and whether there is any sense in trying again."""
    told = str(error) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            return Lost("nothing there answers", in_time=True)
        case httpx.TimeoutException():
            return Lost("no answer in time", in_time=False)
        case httpx.ConnectError():
            return Lost(f"no connection ({told})", in_time=True)
    return Lost(f"the connection broke ({told})", in_time=True)
