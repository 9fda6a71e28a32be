"""What the commands show in a terminal: tables, progress bars, a model card; plain where nobody looks."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from app.doctor.finding import Finding, State
from app.keys import Key
from app.schemas import Classification
from app.tune import Measured
from model.evaluation import Evaluation, Grid, label_grid, summary_grid

LISTED: Final = 20  # kinds of bad rows that are shown; the rest is counted
LONGEST: Final = 1000  # columns of a finding
WIDE: Final = 160  # columns of a table that goes to a file or to another program

Item = TypeVar("Item")


def show_plan(measured: Measured) -> None:
    """One line on standard output."""
    plan = measured.plan
    Console().print(
        f"workers {plan.workers}, threads {plan.threads}, batches of up to {plan.batch_items}: {measured.items_per_s:.0f} items/s",
        highlight=False,
    )


def watched(items: Iterator[Item], total: int, done: int = 0) -> Iterator[Item]:
    """Pass items on under a progress bar on standard error, if that is a terminal; `done` were passed earlier."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def show_evaluation(evaluation: Evaluation) -> None:
    """The measures, as tables on standard output."""
    console = _output()
    counted = f"{len(evaluation.rows):,} items, {len(evaluation.skipped):,} skipped"
    part = "all rows" if evaluation.split == "all" else f"{evaluation.split} part"
    console.print(Text(f"{evaluation.description.name}, {part} of {evaluation.manifest_name}: {counted}"))
    console.print(_table(summary_grid(evaluation)))
    if (labels := label_grid(evaluation)).rows:
        console.print(_table(labels))


def show_answer(answer: Classification) -> None:
    """Labels and their scores, best first, or a number, on standard output."""
    console = _output()
    if answer.value is not None:
        interval = answer.interval
        told = f" ({interval.low} to {interval.high} with {interval.coverage:.0%})" if interval else ""
        console.print(Text(f"{answer.value}{told}"))
        return
    rows = tuple((each.label, f"{each.score:.6f}", "selected" if each.selected else "") for each in answer.labels)
    console.print(_table(Grid(("label", "score", ""), rows)))


def show_warnings(warnings: Sequence[str]) -> None:
    """What of a manifest was left out or read in another way, on standard error."""
    console = Console(stderr=True, soft_wrap=True)
    for warning in warnings:
        console.print(Text(f"warning: {warning}"))


def show_bad_rows(faults: Sequence[str], count: int) -> None:
    """How many rows were left out, and why, a line for each kind of fault, on standard error."""
    console = Console(stderr=True, soft_wrap=True)
    if count:
        console.print(Text(f"{count:,} row{'s' if count != 1 else ''} left out:"))
    for line in islice(faults, LISTED):
        console.print(Text(f"  {line}"))
    if len(faults) > LISTED:
        console.print(Text(f"  … and {len(faults) - LISTED:,} other reasons"))


def show_card(card: str) -> None:
    """A model card: set in type for a terminal, as Markdown for anything else."""
    console = _output()
    if console.is_terminal:
        console.print(Markdown(card))
    else:
        console.file.write(card)


def show_keys(keys: Sequence[Key]) -> None:
    """Whose keys there are, what they open and until when, on standard output."""
    now = datetime.now(UTC)
    rows = tuple(
        (
            key.name,
            ", ".join(sorted(key.scopes)),
            f"{key.created:%Y-%m-%d}",
            "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M %Z}",
            "expired" if key.expired(now) else "",
        )
        for key in keys
    )
    _output().print(_table(Grid(("name", "scopes", "created", "expires", ""), rows)))


_COLOURS: Final = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red"}


def show_findings(findings: Sequence[Finding]) -> None:
    """What the doctor found, with what to do about it below each finding that asks for something."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LONGEST)  # in a file, nothing is broken that somebody may look for
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "area", "check"):
        table.add_column(name, no_wrap=True)
    table.add_column("found; what to do", overflow="fold")
    for each in findings:
        told = Text(each.found)
        if each.advice:
            told.append(f"\n→ {each.advice}", style="bold")
        table.add_row(Text(each.state, style=_COLOURS[each.state]), Text(each.area), Text(each.check), told)
    console.print(table)
    counts = {state: sum(each.state is state for each in findings) for state in State}
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items())))


def _output() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def _table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(grid.header):
        table.add_column(Text(name), overflow="fold" if number == 0 else "ellipsis")
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
