"""Whether the service's port is free, or which process uses it."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from polymodal.app.doctor.result import CheckResult, fail, ok

_LISTENING: Final = "0A"  # the state of a listening socket in /proc/net/tcp
_PROC: Final = Path("/proc")


def check(host: str, port: int) -> CheckResult:
    """Try to listen at the port as the service would."""
    address = f"{host}:{port}"
    if port == 0:
        return ok("port", address, "a free one is taken at the start")
    try:
        families = {entry[0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        for family in families:
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
    except socket.gaierror as problem:
        reason = f"no such address: {problem.strerror}"
        return fail("port", address, reason, "set POLYMODAL_HOST to an address of this machine")
    except OSError as problem:
        return _not_bound(problem, address, port)
    return ok("port", address, "free")


def address_of(host: str, port: int) -> str:
    """Return the URL at which this machine reaches the port: on the loopback address if the host is 0.0.0.0 or ::."""
    names = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 — requested, not listened on
    name = names.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _not_bound(problem: OSError, address: str, port: int) -> CheckResult:
    match problem.errno:
        case errno.EADDRINUSE:
            holder = holder_of(port)
            holder = holder or "a process of another user or container"
            return fail("port", address, f"held by {holder}", "stop it, or choose another: polymodal serve --port 8001")
        case errno.EACCES:
            return fail("port", address, "needs privileges", "choose one above 1023: polymodal serve --port 8000")
        case errno.EADDRNOTAVAIL:
            return fail("port", address, "not an address of this machine", "set POLYMODAL_HOST, e.g. to 127.0.0.1")
    return fail("port", address, str(problem.strerror), "choose another: polymodal serve --port 8001")


def holder_of(port: int) -> str:
    """Return the number and the command line of the process that listens on a port; empty if it can't be read."""
    links = {f"socket:[{inode}]" for inode in _inodes(port)}
    return next(_processes(links), "") if links else ""


def _inodes(port: int) -> Iterator[str]:
    """Yield the inodes of sockets that listen on a port: https://docs.kernel.org/networking/proc_net_tcp.html."""
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (_PROC / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # not on Linux
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _processes(links: set[str]) -> Iterator[str]:
    for folder in sorted(_PROC.glob("[0-9]*")):
        try:
            if any(os.readlink(link) in links for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                yield f"process {folder.name} ({words[:80]})"
        except OSError:  # it ended, or it is another user's
            continue
