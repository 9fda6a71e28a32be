"""Progress bars and warnings on standard error; bars are shown only in a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from polymodal.model.faults import Faults

console = Console(stderr=True)
Item = TypeVar("Item")


def warn(warnings: Iterable[str]) -> None:
    """Print one line for each kind of warning, on standard error."""
    for warning in Faults(warnings).lines():
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar() -> Iterator[Progress]:
    """Show a progress display on standard error if it is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def track(items: Iterable[Item], what: str, total: int, unit: str, done: int = 0) -> Iterator[Item]:
    """Yield the items, and show their number in a progress display. `done`: items of an earlier run, part of `total`."""
    with bar() as progress:
        task = progress.add_task(what, total=total, completed=done, unit=unit)
        for item in items:
            yield item
            progress.advance(task)
