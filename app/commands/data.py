"""`polymodal data`: data sets to train on."""

from pathlib import Path
from typing import Annotated

import typer

from polymodal.app.commands.command import AsJson, command, group, print_json, show

commands = group("data", "Make a data set to train on.")


@command(commands, "polymodal data shapes", "polymodal data shapes --out data/shapes --rows 1000 --splits --json")
def shapes(
    out: Annotated[Path, typer.Option(help="Folder for images/ and manifest.csv.")] = Path("data/shapes"),
    rows: Annotated[int, typer.Option(min=8, max=100_000, help="Number of drawings.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the drawings.")] = 0,
    groups: Annotated[bool, typer.Option("--groups", help="Draw each thing twice, with a column group.")] = False,
    splits: Annotated[bool, typer.Option("--splits", help="Add a column split.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw a toy data set in a moment: coloured shapes whose label depends on both image and caption."""
    from polymodal.model.training.sources.shapes import build

    built = build(out, rows=rows, seed=seed, groups=groups, splits=splits)
    if as_json:
        print_json({"manifest": str(out / "manifest.csv"), "rows": rows})
    else:
        show(built)


@command(commands, "polymodal data illustrations --out data/illustrations")
def illustrations(
    out: Annotated[Path, typer.Option(help="Folder for images/ and manifest.csv.")] = Path("data/illustrations"),
    cache: Annotated[Path, typer.Option(help="Where downloaded packages are kept.")] = Path("data/cache"),
    as_json: AsJson = False,
) -> None:
    """Build the default data set: open drawings with captions, ten labels (about 350 MB of downloads)."""
    from polymodal.model.training.sources.illustrations import build

    built = build(out, cache, progress=not as_json)
    if as_json:
        print_json({"manifest": str(built.manifest), "digest": built.digest, "counts": built.counts})
