"""Packages of the sources: downloaded and unpacked once, without being installed.

Files are in the folders archives/ and unpacked/ of a cache folder. A step writes to a temporary name and renames at its end, so
that results are always complete; an interrupted step is repeated.
"""

import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from polymodal.model.digest import file_sha256
from polymodal.model.errors import ModelError

MIB: Final = 2**20
POLL_SECONDS: Final = 0.2  # interval of reading the file's size, for the progress bar

Report = Callable[[int], None]
"""Called with the number of downloaded bytes."""


class SourceError(ModelError):
    """A package that is not available, or has another digest than the known one; the message has advice."""


@dataclass(frozen=True, slots=True)
class Package:
    """An archive of a package registry, at the version that the counts in docs/data.md were measured with."""

    kind: Literal["debian", "npm"]
    name: str
    version: str
    sha256: str
    size: int
    """Bytes of the archive."""
    members: tuple[str, ...] = ("",)
    """Prefixes of the paths that are unpacked; the empty prefix matches all."""

    @property
    def file_name(self) -> str:
        """Return the archive's name without its version and without slashes."""
        return self.name.replace("@", "").replace("/", "-")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A package on disk."""

    name: str
    version: str
    sha256: str
    folder: Path
    warning: str = ""
    """Warning about another version than the known one."""


PACKAGES: Final = (
    Package(
        "debian",
        "openclipart-png",
        "1:0.18+dfsg-19",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        130_910_028,
        ("./usr/share/openclipart/png/",),
    ),
    Package(
        "debian",
        "openclipart-svg",
        "1:0.18+dfsg-19",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        24_919_068,
        ("./usr/share/openclipart/svg/",),
    ),
    Package(
        "debian",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        160_880_444,
        ("./usr/share/tuxpaint/stamps/",),
    ),
    Package(
        "npm",
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        74_344_091,
        ("package/img/google/64/", "package/LICENSE"),
    ),
    Package(
        "npm",
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        61_683_754,
        ("package/img/twitter/64/", "package/LICENSE"),
    ),
    Package(
        "npm",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        15_792_027,
    ),
    Package(
        "npm",
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        6_711_091,
        ("package/en/", "package/LICENSE"),
    ),
)


def obtain(package: Package, cache: Path, report: Report = lambda size: None) -> Unpacked:
    """Download and unpack a package unless the cache has it."""
    archive = _archive(package, cache, report)
    digest = file_sha256(archive)
    report(archive.stat().st_size)
    version, warning = package.version, ""
    if digest != package.sha256:
        if package.kind == "npm":  # its version is pinned, so these bytes should never differ
            raise SourceError(
                f"{package.name}: {archive} has sha256 {digest}; allowed: {package.sha256}; "
                "delete the file to fetch it again"
            )
        version = _output(["dpkg-deb", "--field", str(archive), "Version"]).strip()
        warning = f"{package.name}: version {version} (known: {package.version}); counts may differ from docs/data.md"
    folder = cache / "unpacked" / f"{package.file_name}-{digest[:12]}"
    if not folder.exists():
        _unpack(package, archive, folder)
    return Unpacked(package.name, version, digest, folder, warning)


def _archive(package: Package, cache: Path, report: Report) -> Path:
    suffix = {"debian": "deb", "npm": "tgz"}[package.kind]
    # Debian has only one version, which is in the file.
    version = f"-{package.version}" if package.kind == "npm" else ""
    target = cache / "archives" / f"{package.file_name}{version}.{suffix}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _partial(target) as folder:
        _download(package, folder, report)
        files = sorted(folder.glob(f"*.{suffix}"))
        if len(files) != 1:
            raise SourceError(f"{package.name}: the download left {len(files)} .{suffix} files; allowed: 1")
        files[0].replace(target)
    return target


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """Yield an empty working folder next to `target`, without the files of an interrupted run."""
    folder = target.with_name(f"{target.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(package: Package, folder: Path, report: Report) -> None:
    if package.kind == "debian":
        command = ["apt-get", "download", package.name]
        hint = "run `apt-get update` first (as root), and check that this is a Debian with the main archive"
    else:
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        hint = "check that the npm registry can be reached"
    if shutil.which(command[0]) is None:
        raise SourceError(f"{package.name}: the program {command[0]} is missing; it downloads {package.kind} packages")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                report(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()  # after an interruption; without effect on a process that has ended
            process.wait()
        log.seek(0)
        output = log.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        last = output[-1] if output else "no output"
        raise SourceError(f"{package.name}: `{' '.join(command)}` failed ({last}); {hint}")


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    with _partial(folder) as partial:
        tree = partial / "tree"
        tree.mkdir()
        tarball = archive
        try:
            if package.kind == "debian":
                tarball = partial / "data.tar"
                with tarball.open("wb") as file:
                    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
                    subprocess.run(command, stdout=file, check=True)
            with tarfile.open(tarball) as tar:
                members = [member for member in tar if member.name.startswith(package.members)]
                tar.extractall(tree, members, filter="data")  # rejects paths outside the folder
        except (tarfile.TarError, subprocess.SubprocessError, OSError, EOFError) as error:
            raise SourceError(f"{package.name}: {archive} cannot be unpacked ({error}); delete it") from error
        tree.replace(folder)


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
