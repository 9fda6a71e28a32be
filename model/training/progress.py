"""Progress bars for whoever watches a long command; silent where nobody does."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")

console = Console(stderr=True)


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress display on standard error, shown only in a terminal."""
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


def track(items: Sequence[Item], what: str, *, unit: str) -> Iterable[Item]:
    """Yield the items, and show how many are done."""
    with bar() as progress:
        task = progress.add_task(what, total=len(items), unit=unit)
        for item in items:
            yield item
            progress.advance(task)
