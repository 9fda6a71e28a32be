"""Write constraints.txt: the exact version of every package that serving, training and development use.

    python scripts/constraints.py [REQUIREMENT …]

A fresh environment gets the project with all its extras at their newest versions, and what it then holds is written
down. A requirement given here narrows that choice: `torch==2.13.0` keeps torch where it is.
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).parents[1]
HEADER = """\
# Exact versions of everything that serving, training and development use, made by `make constraints`: don't edit.
# They constrain, they install nothing: pip install -c constraints.txt …
"""
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s+;]+)(?P<local>\+\S+)?")
# Packages that only torch's CUDA build asks for, by exact version and by itself; a machine without a GPU has none.
CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton", re.IGNORECASE)


def main() -> None:
    """Install, list, write."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip"]
        # Editable, because any other installation leaves a build/ folder behind in the project.
        subprocess.run(
            [*pip, "install", "--editable", f"{PROJECT}[dev,browser,docs,fuzz,supply]", *sys.argv[1:]], check=True
        )
        frozen = subprocess.run(
            [*pip, "freeze", "--all", "--exclude=pip", "--exclude-editable"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    lines = pins(frozen.stdout)
    (PROJECT / "constraints.txt").write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    sys.stdout.write(f"constraints.txt: {len(lines)} packages\n")


def pins(frozen: str) -> list[str]:
    """What `pip freeze` says as name==version; build variants such as +cpu are the installing machine's own choice."""
    found = (PIN.fullmatch(line.strip()) for line in frozen.splitlines())
    return [f"{pin['name']}=={pin['version']}" for pin in found if pin and not CUDA_ONLY.match(pin["name"])]


if __name__ == "__main__":
    main()
