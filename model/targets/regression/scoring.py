"""Scoring of the regression target. N examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from polymodal.model.calibration import COVERAGE, by_set, conformal_half_width
from polymodal.model.config import BundleConfig, NetworkConfig, Scale
from polymodal.model.metrics import r_squared
from polymodal.model.targets.contract import Answered, Figure
from polymodal.model.targets.labels import DECIMALS
from polymodal.model.targets.mistakes import Mistake, Mistakes, ranked
from polymodal.model.types import Array, FloatArray, Interval, Observed, Prediction


@dataclass(frozen=True, slots=True)
class Regression:
    """A number with an interval. Targets (N,) and logits (N, 1) are in standard deviations from the train split's mean."""

    fewest_labels: ClassVar[int] = 0
    scaled: ClassVar[bool] = True
    calibrated_by: ClassVar[frozenset[str]] = frozenset({"half_widths"})
    watched: ClassVar[str] = "R²"
    figures: ClassVar[Mapping[str, Figure]] = {
        "mae": Figure("mean absolute error", ".4g"),
        "rmse": Figure("root mean squared error", ".4g"),
        "r2": Figure("R²", explanation="R² is the part of the variance that is explained."),
        "coverage": Figure(
            "inside the interval",
            explanation="Inside the interval are right numbers that the answer's own interval, made to hold 90 % of them, does "
            "hold.",
        ),
        "mean_interval_width": Figure("mean width of the interval", ".4g"),
    }
    other_figures: ClassVar[Mapping[str, Figure]] = {}
    proportions: ClassVar[Mapping[str, float]] = {}

    scale: Scale
    half_widths: Mapping[str, float]

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """Build with the scale and half-widths of a bundle."""
        return cls(_checked(config.network.scale), by_set(config.half_widths, config.fallback))

    @classmethod
    def for_answers(cls, labels: tuple[str, ...], thresholds: Mapping[str, float] | None, scale: Scale | None) -> Self:
        """Build with the scale alone, because rows of scores hold their intervals."""
        return cls(_checked(scale), {})

    @staticmethod
    def monitor(logits: FloatArray, targets: Array) -> float:
        """Return R², which is the same in every unit."""
        return r_squared(logits[:, 0], targets)

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """Fit half the width of a 90 % interval for each set of modalities with enough rows."""
        std = _checked(network.scale).std
        residuals = {key: std * np.abs(logits[:, 0] - targets) for key, (logits, targets) in answered.items()}
        widths = {key: conformal_half_width(values, COVERAGE) for key, values in residuals.items()}
        return {"half_widths": {key: width for key, width in widths.items() if width is not None}}

    def scores(self, logits: FloatArray, used: Sequence[str]) -> Array:
        """Return value, lower and upper end of the interval (NaN where there is none): (N, 3), in the number's unit."""
        values = self.in_unit(logits[:, 0])
        half = np.asarray([self.half_widths.get(key, math.nan) for key in used])
        return np.stack([values, values - half, values + half], axis=1)

    def observed(self, row: Array) -> Observed:
        """Return neither label nor score."""
        return Observed(frozenset())

    def decode(self, row: Array) -> dict[str, Any]:
        """Return the value, and its interval where it has one."""
        decimals = max(0, DECIMALS - math.floor(math.log10(self.scale.std)))
        value, low, high = (round(number, decimals) for number in row.tolist())
        interval = None if math.isnan(low) else Interval(low, high, COVERAGE)
        return {"scores": {}, "value": value, "interval": interval}

    def columns(self) -> tuple[str, ...]:
        """Return the columns: the number and the ends of its interval."""
        return ("value", "low", "high")

    def record(self, prediction: Prediction) -> dict[str, str | float | None]:
        """Return the cells; the value alone without an interval."""
        value, interval = prediction.value, prediction.interval
        return {"value": value} if interval is None else {"value": value, "low": interval.low, "high": interval.high}

    def mistakes(self, scores: Array, targets: Array, most: int) -> Mistakes:
        """Return rows by their absolute error."""
        errors = scores[:, 0] - self.in_unit(targets)
        rows = ranked(errors != 0, np.abs(errors))
        worst = tuple(Mistake(row, f"{scores[row, 0]:.4g}", f"{errors[row]:+.4g} off") for row in rows[:most])
        return Mistakes("These are the answers that are furthest off.", worst)

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """Return mean absolute error and root mean squared error, in the number's unit, and R²."""
        right = self.in_unit(targets)
        errors = scores[:, 0] - right
        return {
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt((errors**2).mean())),
            "r2": r_squared(scores[:, 0], right),
        }

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """Return the summary, coverage and mean width of the intervals (None without any)."""
        right = self.in_unit(targets)
        bounded = ~np.isnan(scores[:, 1])
        inside = (scores[bounded, 1] <= right[bounded]) & (right[bounded] <= scores[bounded, 2])
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "coverage": float(inside.mean()) if bounded.any() else None,
            "mean_interval_width": float((scores[bounded, 2] - scores[bounded, 1]).mean()) if bounded.any() else None,
        }

    def golden(self, prediction: Prediction) -> dict[str, Any]:
        """Return the value."""
        return {"value": prediction.value}

    def deviation(self, prediction: Prediction, golden: Mapping[str, Any]) -> float:
        """Return the deviation in standard deviations."""
        value = math.nan if prediction.value is None else prediction.value
        return abs(value - golden["value"]) / self.scale.std

    def in_unit(self, standardised: Array) -> Array:
        """Convert standard deviations from the mean, as targets are, to the number's unit."""
        return standardised.astype(np.float64) * self.scale.std + self.scale.mean


def _checked(scale: Scale | None) -> Scale:
    return scale or Scale(mean=0, std=1)  # a regression has one: the config checks it
