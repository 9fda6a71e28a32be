"""Frozen objects that the service and the model exchange: no torch, no HTTP.

B examples, K labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from polymodal.model.config import MatchConfig, Scale

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Arrays: TypeAlias = Mapping[str, Array]
"""Results of a task for one item, by name."""
Inputs: TypeAlias = Mapping[str, bytes | bytearray | str]
"""One item as the client sent it, by modality: the bytes of a file, a text as `str` or UTF-8 bytes."""


class TensorSpec(NamedTuple):
    """An array of an answer, as the Open Inference Protocol describes tensors."""

    name: str
    datatype: str
    """FP32, FP64, INT64, …: https://github.com/open-inference/open-inference-protocol"""
    shape: tuple[int, ...]
    """Without the batch's axis; -1 where it depends on the item."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One item, decoded and preprocessed, ready to be collated.

    `arrays` has the preprocessed array of each modality that is present (an absent one has no key). For a modality with a
    cached embedding, `embeddings` has this (D,) instead.
    """

    arrays: Mapping[str, Array]
    embeddings: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def present(self) -> frozenset[str]:
        """Modalities that are present, e.g. {"image", "text"}."""
        return frozenset(self.arrays) | frozenset(self.embeddings)


class Workload(NamedTuple):
    """Estimated amount of work to decode and embed one input."""

    kind: str
    """Kind of work with about the same time per unit: "text", or one of several ways to decode an image."""
    units: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Two inputs of one kind of workload, for measuring how long decoding and embedding take."""

    small: bytes | str
    large: bytes | str
    most: float
    """Most units that are ever decoded or embedded; more are cut off or rejected."""
    alone: bool = False
    """Whether an item takes seconds and is computed alone, so that larger batches are not measured."""
    embeds_alike: bool = False
    """Whether both take equally long to embed and differ in decoding only."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval that holds a number with the probability `coverage`, for items like those of the validation split."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Calibrated prediction for one item."""

    scores: Mapping[str, float]
    """Calibrated probability by label, in the bundle's order; sums to 1 only for single-label targets; empty for a regression."""
    used: frozenset[str]
    """The modalities that were present, e.g. {"image", "text"}."""
    bundle: str
    """Digest of the bundle."""
    selected: frozenset[str] | None = None
    """The labels whose scores reach their thresholds; only of multi-label targets."""
    value: float | None = None
    """The number, in the unit of the manifest; only of regressions."""
    interval: Interval | None = None
    """Around `value`; None also if the validation split was too small to fit one."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Values that the service's metrics count for one item."""

    labels: frozenset[str]
    """The best label, or those that reach their thresholds; empty when none does, and for a regression."""
    score: float | None = None
    """Of the best label, whether it is selected or not; None for a regression."""
    entropy_ratio: float | None = None
    """Entropy of the scores ÷ the largest possible one: 0 if decided, 1 if undecided; None for a regression."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Accepted media types and limits of one modality, as clients are shown them."""

    name: str
    media_types: tuple[str, ...]
    limits: Mapping[str, int]
    """Named with their unit, e.g. {"max_pixels": 40000000}; {"max_characters": 20000, "max_tokens": 32}."""


@dataclass(frozen=True, slots=True)
class Description:
    """Facts about a loaded model that clients may read."""

    name: str
    digest: str
    """SHA-256 over the bundle's files, as 64 hexadecimal digits: the model's version."""
    target: str
    """What it was trained to predict, a name in the table TARGETS; empty for a model that predicts nothing."""
    labels: tuple[str, ...]
    """Empty for a regression, and without a target."""
    inputs: tuple[InputSpec, ...]
    runtime: str
    """Which runtime executes the graph, e.g. "onnx" or "torch"."""
    card: str
    """The model card (Markdown)."""
    report: Mapping[str, Any]
    """The bundle's report.json: metrics per label and per set of modalities, data digest, code version, seeds."""
    thresholds: Mapping[str, float] | None = None
    """Lowest score at which a label is selected, by label; only of multi-label targets."""
    scale: Scale | None = None
    """Of a regression's numbers; None for labels."""
    kind: str = "network"
    """A name in the table KINDS."""
    capabilities: frozenset[str] = frozenset()
    """Names of `model.capabilities.Capability`; they decide which tasks the model serves."""
    spaces: Mapping[str, int] = field(default_factory=dict)
    """Width of the vectors of each space that the model embeds inputs in; the first space is the default."""
    languages: tuple[str, ...] = ()
    """Codes of the languages that the model transcribes; empty for a model that does not."""
    matches: Mapping[str, MatchConfig] = field(default_factory=dict)
    """Calibration of `match` by pair of sets of modalities; empty without aligned vectors."""
