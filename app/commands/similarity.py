"""`polymodal similarity`: whether two files or texts belong together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polymodal.app.commands.bundles import EMBEDDED, open_model
from polymodal.app.commands.command import SUFFIXES, WORDS, AsJson, command, show

if TYPE_CHECKING:
    from polymodal.model import Embedding, Inputs, Model

Side = Annotated[str, typer.Argument(help="A file, whose suffix names its kind, or words.", show_default=False)]

commands = typer.Typer()


@command(
    commands,
    "polymodal similarity examples/boat.png 'a sailing dinghy' --bundle bundles/things",
    "polymodal similarity 'a small boat' 'a sailing dinghy' --bundle bundles/things --prior 0.1",
    "polymodal similarity boat.png lake.jpg --bundle bundles/things --json",
)
def similarity(
    one: Side,
    other: Side,
    bundle: Annotated[str, typer.Option(help="Folder of a bundle with aligned vectors.")] = EMBEDDED,
    prior: Annotated[
        float | None,
        typer.Option(
            help="Share of such pairs that belong together, between 0 and 1; 0.5 unless given.", metavar="SHARE"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two files or texts: their cosine, and the probability that they belong together.

    With --json it prints the response of POST /v1/similarity.
    """
    from polymodal.app.api.schemas import Similarity
    from polymodal.app.serving.similarity import Ranking, SimilarityOptions, compare
    from polymodal.model import ModelError, Space

    if prior is not None and not 0 < prior < 1:
        raise typer.BadParameter(f"--prior {prior}; allowed: a number between 0 and 1, without either")
    sides = {argument: _read(argument) for argument in (one, other)}
    model = open_model(bundle)
    if Space.ALIGNED not in model.description.spaces:
        raise ModelError(f"{bundle}: a model without aligned vectors; allowed: one that has them")
    query, candidate = (_embedded(model, argument, sides[argument]) for argument in (one, other))
    pairs = compare(query, {0: candidate}, model.description, prior)
    answer = Similarity.of(Ranking(query, pairs, ()), SimilarityOptions(prior=prior))
    if as_json:
        show(answer.model_dump_json(exclude_none=True))
        return
    (pair,) = answer.pairs
    kinds = " and ".join("+".join(side) for side in (answer.modalities, pair.modalities))
    show(f"cosine  {pair.cosine:.6f}, of {kinds}")
    if pair.match is None:
        known = ", ".join(sorted(model.description.matches)) or "none"
        show(f"match   not calibrated for these; pairs that are: {known}")
    else:
        reached = "reaches" if pair.selected else "is below"
        show(
            f"match   {pair.match:.6f} at a prior of {answer.prior:g}, which {reached} the threshold {pair.threshold:g}"
        )


def _read(argument: str) -> "Inputs":
    """Return the input that an argument names: a file by its suffix, or words."""
    path = Path(argument).expanduser()
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is not None and (path.exists() or not any(map(str.isspace, argument))):  # a misspelt path is no text
        return {kind: path.read_bytes()}
    if _is_file(path):
        raise typer.BadParameter(
            f"{argument}, a file of no known kind; allowed: {', '.join(sorted(SUFFIXES))}, or words"
        )
    if WORDS is None:
        raise typer.BadParameter(f"{argument!r}, words; allowed: files")
    return {WORDS: argument}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # words that are too long for a path, or have a NUL
        return False


def _embedded(model: "Model", argument: str, inputs: "Inputs") -> "Embedding":
    """Return the aligned vector of an argument. Raises ModelError, which names the argument."""
    from polymodal.app.serving.similarity import embed_one
    from polymodal.model import InputError

    try:
        return embed_one(model, inputs)
    except InputError as error:
        raise type(error)(argument, error.found, error.allowed) from None
