"""Print what serving needs, one requirement a line: the project's dependencies without torch.

A bundle with ONNX graphs, as the embedded one is, is served by ONNX Runtime. torch is for training and for serving on a
GPU, and on Linux a plain `pip install torch` brings gigabytes of CUDA. The Makefile and the Dockerfile both ask here.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
LEFT_OUT = {"torch"}


def main() -> None:
    """Write the requirements to standard output, as `pip install -r` reads them."""
    dependencies: list[str] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    kept = [each for each in dependencies if re.split(r"[^\w.-]", each, maxsplit=1)[0].lower() not in LEFT_OUT]
    sys.stdout.write("".join(f"{each}\n" for each in kept))


if __name__ == "__main__":
    main()
