"""The small frozen objects that cross the door between the service and the model: no torch, no HTTP.

B examples, K labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Parts: TypeAlias = Mapping[str, bytes | str]
"""One example as it came, by modality: the bytes of an image, a text as `str` or UTF-8 bytes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One example, decoded and preprocessed, ready to be put into a batch with others.

    `arrays` holds the preprocessed array of each modality that is present (an absent one has no key). Of a modality that was
    embedded before, `embeddings` holds the result (D,) instead.
    """

    arrays: Mapping[str, Array]
    embeddings: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def present(self) -> frozenset[str]:
        """The modalities that were given, e.g. {"image", "text"}."""
        return frozenset(self.arrays) | frozenset(self.embeddings)


class Workload(NamedTuple):
    """About how much there is to decode and to embed of one modality of an example."""

    kind: str
    """What takes about as long for each unit of it: "text", or one of several ways to decode a picture."""
    units: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Two examples of one kind of workload, for measuring how long it takes to decode and to embed it."""

    small: bytes | str
    large: bytes | str
    most: float
    """Units, as many as are ever embedded or decoded; the rest is cut off or refused."""
    embeds_alike: bool = False
    """Whether both take as long to embed, and differ in decoding alone."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a number lies with the probability `coverage`, when the example is like those of the validation part."""

    low: float
    high: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What we believe about one example."""

    scores: Mapping[str, float]
    """Label to calibrated probability, in the bundle's order of labels; sums to 1 only for single-label tasks, and is empty for a
    regression."""
    used: frozenset[str]
    """The modalities that were present, e.g. {"image", "text"}."""
    bundle: str
    """Digest of the bundle that said so."""
    selected: frozenset[str] | None = None
    """The labels whose scores reach their thresholds; only of multi-label tasks."""
    value: float | None = None
    """The number, in the unit of the manifest; only of regressions."""
    interval: Interval | None = None
    """Around `value`; None also where the validation part was too small to tell one."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What one modality accepts, in words and numbers that a client can be shown."""

    name: str
    media_types: tuple[str, ...]
    limits: Mapping[str, int]
    """Named with their unit, e.g. {"max_pixels": 40000000}; {"max_characters": 20000, "max_tokens": 32}."""


@dataclass(frozen=True, slots=True)
class Description:
    """Everything about a loaded model that a client may read."""

    name: str
    digest: str
    """SHA-256 over the bundle's files, as 64 hexadecimal digits: the model's version."""
    task: str
    labels: tuple[str, ...]
    """Empty for a regression."""
    inputs: tuple[InputSpec, ...]
    runtime: str
    """Which runtime executes the graph, e.g. "onnx" or "torch"."""
    card: str
    """The model card (Markdown)."""
    report: Mapping[str, Any]
    """The bundle's report.json: metrics per label and per set of modalities, data digest, code version, seeds."""
    thresholds: Mapping[str, float] | None = None
    """By label, the score from which on it is selected; only of multi-label tasks."""
