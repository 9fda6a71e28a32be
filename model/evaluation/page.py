"""index.html of an evaluation: one self-contained page with metrics, figures and the worst mistakes.

It is built as a tree of elements, so that labels and texts are escaped when it is written.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final
from xml.etree.ElementTree import Element, tostring

from polymodal.model.errors import InputError
from polymodal.model.evaluation.answers import ALL, Answers, Evaluation
from polymodal.model.evaluation.grids import Grid, explanation, label_grid, spaced, summary_grid
from polymodal.model.manifest import Row
from polymodal.model.modalities import MODALITIES
from polymodal.model.targets.mistakes import Mistake

MISTAKES: Final = 24  # shown for each set of modalities
SKIPPED: Final = 200  # rows that are listed; metrics.json has all of them
SIDE: Final = 144  # px of a thumbnail
LONGEST_TEXT: Final = 300  # characters of a text that are shown

STYLE: Final = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent); --wrong: #c2410c;
  font: 1rem/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --wrong: #fb923c; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1.5rem; }
dl { display: grid; gap: 0.2rem 1rem; grid-template-columns: max-content 1fr; }
dt, .faint { opacity: 0.75; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 1.2rem 0.3rem 0; text-align: left; vertical-align: top; }
td { white-space: pre; }
tbody th { font-weight: normal; }
.figures { align-items: flex-start; display: flex; flex-wrap: wrap; gap: 1rem; }
.figures img { background: white; border-radius: 0.5rem; box-sizing: border-box; max-width: 100%; padding: 0.5rem; }
.mistakes { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); list-style: none; padding: 0; }
.mistakes li { border: 1px solid var(--line); border-radius: 0.5rem; overflow-wrap: anywhere; padding: 0.75rem; }
.mistakes img { background: white; border-radius: 0.25rem; display: block; margin: 0 auto 0.5rem; max-width: 100%; }
.mistakes p { margin: 0.25rem 0; }
.mistakes .words { display: block; unicode-bidi: isolate; }
.said { color: var(--wrong); font-weight: 600; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
"""


def write_page(evaluation: Evaluation, figures: Mapping[str, bytes]) -> str:
    """Return the page; `figures` holds SVG files by name, "KIND-SET" as in "confusion-image+text"."""
    description = evaluation.description
    heading = f"{description.name}: {_rows_measured(evaluation)}"
    sections = [
        section
        for key, answers in evaluation.answers.items()
        for section in (
            _element("h2", f"Given {spaced(key)}"),
            _figures(figures, key),
            _element("h3", "Worst mistakes"),
            *_mistakes(evaluation, answers),
        )
    ]
    body = _element(
        "body",
        _element("h1", heading),
        _facts(evaluation),
        _element("h2", "Measures"),
        _table(summary_grid(evaluation)),
        _element("p", explanation(evaluation), attributes={"class": "faint"}),
        *_labels(evaluation),
        *sections,
        *_skipped(evaluation),
    )
    head = _element(
        "head",
        _element("meta", attributes={"charset": "utf-8"}),
        _element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": _policy()}),
        _element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        _element("title", heading),
        _element("style", STYLE),
    )
    page = _element("html", head, body, attributes={"lang": "en"})
    return f"<!doctype html>\n{tostring(page, encoding='unicode', method='html')}\n"


def _element(tag: str, *children: "Element | str", attributes: Mapping[str, str] | None = None) -> Element:
    """Build an element with its children, of which strings are text."""
    element = Element(tag, dict(attributes or {}))
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif last is None:
            element.text = (element.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return element


def _policy() -> str:
    """Return the policy that allows only this style, and images inside the page."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _rows_measured(evaluation: Evaluation) -> str:
    return "all rows" if evaluation.split == ALL else f"{evaluation.split} part"


def _facts(evaluation: Evaluation) -> Element:
    description = evaluation.description
    facts = {
        "bundle": description.digest,
        "runtime": description.runtime,
        "manifest": f"{evaluation.manifest_name}, {_rows_measured(evaluation)}",
        "manifest's digest": evaluation.manifest_digest,
        "items": f"{len(evaluation.rows):,}; {len(evaluation.skipped):,} skipped",
    }
    return _element(
        "dl", *(_element(tag, text) for pair in facts.items() for tag, text in zip(("dt", "dd"), pair, strict=True))
    )


def _table(grid: Grid) -> Element:
    head = _element("tr", *(_element("th", cell) for cell in grid.header))
    rows = [
        _element("tr", _element("th", first, attributes={"scope": "row"}), *(_element("td", cell) for cell in rest))
        for first, *rest in grid.rows
    ]
    table = _element("table", _element("thead", head), _element("tbody", *rows))
    return _element("div", table, attributes={"class": "wide"})


def _labels(evaluation: Evaluation) -> list[Element]:
    grid = label_grid(evaluation)
    return [_element("h2", "Labels"), _table(grid)] if grid.rows else []


def _figures(figures: Mapping[str, bytes], key: str) -> Element:
    shown = {name: content for name, content in figures.items() if name.endswith(f"-{key}")}
    images = [
        _image(content, "image/svg+xml", f"{name.removesuffix(f'-{key}')}, given {spaced(key)}")
        for name, content in shown.items()
    ]
    return _element("div", *images, attributes={"class": "figures"})


def _image(content: bytes, media_type: str, description: str) -> Element:
    source = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return _element("img", attributes={"src": source, "alt": description})


def _mistakes(evaluation: Evaluation, answers: Answers) -> list[Element]:
    mistakes = evaluation.target.mistakes(answers.scores, evaluation.targets[answers.rows], MISTAKES)
    if not mistakes.worst:
        return [_element("p", "None: every answer is right.")]
    items = [_mistake(evaluation.rows[answers.rows[item.row]], answers.used[item.row], item) for item in mistakes.worst]
    return [
        _element("p", mistakes.summary, attributes={"class": "faint"}),
        _element("ul", *items, attributes={"class": "mistakes"}),
    ]


def _mistake(row: Row, used: str, mistake: Mistake) -> Element:
    """Build the entry of a mistake; `used` is the set of modalities of its prediction."""
    return _element(
        "li",
        *(_input(row, name) for name in used.split("+")),
        _element(
            "p", "said ", _element("span", mistake.predicted, attributes={"class": "said"}), f", {mistake.detail}"
        ),
        _element("p", "right: ", _element("strong", row.label or "none")),
        _element("p", _element("code", row.id), attributes={"class": "faint"}),
    )


def _input(row: Row, name: str) -> Element:
    """Build an input of a row: its text, its thumbnail, or the name of its file if the modality has no thumbnails."""
    value, modality = row.inputs[name], MODALITIES[name]
    if isinstance(value, str):
        return _element("p", _element("span", _shortened(value), attributes={"class": "words", "dir": "auto"}))
    thumbnails = modality.optional_module("thumbnail")
    if thumbnails is None:
        return _element("p", value.name)
    try:
        content = thumbnails.thumbnail(value.read_bytes(), SIDE)
        return _image(content, thumbnails.MEDIA_TYPE, f"{modality.common_noun} of {row.id}")
    except (OSError, InputError):  # the file has changed since
        return _element("p", f"({modality.common_noun} no longer there)")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _skipped(evaluation: Evaluation) -> list[Element]:
    if not evaluation.skipped:
        return []
    shown = evaluation.skipped[:SKIPPED]
    items = [_element("li", _element("code", row.id), f": {row.problem}") for row in shown]
    left = len(evaluation.skipped) - len(shown)
    rest = [_element("p", f"… and {left:,} more, in metrics.json")] if left else []
    return [_element("h2", "Rows that were skipped"), _element("ul", *items), *rest]
