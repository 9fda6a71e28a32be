"""index.html of an evaluation: one self-contained page with metrics, figures and the worst mistakes."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from polymodal.model.errors import InputError
from polymodal.model.evaluation.answers import ALL, Evaluation
from polymodal.model.evaluation.grids import explanation, label_grid, spaced, summary_grid
from polymodal.model.manifest import Row
from polymodal.model.modalities import MODALITIES

MISTAKES: Final = 24  # shown for each set of modalities
SKIPPED: Final = 200  # rows that are listed; metrics.json has all of them
SIDE: Final = 144  # px of a thumbnail
LONGEST_TEXT: Final = 300  # characters of a text that are shown

FOLDER: Final = Path(__file__).parent


class _Input(NamedTuple):
    """An input of a row as the page shows it."""

    text: str
    """The input itself, or the description of its image."""
    image: str = ""
    """A data URL of its thumbnail, which is an image, or a sound to play."""
    quoted: bool = False
    """Whether `text` is the input itself."""


def write_page(evaluation: Evaluation, figures: Mapping[str, bytes]) -> str:
    """Return the page; `figures` holds SVG files by name, "KIND-SET" as in "confusion-image+text"."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    description, skipped = evaluation.description, evaluation.skipped
    measured = "all rows" if evaluation.split == ALL else f"{evaluation.split} part"
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    left = len(skipped) - SKIPPED
    return environment.get_template("page.html.j2").render(
        heading=f"{description.name}: {measured}",
        policy=_policy(style),
        style=style,
        facts={
            "bundle": description.digest,
            "runtime": description.runtime,
            "manifest": f"{evaluation.manifest_name}, {measured}",
            "manifest's digest": evaluation.manifest_digest,
            "items": f"{len(evaluation.rows):,}; {len(skipped):,} skipped",
        },
        summary=summary_grid(evaluation),
        explanation=explanation(evaluation),
        labels=label_grid(evaluation),
        sections=list(_sections(evaluation, figures)),
        skipped=skipped[:SKIPPED],
        more_skipped=f"{left:,}" if left > 0 else "",
    )


def _policy(style: str) -> str:
    """Return the policy that allows only this style, and images and sounds inside the page."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    files = "img-src data:; media-src data:"
    return f"default-src 'none'; {files}; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _sections(evaluation: Evaluation, figures: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    """Yield the figures and the worst mistakes of each set of modalities."""
    for key, answers in evaluation.answers.items():
        suffix = f"-{key}"
        mistakes = evaluation.target.mistakes(answers.scores, evaluation.targets[answers.rows], MISTAKES)
        entries = []
        for mistake in mistakes.worst:
            row = evaluation.rows[answers.rows[mistake.row]]
            inputs = [_input(row, name) for name in answers.used[mistake.row].split("+")]
            shown = {"predicted": mistake.predicted, "detail": mistake.detail, "label": row.label}
            entries.append({"id": row.id, "inputs": inputs, **shown})
        yield {
            "given": spaced(key),
            "figures": {
                name.removesuffix(suffix): _data_url(content, "image/svg+xml")
                for name, content in figures.items()
                if name.endswith(suffix)
            },
            "summary": mistakes.summary,
            "mistakes": entries,
        }


def _input(row: Row, name: str) -> _Input:
    """Return an input of a row: its text, its thumbnail, or the name of its file if the modality has no thumbnails."""
    value, modality = row.inputs[name], MODALITIES[name]
    if isinstance(value, str):
        return _Input(value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…", quoted=True)
    thumbnails = modality.optional_module("thumbnail")
    if thumbnails is None:
        return _Input(value.name)
    try:
        image = _data_url(thumbnails.thumbnail(value.read_bytes(), SIDE), thumbnails.MEDIA_TYPE)
    except (OSError, InputError):  # the file has changed since
        return _Input(f"({modality.common_noun} no longer there)")
    return _Input(f"{modality.common_noun} of {row.id}", image)


def _data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
