"""Replace a folder as a whole: a reader sees the old files or the new ones, and a failure leaves the old ones."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield the path of a new folder next to `directory`, and move it there when the block ends without an exception.

    If the block raises, the new folder is removed, and an older one stays as it was.
    """
    fresh, older = (directory.with_name(f".{directory.name}.{state}") for state in ("part", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    if older.exists() and not directory.exists():  # a run was killed between the two moves below
        older.rename(directory)
    shutil.rmtree(older, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        if directory.exists():
            directory.rename(older)
        fresh.rename(directory)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if older.exists() and not directory.exists():
            older.rename(directory)
        raise
    shutil.rmtree(older, ignore_errors=True)
