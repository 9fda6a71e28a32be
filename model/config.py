"""A bundle's config.json: kind, architecture, preprocessing, labels, target and calibration; checked when it is read.

`model.targets.check_config` checks what a target needs, because this module names no target.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT: Final = 3
"""Version of the bundle's layout. Format 2 is read too (see `upgraded`); others are rejected."""

HEAD: Final = "head"
"""Name of the graph of fusion and head."""

ROW_SETS: Final = 16
"""Most sets of modalities that are measured in addition to all modalities together and each alone."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Frozen):
    """An encoder's name in its modality's table ENCODERS, and its keyword arguments."""

    name: str
    options: Mapping[str, Any] = {}


class ModalityConfig(_Frozen):
    """One modality: settings of its input, and its encoder."""

    input: Mapping[str, Any]
    encoder: EncoderConfig


class Scale(_Frozen):
    """Mean and standard deviation of the numbers in the train split: the network's output is (number − mean) / std."""

    mean: Annotated[float, Field(allow_inf_nan=False)]
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AlignmentConfig(_Frozen):
    """Shape of the alignment heads: one linear layer each, from an encoder's features to a space that all modalities share."""

    width: Annotated[int, Field(ge=1)]
    """A: width of an aligned vector."""


class MatchConfig(_Frozen):
    """Calibration of `match` for one pair of sets of modalities; see `model.alignment`."""

    slope: Annotated[float, Field(allow_inf_nan=False)]
    intercept: Annotated[float, Field(allow_inf_nan=False)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    """Lowest match at which a pair is selected."""


class NetworkConfig(_Frozen):
    """Everything but the weights that defines the network."""

    modalities: Annotated[Mapping[str, ModalityConfig], Field(min_length=1)]
    """By name; the order is the order of the columns of `present`."""
    width: Annotated[int, Field(ge=1)]
    """D: width of every embedding."""
    fusion: str
    """A name in the table FUSIONS."""
    target: str
    """A name in the table TARGETS."""
    labels: tuple[str, ...]
    """Labels that are predicted; empty for a regression."""
    scale: Scale | None = None
    """Scale of the numbers that a regression predicts; None for labels."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a component of the fused embedding, in training only."""
    alignment: AlignmentConfig | None = None
    """Alignment heads next to the classifier's; None without."""

    @property
    def encoded(self) -> int:
        """Numbers that an encoder computes from an input: D for the classifier, then A of its alignment head."""
        return self.width + (self.alignment.width if self.alignment else 0)

    @property
    def order(self) -> tuple[str, ...]:
        """The modalities' names, in the order of the columns of `present`."""
        return tuple(self.modalities)


class KindConfig(_Frozen, ABC):
    """Fields of config.json that every kind of model has."""

    format: Literal[3] = FORMAT
    kind: str
    """A name in the table KINDS."""
    name: Name
    matches: Mapping[str, MatchConfig] | None = None
    """Calibration of `match` by pair of sets of modalities, e.g. "image~text"; only with aligned vectors."""

    weights: ClassVar[tuple[str, ...]] = ("weights.safetensors",)
    """Files of the kind that a bundle must have in addition to those of all kinds."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of the inputs by modality, in the model's order."""

    @property
    @abstractmethod
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs that compute the model: one for each modality, and others."""

    @property
    def order(self) -> tuple[str, ...]:
        """The modalities' names, in the model's order."""
        return tuple(self.settings)


class EncodersConfig(KindConfig):
    """config.json of encoders into one space, which are trained elsewhere and known by their graphs alone."""

    kind: Literal["encoders"] = "encoders"
    modalities: Annotated[Mapping[str, Mapping[str, Any]], Field(min_length=1)]
    """Settings of the inputs by modality."""
    width: Annotated[int, Field(ge=1)]
    """Width of the vectors."""

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of the inputs by modality."""
        return self.modalities

    @property
    def graphs(self) -> tuple[str, ...]:
        """One graph for each modality."""
        return self.order


class SpeechConfig(KindConfig):
    """config.json of a speech recogniser, whose own files have everything else."""

    kind: Literal["speech"] = "speech"
    weights: ClassVar[tuple[str, ...]] = tuple(
        f"whisper/{file}" for file in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt")
    )

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing: a recording is decoded without settings."""
        return {}

    @property
    def graphs(self) -> tuple[str, ...]:
        """No graphs."""
        return ()


class BundleConfig(KindConfig):
    """config.json of a network. Fields that a target does not use are None and not written."""

    kind: Literal["network"] = "network"
    network: NetworkConfig
    temperatures: Mapping[str, Annotated[float, Field(gt=0)]] | None = None
    """Divisors of logits by set of present modalities, e.g. {"image": 1.4, "image+text": 1.2}; sets that were not measured are
    missing."""
    thresholds: Mapping[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """Lowest score at which a label is selected, by label."""
    half_widths: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """Half of the interval around a number, in its unit, by set of present modalities; sets that were not measured are missing."""
    fallback: Literal["nearest", "none"] = "nearest"
    """Calibration of a set without a temperature or half-width of its own: that of the nearest set (`calibration.nearest_set`),
    or none, as in bundles of format 2."""

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of the inputs by modality."""
        return {name: modality.input for name, modality in self.network.modalities.items()}

    @property
    def graphs(self) -> tuple[str, ...]:
        """One graph for each modality, and one for fusion and head."""
        return (*self.order, HEAD)

    @property
    def calibrated_by(self) -> frozenset[str]:
        """Return the names of the calibration fields that are set."""
        fields = {"temperatures": self.temperatures, "thresholds": self.thresholds, "half_widths": self.half_widths}
        return frozenset(name for name, values in fields.items() if values is not None)

    @model_validator(mode="after")
    def _calibration_suits_the_network(self) -> "BundleConfig":
        order, labels = self.network.order, set(self.network.labels)
        if self.temperatures == {}:
            raise ValueError("no temperature; allowed: one for at least one set of modalities")
        every = set(subsets(order)) if self.fallback == "none" else set()
        _check_sets("temperature", self.temperatures, order, needed=every)
        _check_sets("half-width", self.half_widths, order, needed=set())
        if self.thresholds is not None:
            unknown = set(self.thresholds) - labels
            _check_keys("threshold", labels - set(self.thresholds), unknown, ", ".join(sorted(labels)))
        return self


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json of format 2 in format 3.

    In format 2 the target was called "task", there was one kind, and sets of modalities without calibration got none.
    """
    network = dict(content.get("network") or {})
    if "task" in network:
        network["target"] = network.pop("task")
    return {**content, "format": FORMAT, "kind": "network", "network": network, "fallback": "none"}


def _check_sets(what: str, values: Mapping[str, float] | None, order: tuple[str, ...], *, needed: Set[str]) -> None:
    if values is not None:
        unknown = {key for key in values if not key or subset_key(set(key.split("+")), order) != key}
        _check_keys(what, needed - set(values), unknown, f"sets of {', '.join(order)}")


def _check_keys(what: str, missing: Set[str], unknown: Set[str], allowed: str) -> None:
    if missing:
        raise ValueError(f"no {what} for {', '.join(sorted(missing))}")
    if unknown:
        raise ValueError(f"a {what} for {', '.join(sorted(unknown))}; allowed: {allowed}")


def subset_key(present: frozenset[str] | set[str], order: tuple[str, ...]) -> str:
    """Return a set of present modalities as files name it: in the network's order, e.g. "image+text"."""
    return "+".join(name for name in order if name in present)


def subsets(order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys of all 2^M − 1 non-empty sets of M modalities, larger sets first."""
    masks = range(1, 2 ** len(order))
    return _sorted("+".join(name for bit, name in enumerate(order) if mask >> bit & 1) for mask in masks)


def sets_to_measure(order: tuple[str, ...], rows: Iterable[frozenset[str]]) -> tuple[str, ...]:
    """Return the keys of the sets of modalities to measure on rows that have these sets, larger sets first.

    These are all modalities together, each alone, and the ROW_SETS most frequent sets. For two modalities that is every set.
    """
    counts = Counter(subset_key(present, order) for present in rows)
    frequent = sorted((key for key in counts if key), key=lambda key: (-counts[key], key))[:ROW_SETS]
    return _sorted({"+".join(order), *order, *frequent})


def _sorted(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(keys, key=lambda key: (-key.count("+"), key.split("+"))))
