"""`polymodal index`: build a search index of a manifest, and search it."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated

import typer

from polymodal.app.commands.bundles import EMBEDDED, ManifestArgument, Strict, open_model
from polymodal.app.commands.command import (
    BAD_ROWS,
    CPUS,
    SUFFIXES,
    WORDS,
    AsJson,
    Roots,
    Workers,
    command,
    group,
    print_json,
)
from polymodal.model import MODALITIES

commands = group("index", "Build a search index of a manifest's images and texts, and search it.")

IndexFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder written by `polymodal index build`.")]
OfBundle = Annotated[str, typer.Option(metavar="BUNDLE", help="Folder of a bundle with aligned vectors.")]


@command(
    commands,
    "polymodal index build things.csv --out indexes/things --bundle bundles/things",
    "polymodal index build things.csv --out indexes/things --bundle bundles/things --metadata prices.csv --restart",
)
def build(
    manifest: ManifestArgument,
    out: Annotated[Path, typer.Option(help="Folder to write; OUT.part holds what is in progress.")],
    bundle: OfBundle = EMBEDDED,
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="Table with the column id, whose other columns are returned with an item and filter; also MANIFEST itself.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start again: drop OUT.part, and replace OUT if it exists.")
    ] = False,
    strict: Strict = False,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Write an index: one aligned vector for each row of a manifest. The same command resumes an interrupted run.

    A row's texts, paths, label, group, split, source and licence are returned with it. Rows that can't be read are listed and left
    out. Services read their indexes when they start.
    """
    from polymodal.app.commands.terminal import show_warnings, show_written, watched
    from polymodal.model.evaluation import build_index

    written = build_index(
        open_model(bundle),
        manifest,
        out,
        metadata=metadata,
        restart=restart,
        workers=workers,
        watch=watched,
        warn=show_warnings,
        roots=root or (),
    )
    show_written(written, as_json)
    if strict and written.failed:
        raise typer.Exit(BAD_ROWS)


@command(
    commands,
    "polymodal index search indexes/things 'a small boat' --bundle bundles/things --top-k 3",
    "polymodal index search indexes/things photo.jpg --bundle bundles/things --filter label=transport --json",
)
def search(
    folder: IndexFolder,
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...", help="Words, or a file, which its suffix tells apart; several of different kinds."
        ),
    ],
    bundle: OfBundle = EMBEDDED,
    top_k: Annotated[int, typer.Option(min=1, help="Number of items, best first.")] = 10,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Value that an item's metadata must have; repeatable."),
    ] = None,
    min_match: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only items whose match is at least this.")
    ] = None,
    prior: Annotated[
        float, typer.Option(min=1e-9, max=1 - 1e-9, help="Share of the items that belong to a query, by your estimate.")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Print the items that are most similar to words, to a file, or to both together.

    Similar is the cosine of the vectors; match is the probability that item and query belong together, at the prior.
    """
    from polymodal.app.commands.terminal import show_hits
    from polymodal.app.serving.similarity import embed_one
    from polymodal.model import read_index, rebuild_command

    inputs = _read_query(query)
    filter = dict(_pair(entry) for entry in filters or ())
    index = read_index(folder)
    index.check_filter(filter)
    model = open_model(bundle)
    index.check_model(model.description, rebuild_command(folder))
    embedding = embed_one(model, inputs)
    hits = index.search(
        embedding.fused or [],
        embedding.modalities,
        model.description.matches,
        top_k=top_k,
        filter=filter,
        min_match=min_match,
        prior=prior,
    )
    if as_json:
        fields = ("id", "cosine", "match", "modalities", "metadata")
        rows = [{name: getattr(hit, name) for name in fields} for hit in hits]
        print_json({"digest": index.digest, "prior": prior, "hits": rows})
    else:
        show_hits(hits)


def _read_query(query: Sequence[str]) -> dict[str, bytes | str]:
    """Return the inputs of a query: the bytes of files whose suffix is that of a modality, and words."""
    inputs: dict[str, bytes | str] = {}
    for entry in query:
        name = SUFFIXES.get(PurePath(entry).suffix.lower(), WORDS)
        if name is None or name in inputs:
            raise typer.BadParameter(f"{entry!r}; allowed: one query of each of {', '.join(MODALITIES)}")
        inputs[name] = entry if MODALITIES[name].textual else Path(entry).read_bytes()
    return inputs


def _pair(entry: str) -> tuple[str, str]:
    key, equals, value = entry.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"--filter {entry!r}; allowed: KEY=VALUE, such as label=boat")
    return key, value
