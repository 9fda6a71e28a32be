"""The task classify: calibrated scores of labels, or a number with its interval."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from pydantic import ConfigDict, Field

from polymodal.model.capabilities import Capability
from polymodal.model.errors import InvalidParameter
from polymodal.model.targets import TARGETS
from polymodal.model.targets.contract import Scoring
from polymodal.model.tasks.contract import EXAMPLE_DIGEST, Batch, Count, Schema, Task, TaskAnswer, TaskOptions
from polymodal.model.types import Arrays, Description, Observed, TensorSpec

SCORES: Final = "scores"


class ClassifyOptions(TaskOptions):
    """Options that limit the labels of an answer."""

    allowed: ClassVar[Mapping[str, str]] = {
        "top_k": "an integer from 1 to the number of labels, as JSON writes numbers",
        "threshold": "a number from 0 to 1, as JSON writes numbers",
    }

    top_k: Count | None = None
    """Largest number of labels in the answer, best first; from 1 to the number of labels; 3.0 is 3. Not for a regression."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Lowest score of a label in the answer. Not for a regression."""


class LabelScore(Schema):
    """The score of one label."""

    label: str
    score: float
    """Calibrated probability from 0 to 1."""
    selected: bool | None = None
    """Whether the score reaches the label's own threshold; only in the answers of a multi-label model."""


class Range(Schema):
    """An interval around a number."""

    low: float
    high: float
    coverage: float
    """Share of examples like those of the validation split whose true number lies in the interval."""


class Classification(TaskAnswer):
    """The answer about one example."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "illustrations",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": ["image", "text"],
                    "labels": [{"label": "transport", "score": 0.91}, {"label": "places", "score": 0.06}],
                },
                {
                    "model": "tags",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": ["image", "text"],
                    "labels": [
                        {"label": "boat", "score": 0.88, "selected": True},
                        {"label": "lake", "score": 0.47, "selected": True},
                        {"label": "harbour", "score": 0.31, "selected": False},
                    ],
                },
                {
                    "model": "prices",
                    "digest": EXAMPLE_DIGEST,
                    "modalities": ["text"],
                    "labels": [],
                    "value": 129.5,
                    "interval": {"low": 84.0, "high": 175.0, "coverage": 0.9},
                },
            ]
        }
    )

    labels: list[LabelScore]
    """Best first, limited by top_k and threshold. Empty for a regression."""
    value: float | None = None
    """The number; only in the answers of a regression."""
    interval: Range | None = None
    """Around the value; missing if the model has none."""


class Classify(Task):
    """Scores of every label of the target that the model was trained on."""

    name = "classify"
    about = "Scores for pictures with their texts; either may be missing."
    summary = "Classify a picture with its text; either may be missing"
    details = (
        "Scores per label, best first; of a regression a number with its interval.\n\n"
        "The answer names the inputs that were used, and the model with its version."
    )
    batch_summary = "Classify many examples; a bad one fails alone"
    answers = "Scores per label, best first; or a number, of a regression."
    answer_names = ("single-label", "multi-label", "regression")
    result = "classification"
    batch_name = "Batch"
    example: ClassVar[Mapping[str, Any]] = {"top_k": 3}
    needs = Capability.SCORES
    Options = ClassifyOptions
    Answer = Classification

    def check(self, options: ClassifyOptions, description: Description) -> None:
        """Raise InvalidParameter for top_k or threshold of a model without labels, and for top_k above their number."""
        labels = len(description.labels)
        for name, value in (("top_k", options.top_k), ("threshold", options.threshold)):
            if value is not None and not labels:
                raise InvalidParameter(
                    name, str(value), "nothing, as this model answers with a number and not with labels"
                )
        if options.top_k is not None and options.top_k > labels:
            raise InvalidParameter("top_k", str(options.top_k)[:64], f"an integer from 1 to {labels}")

    def outputs(self, description: Description) -> tuple[TensorSpec, ...]:
        """Return one output: a score for each label, or a number and the ends of its interval."""
        labels = len(description.labels)
        return (TensorSpec(SCORES, "FP32", (labels,)) if labels else TensorSpec(SCORES, "FP64", (3,)),)

    def run(self, batch: Batch) -> list[Arrays]:
        """Embed, fuse and calibrate a batch."""
        return [{SCORES: row} for row in batch.scores()]

    def answer(
        self, arrays: Arrays, used: frozenset[str], options: ClassifyOptions, description: Description
    ) -> Classification:
        """Rank and round the scores, without those that the options exclude."""
        decoded: Mapping[str, Any] = _scoring(description).decode(arrays[SCORES])
        selected, interval = decoded.get("selected"), decoded.get("interval")
        ranked = sorted(decoded["scores"].items(), key=lambda entry: entry[1], reverse=True)
        return Classification.model_construct(  # validating computed values would take longer than writing them
            model=description.name,
            digest=description.digest,
            modalities=sorted(used),
            labels=[
                LabelScore.model_construct(
                    label=label, score=score, selected=None if selected is None else label in selected
                )
                for label, score in ranked[: options.top_k]
                if options.threshold is None or score >= options.threshold
            ],
            value=decoded.get("value"),
            interval=None if interval is None else Range(**asdict(interval)),
        )

    def observed(self, arrays: Arrays, description: Description) -> Observed:
        """Return the best label or the selected ones, and the entropy of the scores."""
        return _scoring(description).observed(np.asarray(arrays[SCORES]))


def _scoring(description: Description) -> Scoring:
    scoring = TARGETS[description.target].scoring
    return scoring.for_answers(description.labels, description.thresholds, description.scale)
