"""Output of commands for people: tables, progress bars, a model card; plain text if the output is not a terminal."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from polymodal.app.access.keys import Key
from polymodal.app.commands.command import print_json, report
from polymodal.app.doctor.result import CheckResult, State
from polymodal.app.serving.tune import Measured
from polymodal.model import Classification, Hit
from polymodal.model.evaluation import Evaluation, Grid, RunSummary, label_grid, summary_grid
from polymodal.model.progress import track

LISTED: Final = 20  # kinds of bad rows that are shown; the rest is counted
RESULT_WIDTH: Final = 1000  # columns of a check result
TABLE_WIDTH: Final = 160  # columns of a table that goes to a file or to another program

Item = TypeVar("Item")


def show_plan(measured: Measured) -> None:
    """Print a measured plan as one line on standard output."""
    plan = measured.plan
    Console().print(
        f"workers {plan.workers}, threads {plan.threads}, batches of up to {plan.batch_items}: {measured.items_per_s:.0f} items/s",
        highlight=False,
    )


def watched(items: Iterator[Item], total: int, done: int = 0) -> Iterator[Item]:
    """Yield items, with a progress bar on standard error if that is a terminal. `done`: items of an earlier run."""
    return track(items, "scoring", total, "rows", done)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the measures as tables on standard output."""
    console = _output()
    counts = f"{len(evaluation.rows):,} items, {len(evaluation.skipped):,} skipped"
    rows = "all rows" if evaluation.split == "all" else f"{evaluation.split} split"
    console.print(Text(f"{evaluation.description.name}, {rows} of {evaluation.manifest_name}: {counts}"))
    console.print(_table(summary_grid(evaluation)))
    if (labels := label_grid(evaluation)).rows:
        console.print(_table(labels))


def show_answer(answer: Classification) -> None:
    """Print labels and their scores, best first, or a number, on standard output."""
    console = _output()
    if answer.value is not None:
        interval = answer.interval
        bounds = f" ({interval.low} to {interval.high} with {interval.coverage:.0%})" if interval else ""
        console.print(Text(f"{answer.value}{bounds}"))
        return
    rows = tuple((entry.label, f"{entry.score:.6f}", "selected" if entry.selected else "") for entry in answer.labels)
    console.print(_table(Grid(("label", "score", ""), rows)))


def show_hits(hits: Sequence[Hit]) -> None:
    """Print the items that a search returned, best first, on standard output."""
    rows = tuple(
        (
            hit.id,
            f"{hit.cosine:.3f}",
            "" if hit.match is None else f"{hit.match:.3f}",
            "+".join(hit.modalities),
            ", ".join(f"{name}={value}" for name, value in hit.metadata.items()),
        )
        for hit in hits
    )
    _output().print(_table(Grid(("id", "cosine", "match", "modalities", "metadata"), rows)))


def show_warnings(warnings: Sequence[str]) -> None:
    """Print warnings about a manifest on standard error."""
    console = Console(stderr=True, soft_wrap=True)
    for warning in warnings:
        console.print(Text(f"warning: {warning}"))


def show_bad_rows(faults: Sequence[str], count: int) -> None:
    """Print on standard error how many rows were left out, and why: a line for each kind of fault."""
    console = Console(stderr=True, soft_wrap=True)
    if count:
        console.print(Text(f"{count:,} row{'s' if count != 1 else ''} left out:"))
    for line in islice(faults, LISTED):
        console.print(Text(f"  {line}"))
    if len(faults) > LISTED:
        console.print(Text(f"  … and {len(faults) - LISTED:,} other reasons"))


def show_written(written: RunSummary, as_json: bool) -> None:
    """Print how many rows of a manifest were written: as text on standard error, and as JSON on standard output."""
    if as_json:
        errors = [{"id": identifier, "problem": problem} for identifier, problem in written.errors]
        counts = {"rows": written.rows, "resumed": written.resumed, "failed": written.failed}
        print_json({"out": str(written.out), **counts, "errors": errors, "warnings": list(written.warnings)})
    resumed = f", {written.resumed:,} of them earlier" if written.resumed else ""
    report(f"{written.out}: {written.rows:,} rows{resumed}, {written.failed:,} with an error")
    show_bad_rows(written.faults, written.failed)


def show_card(card: str) -> None:
    """Print a model card: formatted for a terminal, as Markdown for anything else."""
    console = _output()
    if console.is_terminal:
        console.print(Markdown(card))
    else:
        console.file.write(card)


def show_keys(keys: Sequence[Key]) -> None:
    """Print the names, scopes and times of keys on standard output."""
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


def show_results(results: Sequence[CheckResult]) -> None:
    """Print the results of checks, with the advice below each result that has any."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=RESULT_WIDTH)  # no line breaks in a file, which may be searched
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "area", "check"):
        table.add_column(name, no_wrap=True)
    table.add_column("found; what to do", overflow="fold")
    for result in results:
        text = Text(result.found)
        if result.advice:
            text.append(f"\n→ {result.advice}", style="bold")
        table.add_row(Text(result.state, style=_COLOURS[result.state]), Text(result.area), Text(result.check), text)
    console.print(table)
    counts = {state: sum(result.state is state for result in results) for state in State}
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items())))


def _output() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=TABLE_WIDTH)


def _table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(grid.header):
        table.add_column(Text(name), overflow="fold" if number == 0 else "ellipsis")
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
