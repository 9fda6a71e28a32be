"""Print what serving needs, one requirement a line: the project's dependencies without torch, and those of the extras named.

    python scripts/serve_requirements.py [EXTRA…]    extras may be separated by commas or spaces

A bundle with ONNX graphs, as the embedded one is, is served by ONNX Runtime. torch is for training and for serving on a
GPU, and on Linux a plain `pip install torch` brings gigabytes of CUDA. The Makefile and the Dockerfile both ask here.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
LEFT_OUT = {"torch"}


def main() -> None:
    """Write the requirements to standard output, as `pip install -r` reads them."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [extra for argument in sys.argv[1:] for extra in re.split(r"[,\s]+", argument) if extra]
    sys.stdout.write("".join(f"{each}\n" for each in requirements(project, extras)))


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """What the table [project] of pyproject.toml says. Ends the process when it knows no such extra."""
    offered: dict[str, list[str]] = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in offered]:
        sys.exit(f"no extra is called {', '.join(unknown)}; there are {', '.join(offered)}")
    found: list[str] = [*project["dependencies"]]
    for extra in extras:
        for each in offered[extra]:
            # One extra may name others, as in polymodal[train,redis].
            inner = re.fullmatch(rf"{project['name']}\[(.*)\]", each)
            found += requirements({**project, "dependencies": []}, inner[1].split(",")) if inner else [each]
    return [each for each in found if re.split(r"[^\w.-]", each, maxsplit=1)[0].lower() not in LEFT_OUT]


if __name__ == "__main__":
    main()
