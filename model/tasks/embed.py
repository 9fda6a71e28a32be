"""The task embed: a vector of unit length for each input, and on request one for all inputs together.

B items of a batch, V width of a space.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, cast

import numpy as np
from pydantic import ConfigDict, Field

from polymodal.model.capabilities import Capability, Embeds, Space
from polymodal.model.errors import InvalidParameter
from polymodal.model.modalities import MODALITIES
from polymodal.model.tasks.contract import EXAMPLE_DIGEST, Batch, Task, TaskAnswer, TaskOptions
from polymodal.model.types import Array, Arrays, Description, FloatArray, TensorSpec

DECIMALS: Final = 7  # of a number whose magnitude is at most 1; single precision has no more
SHORTEST: Final = 1e-12  # a shorter vector has no direction and is not normalised
FUSED: Final = "fused"
"""Name of the array with the vector of all inputs together; no modality has it."""
TOKENS: Final = "tokens"
"""Name of the array with the number of tokens that were read of an item; no modality has it."""


class EmbedOptions(TaskOptions):
    """The space of the vectors, and whether one vector is wanted for all inputs together."""

    allowed: ClassVar[Mapping[str, str]] = {"space": "a space of the model", "fused": "true or false"}

    space: str | None = None
    """aligned, where vectors of all modalities may be compared, or classifier; by default the first that the model has."""
    fused: bool | None = None
    """Whether the answer has one vector for all inputs together in addition; only in the space aligned."""


class Embedding(TaskAnswer):
    """The vectors of one item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "illustrations",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": ["image", "text"],
                    "space": "aligned",
                    "aligned": True,
                    "embeddings": {"image": [0.6, -0.8, 0.0], "text": [0.0, -0.6, 0.8]},
                    "fused": [0.3841106, -0.8962581, 0.2216671],
                }
            ]
        }
    )

    space: str
    """The space of the vectors."""
    aligned: bool
    """Whether vectors of different modalities may be compared; those of one modality always may."""
    embeddings: dict[str, list[float]]
    """By modality, a vector whose Euclidean length is 1: the dot product of two is their cosine similarity."""
    fused: list[float] | None = None
    """The mean of these vectors, of length 1 again; only if it was asked for."""
    tokens: int = Field(0, exclude=True)
    """Tokens that were read of the texts, as far as the model reads them; a cached embedding needs none. Not in the JSON."""


class Embed(Task):
    """One L2-normalised vector for each input, before fusion."""

    name = "embed"
    about = "Vectors of unit length for inputs, to search and to compare."
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

    def check(self, options: EmbedOptions, description: Description) -> None:
        """Raise InvalidParameter for a space that the model does not have, and for `fused` in a space that is not aligned."""
        space = _space(options.space, description)
        if space not in description.spaces:
            raise InvalidParameter("space", space[:64], " or ".join(description.spaces))
        if options.fused and space != Space.ALIGNED:
            raise InvalidParameter("fused", "true", "false in a space in which modalities are not aligned")

    def worker_options(self, options: EmbedOptions) -> Mapping[str, Any]:
        """Return the options as they are."""
        return options.model_dump(exclude_none=True)

    def outputs(self, description: Description) -> tuple[TensorSpec, ...]:
        """Return a vector (V,) of the default space for each modality."""
        width = description.spaces[_space(None, description)]
        return tuple(TensorSpec(spec.name, "FP32", (width,)) for spec in description.inputs)

    def run(self, batch: Batch) -> list[Arrays]:
        """Embed and normalise; an item has the vectors of its own modalities."""
        embeddings = batch.embed()
        spaces = [_space(options.get("space"), batch.model.description) for options in batch.options]
        model = cast(Embeds, batch.model)
        vectors = {
            space: {name: normalised(rows) for name, rows in model.vectors(embeddings, space).items()}
            for space in dict.fromkeys(spaces)
        }
        results: list[Arrays] = []
        for number, (sample, options, space) in enumerate(zip(batch.samples, batch.options, spaces, strict=True)):
            arrays = {name: rows[number] for name, rows in vectors[space].items() if name in sample.present}
            together = {FUSED: fused(list(arrays.values()))} if options.get("fused") else {}
            tokens = sum(len(array) for name, array in sample.arrays.items() if MODALITIES[name].textual)
            results.append({**arrays, **together, TOKENS: np.asarray(tokens)})
        return results

    def answer(
        self, arrays: Arrays, used: frozenset[str], options: EmbedOptions, description: Description
    ) -> Embedding:
        """Return the vectors as lists of numbers."""
        space = _space(options.space, description)
        return Embedding.model_construct(
            model=description.name,
            digest=description.digest,
            modalities=sorted(used),
            space=space,
            aligned=space == Space.ALIGNED,
            embeddings={name: _numbers(arrays[name]) for name in sorted(used)},
            fused=_numbers(arrays[FUSED]) if options.fused else None,
            tokens=int(arrays.get(TOKENS, 0)),
        )


def _space(space: str | None, description: Description) -> str:
    return space or next(iter(description.spaces))


def _numbers(vector: Array) -> list[float]:
    numbers: list[float] = vector.astype(np.float64).round(DECIMALS).tolist()
    return numbers


def fused(vectors: Sequence[FloatArray]) -> FloatArray:
    """Return the mean of vectors (V,) of length 1, of length 1 again."""
    if len(vectors) == 1:
        return vectors[0]
    return normalised(np.mean(vectors, axis=0, keepdims=True))[0]


def normalised(rows: FloatArray) -> FloatArray:
    """Divide vectors (B, D) by their Euclidean lengths, except those that are shorter than SHORTEST."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > SHORTEST, lengths, 1.0)).astype(np.float32)
