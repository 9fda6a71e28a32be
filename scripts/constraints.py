"""Write constraints.txt: the exact version of every package that serving, training and development use.

    python scripts/constraints.py [REQUIREMENT …]

It installs the project with all extras at their newest versions in a new environment, and writes the installed versions.
A REQUIREMENT restricts them: `torch==2.13.0` keeps that version of torch.
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
# Packages that only torch's CUDA build requires, by exact version; a machine without a GPU has none.
CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton", re.IGNORECASE)


def main() -> None:
    """Install, list the packages, and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip"]
        # Editable, because any other installation leaves a build/ folder in the project.
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
    """Return name==version of each line of `pip freeze`, without build variants such as +cpu, which depend on the machine."""
    matches = (PIN.fullmatch(line.strip()) for line in frozen.splitlines())
    return [f"{pin['name']}=={pin['version']}" for pin in matches if pin and not CUDA_ONLY.match(pin["name"])]


if __name__ == "__main__":
    main()
