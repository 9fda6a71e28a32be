"""Test an image: the Dockerfile runs this inside the image's own file system, which has no shell.

    python image_trial.py RUNTIME…

It serves with each runtime, sends every kind of request and runs the commands, and fails on the first error. So the files
that scripts/image_slim.py removed are not needed. Python writes the bytecode of all imported modules meanwhile
(PYTHONPYCACHEPREFIX), which is made independent of the time of the build at the end.
"""

import base64
import http.client
import io
import json
import os
import py_compile
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF")
COMMANDS = (
    ("--help",),
    ("serve", "--help"),
    ("keys", "add", "trial", "--file", "keys.json"),
    ("predict", "illustrations", "--text", "a sailing boat", "--top-k", "1"),
    ("card", "illustrations"),
)
PATHS = (
    "/",
    "/livez",
    "/startupz",
    "/metrics",
    "/v1/models",
    "/v1/models/illustrations",
    "/docs",
    "/docs/files/swagger-ui-bundle.js",
    "/openapi.json",
)
START_S, STOP_S = 600, 30  # without bytecode, on a busy machine


def main() -> None:
    """Try every runtime and every command, then recompile the bytecode."""
    for runtime in sys.argv[1:]:
        serve(runtime)
    with TemporaryDirectory() as folder:
        for command in COMMANDS:
            subprocess.run(["polymodal", *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    sys.stdout.write(f"{recompile(Path(os.environ['PYTHONPYCACHEPREFIX']))} files of bytecode\n")


def serve(runtime: str) -> None:
    """Start a service with one worker, send requests, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"HOST": "127.0.0.1", "PORT": str(port), "RUNTIME": runtime, "WORKERS": "1"}
    environment = os.environ | {f"POLYMODAL_{name}": value for name, value in settings.items()}
    started = time.monotonic()
    with subprocess.Popen(["polymodal", "serve"], env=environment) as service:
        try:
            while not _ready(port):
                if service.poll() is not None or time.monotonic() > started + START_S:
                    raise SystemExit(f"{runtime}: no service after {time.monotonic() - started:.0f} s")
                time.sleep(0.1)
            ready_s = time.monotonic() - started
            send_requests(port)
            service.send_signal(signal.SIGTERM)
            if code := service.wait(STOP_S):
                raise SystemExit(f"{runtime}: the service ended with {code}")
        finally:
            service.kill()
    sys.stdout.write(f"{runtime}: ready after {ready_s:.1f} s\n")


def send_requests(port: int) -> None:
    """Classify an image of every format with a text, and a batch; get every page."""
    for name in FORMATS:
        _post(port, "/v1/classify", {"image": _image(name), "text": "a sailing boat"})
    _post(port, "/v1/classify/batch", {"items": [{"text": "a lemon"}, {"image": _image("PNG")}]})
    for path in PATHS:
        _request(port, "GET", path)


def _image(name: str) -> str:
    content = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(content, name)
    return base64.b64encode(content.getvalue()).decode()


def _post(port: int, path: str, body: dict[str, object]) -> None:
    response = _request(port, "POST", path, json.dumps(body))
    if b"score" not in response or b"problem" in response:
        raise SystemExit(f"{path} returned {response[:500]!r}")


def _request(port: int, method: str, path: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"{method} {path} returned {response.status} {content[:500]!r}")
    return content


def _ready(port: int) -> bool:
    try:
        return bool(_request(port, "GET", "/readyz"))
    except (ConnectionError, SystemExit):
        return False


def recompile(bytecode: Path) -> int:
    """Compile all imported modules again, so that their bytecode depends on the source and not on times."""
    files = list(bytecode.rglob("*.pyc"))
    for compiled in files:
        source = Path("/", compiled.relative_to(bytecode)).with_name(compiled.name.split(".")[0] + ".py")
        py_compile.compile(
            str(source), str(compiled), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
    return len(files)


if __name__ == "__main__":
    main()
