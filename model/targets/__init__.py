"""Targets: what a classifier is trained to predict. Each has label cells, head and loss, calibration, metrics, and words.

A new target is a package in this one and an entry in TARGETS. The modules of heads and plots are named, not imported, because
scoring must not need torch or matplotlib.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from polymodal.model.config import BundleConfig
from polymodal.model.errors import ModelError
from polymodal.model.targets.contract import Cells, Scoring, Words
from polymodal.model.targets.multi_label.cells import MultiLabelCells
from polymodal.model.targets.multi_label.scoring import MultiLabel
from polymodal.model.targets.multi_label.words import WORDS as MULTI_LABEL_WORDS
from polymodal.model.targets.regression.cells import RegressionCells
from polymodal.model.targets.regression.scoring import Regression
from polymodal.model.targets.regression.words import WORDS as REGRESSION_WORDS
from polymodal.model.targets.single_label.cells import SingleLabelCells
from polymodal.model.targets.single_label.scoring import SingleLabel
from polymodal.model.targets.single_label.words import WORDS as SINGLE_LABEL_WORDS


@dataclass(frozen=True, slots=True)
class Target:
    """An entry of TARGETS."""

    cells: Cells
    scoring: type[Scoring]
    words: Words
    head: str
    """Module and name of the class of its head, a `model.targets.heads.Head`."""
    plots: str
    """Module and name of the function that draws its figures, a `model.evaluation.plots.Draw`."""


_PACKAGE: Final = "polymodal.model.targets"

TARGETS: Final[Mapping[str, Target]] = {
    "single-label": Target(
        SingleLabelCells(),
        SingleLabel,
        SINGLE_LABEL_WORDS,
        f"{_PACKAGE}.single_label.head:SingleLabelHead",
        f"{_PACKAGE}.single_label.plots:draw",
    ),
    "multi-label": Target(
        MultiLabelCells(),
        MultiLabel,
        MULTI_LABEL_WORDS,
        f"{_PACKAGE}.multi_label.head:MultiLabelHead",
        f"{_PACKAGE}.multi_label.plots:draw",
    ),
    "regression": Target(
        RegressionCells(),
        Regression,
        REGRESSION_WORDS,
        f"{_PACKAGE}.regression.head:RegressionHead",
        f"{_PACKAGE}.regression.plots:draw",
    ),
}

DEFAULT_TARGET: Final = next(iter(TARGETS))


def target_name(target: str) -> str:
    """Return a target's name; raises ModelError for one that is not in the table."""
    if target not in TARGETS:
        raise ModelError(f"target {target!r} is not known; known are {', '.join(TARGETS)}")
    return target


def check_config(config: BundleConfig) -> None:
    """Check that a config has the labels, the scale and the calibration that its target needs. Raises ValueError."""
    network = config.network
    if (name := network.target) not in TARGETS:
        raise ValueError(f"network.target: {name!r} is not known; known are {', '.join(TARGETS)}")
    scoring = TARGETS[name].scoring
    fewest, count = scoring.fewest_labels, len(network.labels)
    if count < fewest or (count and not fewest):
        allowed = f"at least {fewest}" if fewest else "none"
        raise ValueError(f"network.labels: {count} labels; allowed for {name}: {allowed}")
    if (network.scale is not None) != scoring.scaled:
        problem = "no scale" if scoring.scaled else "scale"
        scaled = ", ".join(other for other, entry in TARGETS.items() if entry.scoring.scaled)
        raise ValueError(f"network: {problem}; allowed: one for {scaled}, none otherwise")
    if (calibrated := config.calibrated_by) != scoring.calibrated_by:
        has, allowed = (", ".join(sorted(names)) for names in (calibrated, scoring.calibrated_by))
        raise ValueError(f"calibrated by {has or 'nothing'}; allowed for {name}: {allowed}")
