"""Try an image before it ships: only the Dockerfile asks, inside the image's own file system, which has no shell.

    python image_trial.py RUNTIME…

Serves with each runtime, asks for everything that a client or an operator can, and fails on the first thing that isn't as it
should be; so whatever scripts/image_slim.py took out is proven to be unneeded. Python writes bytecode of what it imported
meanwhile (PYTHONPYCACHEPREFIX); in the end that is made independent of the time of the build.
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
START_S, STOP_S = 600, 30  # without bytecode, on a busy machine


def main() -> None:
    """Every runtime, then every command, then the bytecode."""
    for runtime in sys.argv[1:]:
        serve(runtime)
    with TemporaryDirectory() as folder:
        for command in COMMANDS:
            subprocess.run(["polymodal", *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    sys.stdout.write(f"{settle(Path(os.environ['PYTHONPYCACHEPREFIX']))} files of bytecode\n")


def serve(runtime: str) -> None:
    """A service with one worker, from its start to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"HOST": "127.0.0.1", "PORT": str(port), "RUNTIME": runtime, "WORKERS": "1"}
    environment = os.environ | {f"POLYMODAL_{name}": value for name, value in settings.items()}
    began = time.monotonic()
    with subprocess.Popen(["polymodal", "serve"], env=environment) as service:
        try:
            while not _ready(port):
                if service.poll() is not None or time.monotonic() > began + START_S:
                    raise SystemExit(f"{runtime}: no service after {time.monotonic() - began:.0f} s")
                time.sleep(0.1)
            started = time.monotonic() - began
            ask(port)
            service.send_signal(signal.SIGTERM)
            if code := service.wait(STOP_S):
                raise SystemExit(f"{runtime}: the service ended with {code}")
        finally:
            service.kill()
    sys.stdout.write(f"{runtime}: ready after {started:.1f} s\n")


def ask(port: int) -> None:
    """Pictures of every format with a text, a batch, and everything that can be got."""
    for name in FORMATS:
        _post(port, "/v1/classify", {"image": _picture(name), "text": "a sailing boat"})
    _post(port, "/v1/classify/batch", {"items": [{"text": "a lemon"}, {"image": _picture("PNG")}]})
    for path in (
        "/",
        "/livez",
        "/startupz",
        "/metrics",
        "/v1/models",
        "/v1/models/illustrations",
        "/docs",
        "/docs/files/swagger-ui-bundle.js",
        "/openapi.json",
    ):
        _answer(port, "GET", path)


def _picture(name: str) -> str:
    packed = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(packed, name)
    return base64.b64encode(packed.getvalue()).decode()


def _post(port: int, path: str, body: dict[str, object]) -> None:
    answer = _answer(port, "POST", path, json.dumps(body))
    if b"score" not in answer or b"problem" in answer:
        raise SystemExit(f"{path} answered {answer[:500]!r}")


def _answer(port: int, method: str, path: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"{method} {path} answered {response.status} {content[:500]!r}")
    return content


def _ready(port: int) -> bool:
    try:
        return bool(_answer(port, "GET", "/readyz"))
    except (ConnectionError, SystemExit):
        return False


def settle(bytecode: Path) -> int:
    """Compile again what was imported, so that bytecode depends on its source alone and not on times."""
    files = list(bytecode.rglob("*.pyc"))
    for compiled in files:
        source = Path("/", compiled.relative_to(bytecode)).with_name(compiled.name.split(".")[0] + ".py")
        py_compile.compile(
            str(source), str(compiled), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
    return len(files)


if __name__ == "__main__":
    main()
