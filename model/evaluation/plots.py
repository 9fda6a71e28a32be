"""Figures of trainings and of bundles. The same numbers give the same files, byte for byte.

Only matplotlib's objects are used, because pyplot keeps global state and opens a display.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from polymodal.model.metrics import BINS, Truths, calibration_error, reliability, wilson
from polymodal.model.targets import TARGETS
from polymodal.model.targets.contract import Scoring
from polymodal.model.types import Array, FloatArray

# Colours that people with any colour vision can distinguish (Okabe and Ito, https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
COLOURS: Final = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
MARKERS: Final = "osD^vP"  # in addition to colours, for prints in grey
GREY: Final = "#666666"
STYLE: Final[dict[Any, Any]] = {  # matplotlib's keys are a long Literal
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the reader's fonts where ours lack a script
    "svg.hashsalt": "polymodal",  # ids inside an SVG are random otherwise
}
DPI: Final = 120
KINDS: Final = ("png", "svg")
NO_ORIGIN: Final[Mapping[str, dict[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}  # metadata that would change with the day, or with the version of matplotlib
NUMBERED: Final = 25  # most labels of a confusion matrix with numbers in its cells
LONGEST_LABEL: Final = 28  # characters of a label on an axis

Draw = Callable[[Any, Array, Array], dict[str, Figure]]
"""Returns figures by kind, from a target's scoring (of its own class), scores and targets."""


def render(figure: Figure, kind: str) -> bytes:
    """Return the bytes of a PNG or SVG file."""
    file = io.BytesIO()
    with _styled():
        figure.savefig(file, format=kind, dpi=DPI, metadata=NO_ORIGIN[kind])
    return file.getvalue()


def save(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as NAME.png and NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        for kind in KINDS:
            (folder / f"{name}.{kind}").write_bytes(render(figure, kind))


def answer_figures(target: str, scoring: Scoring, scores: Array, targets: Array) -> dict[str, Figure]:
    """Return figures that compare scores with targets, by kind."""
    module, _, name = TARGETS[target].plots.partition(":")
    draw: Draw = getattr(import_module(module), name)
    return draw(scoring, scores, targets)


def confusion(counts: npt.NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Draw items by true label (rows) and predicted label (columns): (K, K); coloured by the share of the row."""
    side = float(np.clip(0.42 * len(labels), 2.5, 16))
    with _styled():
        figure = Figure(figsize=(side + 1.9, side + 1.0), layout="constrained")
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        names = [_shortened(label) for label in labels]
        size = "small" if len(labels) <= NUMBERED else "xx-small"
        axes.set_xticks(range(len(names)), names, rotation=90, size=size, parse_math=False)
        axes.set_yticks(range(len(names)), names, size=size, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted label", ylabel="true label")
        axes.set_title(f"confusion matrix, {counts.sum():,} items")
        if len(labels) <= NUMBERED:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    colour = "white" if shares[row, column] > 0.55 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", size="small", color=colour)
        bar = figure.colorbar(image, shrink=0.8, format=PercentFormatter(1, decimals=0))
        bar.set_label("share of the true label's items")
        bar.outline.set_visible(False)
        return _with_fixed_layout(figure)


def reliability_diagram(confidence: FloatArray, correct: Truths) -> Figure:
    """Draw accuracy over confidence; a calibrated model is on the diagonal.

    Bins have equal mass; bars are 95 % Wilson intervals of the accuracy (as if items were independent); below is the
    distribution of the confidence.
    """
    items, sure, right = reliability(confidence, correct)
    low, high = wilson(right, items)
    with _styled():
        figure = Figure(figsize=(4.7, 5.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="as sure as right")
        upper.errorbar(
            sure,
            right,
            yerr=(right - low, high - right),
            color=BLUE,
            ecolor=SKY,
            marker="o",
            markersize=4,
            capsize=2,
            label=f"{len(items)} bins",
        )
        upper.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="accuracy")
        upper.set_title(f"reliability, calibration error {calibration_error(confidence, correct):.3f}")
        upper.legend(frameon=False, loc="upper left")
        lower.hist(confidence, bins=np.linspace(0, 1, BINS + 1).tolist(), color=BLUE)
        lower.set(xlabel="confidence (score of the answer)", ylabel="items")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        return _with_fixed_layout(figure)


def predictions(scores: Array, right: Array) -> Figure:
    """Draw predicted over right numbers (N,), with intervals (N, 3: value, low, high) where they have one."""
    values, low, high = scores.T
    with _styled():
        figure = Figure(figsize=(4.9, 4.7), layout="constrained")
        axes = figure.add_subplot()
        ends = [float(min(values.min(), right.min())), float(max(values.max(), right.max()))]
        axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="right")
        bounded = ~np.isnan(low)
        if bounded.any():
            axes.vlines(
                right[bounded], low[bounded], high[bounded], color=SKY, linewidth=0.8, alpha=0.5, label="interval"
            )
        axes.scatter(right, values, color=BLUE, s=10, zorder=2, label="prediction")
        axes.set(xlabel="true number", ylabel="predicted number")
        axes.set_title(f"predictions, {len(right):,} items")
        axes.legend(frameon=False)
        return _with_fixed_layout(figure)


def learning_curves(history: Sequence[Mapping[str, float]], best_epoch: int, watched: str) -> Figure:
    """Draw loss and monitored metric of each set of modalities by epoch, with a line at the best epoch."""
    epochs = [epoch["epoch"] for epoch in history]
    prefix = "validation "
    keys = [key for key in history[0] if key.startswith(prefix)] if history else []
    with _styled():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [epoch["loss"] for epoch in history], color=BLUE, marker="o", markersize=4)
        left.set_title("training loss")
        for number, key in enumerate(keys):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            name = key.removeprefix(prefix).replace("+", " + ")
            values = [epoch[key] for epoch in history]
            right.plot(epochs, values, color=colour, marker=marker, markersize=4, label=name)
        right.set_title(f"validation {watched}")
        if keys:
            right.legend(frameon=False)
        for axes in (left, right):
            if best_epoch:
                axes.axvline(best_epoch, color=GREY, linestyle=":", linewidth=1, zorder=0)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _with_fixed_layout(figure)


def _with_fixed_layout(figure: Figure) -> Figure:
    """Fix the layout, because every rendering would move it a little."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _shortened(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


@contextmanager
def _styled() -> Iterator[None]:
    """Apply the style and ignore the user's matplotlibrc; characters that the font lacks are drawn as boxes in a PNG."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
