"""Changes to the files of a bundle."""

from pathlib import Path

from polymodal.model.digest import file_sha256


def update_sums(bundle: Path) -> None:
    """Record the digests of a changed bundle again, so that a change is not rejected for its digest."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{file_sha256(file)}  {file.relative_to(bundle).as_posix()}\n" for file in files]
    (bundle / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
