"""`make test-clients`: clients that others wrote work with the service, each in an environment of its own.

    python -m tests.clients.run

They are installed into build/clients (or $CLIENTS_HOME), apart from .venv, which needs the network, and npm for those of Node. They
send requests to two running services with the toy model. The table of what worked is written to docs/compatibility.md.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from polymodal.app.access.keys import digest, make_record, write_keys
from tests.media import solid
from tests.serving import running
from tests.speech_models import pause, tone, wav

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "tests/clients"
BUILD = Path(os.environ.get("CLIENTS_HOME", PROJECT / "build/clients"))
PAGE = PROJECT / "docs/compatibility.md"
BEGIN, END = "<!-- clients: made by make test-clients -->\n", "<!-- end of clients -->"
KEY, NARROW_KEY = "a-key-for-embeddings", "a-key-for-models"
SERVICE = """
import os
import tempfile
from pathlib import Path
from polymodal.app.main import serve
from polymodal.app.settings import load_settings
from tests.app.conftest import make_predictor
from tests.speech_models import scripted, write_speech
models = {"toy": make_predictor("toy", aligned=True), "plain": make_predictor("plain")}
with tempfile.TemporaryDirectory() as folder:
    models["speech"] = scripted(write_speech(Path(folder) / "speech", golden=()))
    serve(load_settings(os.environ), models)
"""


@dataclass(frozen=True)
class Client:
    """A package, its version and the script that uses it."""

    package: str
    version: str
    script: str

    @property
    def language(self) -> str:
        return "Node" if self.script.endswith(".mjs") else "Python"


def clients() -> list[Client]:
    """Return all clients with the versions that this folder pins."""
    pinned = [
        path.read_text(encoding="utf-8").strip().split("==") for path in sorted(FOLDER.glob("requirements-*.txt"))
    ]
    node = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    return [
        *(Client(name, version, f"{name.replace('-', '_')}_python.py") for name, version in pinned),
        *(Client(name, version, f"{name}_node.mjs") for name, version in node.items()),
    ]


def main() -> None:
    """Run all clients, and write the table; exit with a message at the first failure."""
    rows = []
    with services() as environment:
        for client in clients():
            if client.language == "Node" and not shutil.which("npm"):
                raise SystemExit("npm is not installed, which the clients for Node need")
            command = install(client)
            done = subprocess.run(
                command,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{client.package} for {client.language}: exit code {done.returncode}\n{done.stdout}")
            lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
            rows += [(client, *json.loads(line)) for line in lines]
    write(rows)
    sys.stdout.write(f"{len(rows)} rows in {PAGE.relative_to(PROJECT)}\n")


@contextmanager
def services() -> Iterator[dict[str, str]]:
    """Start both services; yield what the scripts read from their environment."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        records = [("all", KEY, ["embed", "transcribe", "models"]), ("narrow", NARROW_KEY, ["models"])]
        write_keys(keys, [make_record(name, digest(key), scopes, None) for name, key, scopes in records])
        sound = Path(folder) / "speech.wav"
        sound.write_bytes(wav(pause(1), tone(2), pause(3), tone(1)))
        command = (sys.executable, "-c", SERVICE)
        with (
            running(*command, api_keys_file=keys) as open_one,
            running(*command, api_keys_file=keys, rate_limit_per_key="3/3seconds") as limited,
        ):
            yield {
                "SERVICE": open_one.url,
                "LIMITED": limited.url,
                "KEY": KEY,
                "NARROW_KEY": NARROW_KEY,
                "IMAGE": f"data:image/png;base64,{base64.b64encode(solid('red')).decode()}",
                "SOUND": str(sound),
                "PYTHONPATH": str(FOLDER),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "NO_PROXY": "127.0.0.1",
            }


def install(client: Client) -> list[str | Path]:
    """Install a client unless it is there; return the command that runs its script."""
    home = BUILD / f"{client.package}-{client.language.lower()}-{client.version}"
    if client.language == "Node":
        if not (home / "node_modules").exists():
            home.mkdir(parents=True, exist_ok=True)
            shutil.copy(FOLDER / "package.json", home)
            options = ("--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error")
            subprocess.run(["npm", "install", *options], cwd=home, check=True)
        shutil.copy(FOLDER / client.script, home)
        return ["node", home / client.script]
    python = home / "bin/python"
    if not (home / "installed").exists():
        venv.create(home, with_pip=True, clear=True)
        requirements = FOLDER / f"requirements-{client.package}.txt"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--requirement", requirements], check=True)
        (home / "installed").touch()
    return [python, FOLDER / client.script]


def write(rows: list[tuple[Client, str, str]]) -> None:
    """Write the table between the two markers of the page."""
    lines = ["| client | version | call | result |", "|---|---|---|---|"]
    for client, call, result in rows:
        cells = (f"{client.package} ({client.language})", client.version, call, result)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    table = "\n".join(lines)
    PAGE.write_text(f"{head}{BEGIN}{table}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
