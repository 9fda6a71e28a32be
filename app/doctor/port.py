"""Whether the service's port is free, or which process uses it."""

import errno
import socket
from contextlib import suppress

import psutil

from polymodal.app.doctor.result import CheckResult, fail, ok


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
    """Return the process that listens on a port, as number and command line; empty where it can't be seen."""
    with suppress(psutil.Error, OSError):  # it has ended, or the system doesn't show connections to every user
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                words = " ".join(psutil.Process(connection.pid).cmdline()).strip()
                return f"process {connection.pid} ({words[:80]})"
    return ""
