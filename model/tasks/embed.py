"""The task embed: a vector of unit length for each input.

B items of a batch, D embedding width.
"""

from typing import Final

import numpy as np
from pydantic import ConfigDict

from polymodal.model.capabilities import Capability
from polymodal.model.tasks.contract import EXAMPLE_DIGEST, Batch, Task, TaskAnswer, TaskOptions
from polymodal.model.types import Arrays, Description, FloatArray, TensorSpec

DECIMALS: Final = 7  # of a number whose magnitude is at most 1; single precision has no more
SHORTEST: Final = 1e-12  # a shorter vector has no direction and is not normalised


class EmbedOptions(TaskOptions):
    """No options except the model."""


class Embedding(TaskAnswer):
    """The vectors of one item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "illustrations",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": ["image", "text"],
                    "aligned": False,
                    "embeddings": {"image": [0.6, -0.8, 0.0], "text": [0.0, 0.28, 0.96]},
                }
            ]
        }
    )

    aligned: bool
    """Whether vectors of different modalities may be compared; those of one modality always may."""
    embeddings: dict[str, list[float]]
    """By modality, a vector whose Euclidean length is 1: the dot product of two is their cosine similarity."""


class Embed(Task):
    """One L2-normalised vector for each input, before fusion."""

    name = "embed"
    about = "A vector of unit length for each input, to search and to compare."
    summary = "Embed the inputs of an example: one vector of unit length for each"
    details = (
        "Vectors of one modality and of one version of a model may be compared: their dot product is the cosine similarity.\n\n"
        "Vectors of different modalities may be compared only if `aligned` is true."
    )
    batch_summary = "Embed many examples; a bad one fails alone"
    answers = "One vector for each input."
    answer_names = ("two-inputs",)
    result = "embedding"
    batch_name = "EmbedBatch"
    needs = Capability.EMBEDS
    Options = EmbedOptions
    Answer = Embedding

    def outputs(self, description: Description) -> tuple[TensorSpec, ...]:
        """Return a vector (D,) for each modality."""
        return tuple(TensorSpec(spec.name, "FP32", (description.dimensions,)) for spec in description.inputs)

    def run(self, batch: Batch) -> list[Arrays]:
        """Embed and normalise; an item has the vectors of its own modalities."""
        vectors = {name: normalised(rows) for name, rows in batch.embed().items()}
        return [
            {name: rows[number] for name, rows in vectors.items() if name in sample.present}
            for number, sample in enumerate(batch.samples)
        ]

    def answer(
        self, arrays: Arrays, used: frozenset[str], options: EmbedOptions, description: Description
    ) -> Embedding:
        """Return the vectors as lists of numbers."""
        return Embedding.model_construct(
            model=description.name,
            digest=description.digest,
            modalities=sorted(used),
            aligned=description.aligned,
            embeddings={name: arrays[name].astype(np.float64).round(DECIMALS).tolist() for name in sorted(used)},
        )


def normalised(rows: FloatArray) -> FloatArray:
    """Divide vectors (B, D) by their Euclidean lengths, except those that are shorter than SHORTEST."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > SHORTEST, lengths, 1.0)).astype(np.float32)
