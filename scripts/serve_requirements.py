"""Print the requirements of serving, one per line: the project's dependencies without torch, and those of the extras.

    python scripts/serve_requirements.py [EXTRA…]    extras may be separated by commas or spaces

A bundle with ONNX graphs, as the embedded one is, is served by ONNX Runtime. torch is for training and for serving on a
GPU, and on Linux a plain `pip install torch` brings gigabytes of CUDA. The Makefile and the Dockerfile run this.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXCLUDED = {"torch"}


def main() -> None:
    """Write the requirements to standard output, as `pip install -r` reads them."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [extra for argument in sys.argv[1:] for extra in re.split(r"[,\s]+", argument) if extra]
    sys.stdout.write("".join(f"{line}\n" for line in requirements(project, extras)))


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Return the requirements in the table [project] of pyproject.toml. Ends the process for an unknown extra."""
    available: dict[str, list[str]] = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in available]:
        sys.exit(f"unknown extra {', '.join(unknown)}; allowed: {', '.join(available)}")
    lines: list[str] = [*project["dependencies"]]
    for extra in extras:
        for line in available[extra]:
            # An extra may name others, as in polymodal[train,redis].
            inner = re.fullmatch(rf"{project['name']}\[(.*)\]", line)
            lines += requirements({**project, "dependencies": []}, inner[1].split(",")) if inner else [line]
    return [line for line in lines if re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() not in EXCLUDED]


if __name__ == "__main__":
    main()
