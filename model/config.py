"""What a bundle's config.json says: architecture, preprocessing, labels, task and calibration; checked when it is read."""

from collections.abc import Mapping, Set
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

FORMAT: Final = 2
"""Version of the bundle's layout; a bundle of another version is refused."""

FEWEST_LABELS: Final[Mapping[str, int]] = {"single-label": 2, "multi-label": 1, "regression": 0}
CALIBRATION: Final[Mapping[str, frozenset[str]]] = {
    "single-label": frozenset({"temperatures"}),
    "multi-label": frozenset({"temperatures", "thresholds"}),
    "regression": frozenset({"half_widths"}),
}
"""What turns a network's numbers into answers, by task: the fields of BundleConfig that it has."""

TaskName: TypeAlias = Literal["single-label", "multi-label", "regression"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Frozen):
    """A network's name in its room's table ENCODERS, and its keyword arguments."""

    name: str
    options: Mapping[str, Any] = {}


class ModalityConfig(_Frozen):
    """One modality: how its input is prepared, and what encodes it."""

    input: Mapping[str, Any]
    encoder: EncoderConfig


class Scale(_Frozen):
    """Mean and standard deviation of a regression's numbers in the training part: the network says (number − mean) / std."""

    mean: Annotated[float, Field(allow_inf_nan=False)]
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class NetworkConfig(_Frozen):
    """Everything that shapes the network; together with the weights it is the network."""

    modalities: Annotated[Mapping[str, ModalityConfig], Field(min_length=1)]
    """By name; the order is the order of the columns of `present`."""
    width: Annotated[int, Field(ge=1)]
    """D: width of every embedding."""
    fusion: str
    """A name in the table FUSIONS."""
    task: TaskName
    """A name in the table TASKS."""
    labels: tuple[str, ...]
    """What is told apart; a regression has none."""
    scale: Scale | None = None
    """Of a regression's numbers; other tasks have none."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping one number of the fused embedding, training only."""

    @property
    def order(self) -> tuple[str, ...]:
        """The modalities' names, in the order of the columns of `present`."""
        return tuple(self.modalities)

    @field_validator("labels")
    @classmethod
    def _labels_suit_the_task(cls, labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        task = info.data.get("task", "regression")  # an unknown task is a problem of its own
        fewest = FEWEST_LABELS[task]
        if len(labels) < fewest or (task == "regression" and labels):
            raise ValueError(f"{len(labels)} labels; allowed for {task}: {f'at least {fewest}' if fewest else 'none'}")
        return labels

    @model_validator(mode="after")
    def _numbers_have_a_scale(self) -> "NetworkConfig":
        if (self.scale is None) == (self.task == "regression"):
            raise ValueError(f"{'no ' if self.scale is None else ''}scale; allowed: one for regression, none otherwise")
        return self


class BundleConfig(_Frozen):
    """config.json. What a task has no use for is None, and is not written."""

    format: Literal[2] = FORMAT
    name: Name
    network: NetworkConfig
    temperatures: Mapping[str, Annotated[float, Field(gt=0)]] | None = None
    """What logits are divided by, by set of present modalities, e.g. {"image": 1.4, "image+text": 1.2}."""
    thresholds: Mapping[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """By label, the score from which on a multi-label answer selects it."""
    half_widths: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """By set of present modalities, half of a regression's interval, in the unit of its number; sets that the validation part
    had too few rows of are missing."""

    @model_validator(mode="after")
    def _calibration_suits_the_task(self) -> "BundleConfig":
        needed = CALIBRATION[self.network.task]
        each = {"temperatures": self.temperatures, "thresholds": self.thresholds, "half_widths": self.half_widths}
        found = {name for name, values in each.items() if values is not None}
        if found != needed:
            has, allowed = (", ".join(sorted(names)) for names in (found, needed))
            raise ValueError(f"calibrated by {has or 'nothing'}; allowed for {self.network.task}: {allowed}")
        sets, labels = set(subsets(self.network.order)), set(self.network.labels)
        _check_keys("temperature", self.temperatures, needed=sets, allowed=sets)
        _check_keys("threshold", self.thresholds, needed=labels, allowed=labels)
        _check_keys("half-width", self.half_widths, needed=set(), allowed=sets)
        return self


def _check_keys(what: str, found: Mapping[str, float] | None, *, needed: Set[str], allowed: Set[str]) -> None:
    if found is None:
        return
    if missing := needed - set(found):
        raise ValueError(f"no {what} for {', '.join(sorted(missing))}")
    if unknown := set(found) - allowed:
        raise ValueError(f"a {what} for {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(allowed))}")


def subset_key(present: frozenset[str] | set[str], order: tuple[str, ...]) -> str:
    """How a set of present modalities is written in files: in the network's order, e.g. "image+text"."""
    return "+".join(name for name in order if name in present)


def subsets(order: tuple[str, ...]) -> tuple[str, ...]:
    """Keys of every non-empty set of modalities: first all of them, then smaller ones."""
    masks = range(1, 2 ** len(order))
    keys = (tuple(name for bit, name in enumerate(order) if mask >> bit & 1) for mask in masks)
    return tuple("+".join(names) for names in sorted(keys, key=lambda names: (-len(names), names)))
