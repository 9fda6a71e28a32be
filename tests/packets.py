"""Send bytes to an echo application in exactly the packets that a test defines."""

import asyncio
import json
import re
import socket
from functools import partial

import uvicorn
from uvicorn.server import ServerState

from polymodal.app.api import errors
from polymodal.app.api.connections import ConnectionLimits, Connections


async def echo(scope, receive, send):
    """Return method, path, query and body of the request as JSON."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    fields = [name.decode() for name, _ in scope["headers"]]
    assert "x-trailer" not in fields
    content = json.dumps(
        [scope["method"], scope["path"], scope["query_string"].decode(), body.decode("latin-1")]
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def answers_to(*pieces: bytes, head_bytes: int = 4096, shut: bool = False) -> bytes:
    """Send pieces in one packet each, and return all bytes that come back.

    With `shut`, the server receives them and the end of the client's side before it can answer.
    """
    limits = ConnectionLimits(connections=10, head_bytes=head_bytes, head_s=10, answer_s=10)
    connections = Connections(limits, errors.raw_response_to)
    config = uvicorn.Config(echo, log_config=None, ws="none", http="httptools")
    protocol = partial(connections.protocol, config=config, server_state=ServerState(), app_state={})
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        _, connection = await loop.connect_accepted_socket(protocol, theirs)
        for piece in pieces:
            if not connection.transport.is_closing():
                connection.data_received(piece)
            if not shut and len(pieces) < 100:
                await asyncio.sleep(0)
        if shut:
            ours.shutdown(socket.SHUT_WR)
        received = b""
        async with asyncio.timeout(10):
            while more := await loop.sock_recv(ours, 65536):
                received += more
    return re.sub(rb"[0-9a-f]{32}", b"ID", received)
