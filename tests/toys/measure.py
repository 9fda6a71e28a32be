"""A toy task: the length of each input's embedding, in a unit that the client chooses."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict

from polymodal.model import Capability
from polymodal.model.tasks.contract import Batch, Task, TaskAnswer, TaskOptions
from polymodal.model.types import Arrays, Description, TensorSpec


class MeasureOptions(TaskOptions):
    """The unit."""

    allowed: ClassVar[Mapping[str, str]] = {"unit": "a number above 0"}

    unit: float = 1.0
    """What lengths are divided by."""


class Measurement(TaskAnswer):
    """Lengths by modality."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "tones", "digest": "00", "modalities": ["tone"], "lengths": {"tone": 1.5}}]
        }
    )

    lengths: dict[str, float]


class Measure(Task):
    """Lengths of embeddings."""

    name = "measure"
    about = "How long embeddings are."
    summary = "Measure the embeddings of an example"
    details = "A toy."
    batch_summary = "Measure many examples; a bad one fails alone"
    answers = "One length for each input."
    answer_names = ("one-tone",)
    result = "measurement"
    batch_name = "MeasureBatch"
    needs = Capability.EMBEDS
    Options = MeasureOptions
    Answer = Measurement

    def worker_options(self, options: MeasureOptions) -> Mapping[str, Any]:
        """The unit."""
        return {"unit": options.unit}

    def outputs(self, description: Description) -> tuple[TensorSpec, ...]:
        """A number for each modality."""
        return tuple(TensorSpec(spec.name, "FP64", ()) for spec in description.inputs)

    def run(self, batch: Batch) -> list[Arrays]:
        """Measure each row in its item's own unit."""
        lengths = {name: np.linalg.norm(rows.astype(np.float64), axis=1) for name, rows in batch.embed().items()}
        return [
            {name: np.asarray(lengths[name][number] / options.get("unit", 1.0)) for name in sample.present}
            for number, (sample, options) in enumerate(zip(batch.samples, batch.options, strict=True))
        ]

    def answer(
        self, arrays: Arrays, used: frozenset[str], options: MeasureOptions, description: Description
    ) -> Measurement:
        """The lengths as numbers."""
        return Measurement(
            model=description.name,
            digest=description.digest,
            modalities=sorted(used),
            lengths={name: round(float(length), 6) for name, length in arrays.items()},
        )
