"""Capabilities that model kinds implement and tasks require, so that neither names the other.

B examples, E numbers of an embedding, V width of a space, K labels.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from polymodal.model.speech.recogniser import Guidance
from polymodal.model.speech.transcript import Transcript
from polymodal.model.stages import Stages
from polymodal.model.types import Array, Description, FloatArray, Inputs, Probe, Sample


class Capability(StrEnum):
    """Names of the protocols below, as `Description.capabilities` has them."""

    EMBEDS = "embeds"
    SCORES = "scores"
    TRANSCRIBES = "transcribes"


class Space(StrEnum):
    """Vector spaces that a model may embed inputs in."""

    ALIGNED = "aligned"
    """All modalities share it: vectors of different modalities may be compared."""
    CLASSIFIER = "classifier"
    """Each modality has its own, from which the classifier scores: only vectors of one modality may be compared."""


class Model(Protocol):
    """A loaded bundle of any kind."""

    @property
    def description(self) -> Description:
        """Return what clients may read about the model."""

    def prepare(self, inputs: Inputs, kept: Mapping[str, bytes] | None = None) -> Sample:
        """Decode and preprocess one item; `kept` has cached embeddings (D,) by modality, as bytes. Raises InputError."""

    def warm_up(self) -> None:
        """Replay the golden inputs. Raises BundleError."""

    def probes(self, task: str) -> Mapping[str, Sequence[Probe]]:
        """Return inputs for measuring how long a task takes, by modality."""


class Embeds(Model, Protocol):
    """A model that computes a vector for each input."""

    def embed(self, samples: Sequence[Sample], stages: Stages | None = None) -> dict[str, FloatArray]:
        """Return embeddings (B, E) of every modality of the model; rows of samples without the modality are zero.

        An embedding has the vectors of all spaces.
        """

    def vectors(self, embeddings: Mapping[str, FloatArray], space: str) -> dict[str, FloatArray]:
        """Return the vectors (B, V) of one space that embeddings (B, E) have, by modality."""


class Transcribes(Model, Protocol):
    """A model that recognises speech."""

    def transcribe(
        self,
        sample: Sample,
        guidance: Guidance | None = None,
        candidates: Sequence[str] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> Transcript:
        """Return the transcript of a recording; with candidates, the most probable one of them as its whole text.

        Once `stopped` returns true, it is incomplete.
        """


class Scores(Embeds, Protocol):
    """A model that was trained to predict a target."""

    def scores(
        self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]], stages: Stages | None = None
    ) -> Array:
        """Return calibrated scores, one row per sample; `used` has the modalities of each row."""
