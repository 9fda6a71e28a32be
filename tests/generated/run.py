"""`make test-generated-client`: clients of common generators for the OpenAPI document compile and work.

    python -m tests.generated.run

For Python with openapi-python-client, and if npm is installed, for TypeScript with @hey-api/openapi-ts and openapi-typescript.
The generators are installed into build/generated-client, apart from .venv, which needs the network. The clients send requests to
a running service.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "tests/generated"
BUILD = PROJECT / "build/generated-client"
IMAGE = PROJECT / "examples/boat.png"
PYTHON_GENERATOR = "openapi-python-client==0.29.1"
NODE_PACKAGES = {
    "@hey-api/openapi-ts": "0.95.0",
    "@types/node": "20.19.0",
    "openapi-typescript": "7.13.0",
    "typescript": "5.9.3",
}
COMPILER = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "target": "es2022",
    "module": "commonjs",
    "moduleResolution": "node10",
    "lib": ["es2023", "dom", "dom.iterable"],
    "types": ["node"],
    "rootDir": ".",
    "outDir": "out",
}
START_S = 120


def main() -> None:
    """Generate and run each client; exit with a message at the first failure."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with service() as address:
        document = BUILD / "openapi.json"
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=30) as response:  # noqa: S310 — our own
            document.write_bytes(response.read())
        in_python(document, address)
        if shutil.which("npm"):
            in_typescript(document, address)
        else:
            sys.stderr.write("TypeScript skipped: npm is not installed\n")


@contextmanager
def service() -> Iterator[str]:
    """Start the service with the embedded model; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "polymodal", "serve", "--port", str(port), "--workers", "1"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL) as process:
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
            while not ready(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the service did not start")
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()


def ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:  # noqa: S310 — our own
            return response.status == 200
    except OSError:
        return False


def run(*command: str | Path, cwd: Path = BUILD, **environment: str) -> None:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=os.environ | environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}")


def in_python(document: Path, address: str) -> None:
    """Generate with openapi-python-client, and run the client; warnings are failures, because the generator left something out."""
    home = BUILD / "python"
    python = home / "bin/python"
    if not (home / "bin/openapi-python-client").exists():
        venv.create(home, with_pip=True, clear=True)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON_GENERATOR)
    client = BUILD / "made-python"
    shutil.rmtree(client, ignore_errors=True)
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    generator = home / "bin/openapi-python-client"
    run(generator, "generate", "--fail-on-warning", "--path", document, "--output-path", client, PATH=path)
    run(python, "-W", "error", FOLDER / "python_client.py", address, IMAGE, PYTHONPATH=str(client))


def in_typescript(document: Path, address: str) -> None:
    """Generate with both tools, compile strictly, and run the client with node."""
    home = BUILD / "typescript"
    home.mkdir(exist_ok=True)
    manifest = json.dumps({"private": True, "devDependencies": NODE_PACKAGES})
    package = home / "package.json"
    if not (home / "node_modules").exists() or package.read_text(encoding="utf-8") != manifest:
        package.write_text(manifest, encoding="utf-8")
        run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error", cwd=home)
    for folder in ("hey", "out"):
        shutil.rmtree(home / folder, ignore_errors=True)
    tools = home / "node_modules/.bin"
    run(tools / "openapi-ts", "--input", document, "--output", "hey", "--silent", cwd=home)
    run(tools / "openapi-typescript", document, "--output", "types.d.ts", cwd=home)
    shutil.copy(FOLDER / "typescript_client.ts", home / "client.ts")
    options = {"compilerOptions": COMPILER, "include": ["client.ts", "types.d.ts", "hey"]}
    (home / "tsconfig.json").write_text(json.dumps(options), encoding="utf-8")
    run(tools / "tsc", "--project", "tsconfig.json", cwd=home)
    run("node", "out/client.js", address, IMAGE, cwd=home)


if __name__ == "__main__":
    main()
