"""Bytes that honest and hostile clients send over a connection: offers to upgrade, ambiguous messages, tunnels."""

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "websocket": b"upgrade: websocket\r\nconnection: keep-alive, upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    "tls": b"Upgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade\r\n",
    "twice": b"Upgrade: a\r\nConnection: Upgrade\r\nUPGRADE: b\r\nConnection: upgrade\r\n",
    "anything": b"Connection: Upgrade\r\nUpgrade: \t /?%\xff, x\r\n",
}
"""Header fields that offer another protocol."""
AMBIGUOUS = {
    "two-lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "one-length-twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a-length-and-chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks-and-a-length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "no-number": b"Content-Length: +3\r\n\r\nabc",
    "another-coding": b"Transfer-Encoding: gzip\r\n\r\nabc",
    "chunks-twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding-behind-chunks": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a-folded-field": b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "a-folded-length": b"Content-Length:\r\n 3\r\n\r\nabc",
    "a-bare-line-end": b"X: a\nContent-Length: 3\r\n\r\nabc",
    "a-space-before-the-colon": b"Content-Length : 3\r\n\r\nabc",
    "no-chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a-chunk-that-is-too-long": b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a-length-behind-chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 3\r\n\r\n",
}
"""The rest of a request after its first line and Host; the server must close the connection."""
TUNNELS = {
    "an-authority": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "a-path-and-a-body": b"CONNECT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "an-offer-too": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "an-absolute-target": b"CONNECT http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "the-preface-of-http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "another-version": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
}
"""Requests for another protocol than HTTP/1.1; the server must close the connection."""


def conversation(offer: bytes) -> bytes:
    """Return requests with bodies of every framing that look like requests; the last one closes the connection."""
    post = b"POST /%s HTTP/1.1\r\nHost: x\r\n" + offer.replace(b"%", b"%%") + b"%s\r\n\r\n"
    length = b"Content-Length: %d" % len(MODELS)
    return b"".join(
        (
            post % (b"length", length) + MODELS,
            post % (b"none", b"Content-Length: 0"),
            b"GET /get?a=b HTTP/1.1\r\n" + offer + b"Host: x\r\n\r\n",
            post % (b"chunked", b"Transfer-Encoding: chunked"),
            b"%x;a=b\r\n%s\r\n3\r\nabc\r\n0\r\nX-Trailer: y\r\n" % (len(MODELS), MODELS) + offer + b"\r\n",
            post % (b"waits", length + b"\r\nExpect: 100-continue") + MODELS,
            b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + offer + b"\r\n",
        )
    )
