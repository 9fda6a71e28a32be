"""Workflows of the task embed, without HTTP: a query is compared with candidates, or items with labels that a client names.

Query and candidates are embedded through the queue like the items of a batch, all in the space aligned and each as one vector.

P candidates, V width of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, cast

import numpy as np

from polymodal.app.observe.timeline import Timeline
from polymodal.app.problems import RequestError
from polymodal.app.serving.registry import Deployment, UnknownTask
from polymodal.app.serving.service import Service, Unpack
from polymodal.model import (
    EVEN,
    MODALITIES,
    SHARE,
    TASKS,
    Array,
    Classification,
    Count,
    CountedEmbedOptions,
    Description,
    Embedding,
    InputError,
    Inputs,
    InvalidParameter,
    Model,
    NothingGiven,
    Share,
    Space,
    TaskAnswer,
    TaskOptions,
    answer_one,
    calibration_of,
    cosines,
    match_of,
)

EMBED: Final = TASKS["embed"]
ALIGNED: Final = EMBED.Options.model_validate({"space": Space.ALIGNED.value, "fused": True})
"""Options of embed for one aligned vector of all inputs."""
COUNTED: Final = CountedEmbedOptions(space=Space.ALIGNED.value, fused=True)
"""The same with the number of tokens."""
DECIMALS: Final = 6
"""Of a cosine and a match; those of vectors in JSON leave no more."""


class NotAligned(UnknownTask):
    """A model whose vectors of different inputs cannot be compared."""

    def __init__(self, model: str, others: Sequence[str]) -> None:
        allowed = ", ".join(others) or "a model with aligned vectors, of which none is served"
        RequestError.__init__(self, "model", f'"{model}", which has no aligned vectors to compare', allowed)


class SimilarityOptions(TaskOptions):
    """Options of a comparison."""

    allowed: ClassVar[Mapping[str, str]] = {
        "top_k": "an integer of at least 1, as JSON writes numbers",
        "prior": SHARE,
    }

    top_k: Count | None = None
    """Largest number of pairs in the answer, best first; 3.0 is 3."""
    prior: Share | None = None
    """Share of the pairs that belong together, by your own estimate; 0.5 by default."""


class Similarity:
    """The operation similarity, described as tasks are."""

    name: ClassVar[str] = "similarity"
    Options: ClassVar[type[TaskOptions]] = SimilarityOptions


SIMILARITY: Final = Similarity()


@dataclass(frozen=True, slots=True)
class Pair:
    """The query and one candidate."""

    index: int
    """Position of the candidate, from 0."""
    modalities: Sequence[str]
    """Of the candidate."""
    cosine: float
    match: float | None
    """Probability that the two belong together; None where their sets of modalities were not calibrated."""
    threshold: float | None
    """Lowest match at which a pair of these sets is selected."""

    @property
    def selected(self) -> bool | None:
        """Whether the match reaches the threshold; None without a match."""
        return None if self.match is None or self.threshold is None else self.match >= self.threshold


@dataclass(frozen=True, slots=True)
class Ranking:
    """The comparison of a query with candidates."""

    query: Embedding
    pairs: Sequence[Pair]
    """Best first."""
    failed: Sequence[tuple[int, BaseException]]
    """Candidates that could not be embedded, by index."""
    tokens: int = 0
    """Tokens that the model read of all texts."""


def compare(
    query: Embedding,
    candidates: Mapping[int, Embedding],
    description: Description,
    prior: float | None = None,
    vectors: Array | None = None,
) -> list[Pair]:
    """Return a pair for each candidate, by index; best first.

    Pairs are sorted by match, because cosines of different sets of modalities are not comparable; pairs without a match follow, by
    cosine. Ties are sorted by index. `prior`: EVEN for None. `vectors`: those of the candidates (P, V), for many queries.
    """
    if not candidates:
        return []
    vectors = _vectors(candidates) if vectors is None else vectors
    one: Array = np.array(query.fused)
    pairs = []
    for (index, candidate), cosine in zip(candidates.items(), cosines(one, vectors).tolist(), strict=True):
        calibration = calibration_of(description.matches, query.modalities, candidate.modalities)
        match = None if calibration is None else round(match_of(cosine, calibration, prior or EVEN), DECIMALS)
        threshold = None if calibration is None else calibration.threshold
        pairs.append(Pair(index, candidate.modalities, round(cosine, DECIMALS), match, threshold))
    return sorted(pairs, key=lambda pair: (pair.match is None, -(pair.match or 0), -pair.cosine, pair.index))


def _vectors(candidates: Mapping[int, Embedding]) -> Array:
    """Return the vectors of candidates (P, V).

    They are in double precision, so that a cosine does not depend on how many vectors are multiplied together.
    """
    return np.array([candidate.fused for candidate in candidates.values()])


def embed_one(model: Model, inputs: Inputs) -> Embedding:
    """Return the vector of one item, without a service. Raises InputError."""
    return cast(Embedding, answer_one(model, EMBED, inputs, ALIGNED))


async def rank(
    service: Service,
    deployment: Deployment,
    query: Unpack,
    candidates: Sequence[Unpack],
    prior: float | None,
    *,
    deadline: float,
    timeline: Timeline | None = None,
    counted: bool = False,
) -> Ranking:
    """Compare a query with candidates. Raises the query's error, and NotAligned; a bad candidate fails alone.

    `counted`: whether the ranking has the number of tokens.
    """
    options = COUNTED if counted else ALIGNED
    first, *others = await _embed(service, deployment, [query, *candidates], deadline, timeline, options)
    if isinstance(first, BaseException):
        raise first
    good, failed = _separated(others)
    tokens = first.tokens + sum(candidate.tokens for candidate in good.values())
    pairs = await service.offload(partial(compare, first, good, deployment.description, prior))
    return Ranking(first, pairs, failed, tokens)


async def classify(
    service: Service,
    deployment: Deployment,
    items: Sequence[Unpack],
    options: TaskOptions,
    *,
    deadline: float,
    timeline: Timeline | None = None,
) -> list[TaskAnswer | BaseException]:
    """Score the `candidate_labels` of the options of classify, for each item. Raises the error of a label, and NotAligned."""
    labels: Sequence[str] = getattr(options, "candidate_labels", ())
    inputs = deployment.description.inputs
    name = next((spec.name for spec in inputs if MODALITIES[spec.name].textual), None)
    if name is None:
        raise InvalidParameter("candidate_labels", "labels for a model that takes no texts", "nothing for this model")
    texts = [lambda label=label: {name: label.encode()} for label in labels]
    answers = await _embed(service, deployment, [*texts, *items], deadline, timeline)
    embedded, failed = _separated(answers[: len(labels)])
    for position, error in failed:
        raise _of_label(position, error)
    return await service.offload(
        partial(_scored_all, answers[len(labels) :], embedded, options, deployment.description)
    )


def _scored_all(
    items: Sequence[Embedding | BaseException],
    labels: Mapping[int, Embedding],
    options: TaskOptions,
    description: Description,
) -> list[TaskAnswer | BaseException]:
    """Return for each item the scores of labels, or why there are none."""
    values, vectors = options.model_dump(), _vectors(labels)
    return [
        item if isinstance(item, BaseException) else _scored(item, labels, vectors, values, description)
        for item in items
    ]


def _scored(
    item: Embedding,
    labels: Mapping[int, Embedding],
    vectors: Array,
    values: Mapping[str, Any],
    description: Description,
) -> Classification | BaseException:
    """Return the scores of labels with these vectors for an item, or why there are none; `values`: of the options."""
    names, threshold = values["candidate_labels"], values["threshold"] or 0
    pairs = compare(item, labels, description, values["prior"], vectors)
    if any(pair.match is None for pair in pairs):
        problem = f"labels for {' and '.join(item.modalities)}, whose similarity with texts was not calibrated"
        pairs_allowed = ", ".join(sorted(description.matches)) or "nothing"
        return InvalidParameter("candidate_labels", problem, f"a pair of inputs among {pairs_allowed}")
    return Classification.model_validate(
        {
            "model": description.name,
            "digest": description.digest,
            "modalities": item.modalities,
            "labels": [
                {"label": names[pair.index], "score": pair.match, "selected": pair.selected}
                for pair in pairs[: values["top_k"]]
                if pair.match is not None and pair.match >= threshold
            ],
        }
    )


def _of_label(position: int, error: BaseException) -> BaseException:
    """Return the error of a label as that of the request."""
    if isinstance(error, NothingGiven):
        return InvalidParameter(
            "candidate_labels", f"a blank label at position {position}", "texts that show something"
        )
    if isinstance(error, InputError):
        return type(error)("candidate_labels", f"{error.found} in the label at position {position}", error.allowed)
    return error


async def _embed(
    service: Service,
    deployment: Deployment,
    items: Sequence[Unpack],
    deadline: float,
    timeline: Timeline | None,
    options: TaskOptions = ALIGNED,
) -> list[Embedding | BaseException]:
    """Return the aligned vectors of items, or their errors. Raises NotAligned."""
    if Space.ALIGNED not in deployment.description.spaces:
        others = [other.name for other in service.models if Space.ALIGNED in other.spaces]
        raise NotAligned(deployment.description.name, others)
    answers = await service.run_all(deployment, EMBED, items, options, deadline=deadline, timeline=timeline)
    return cast(list[Embedding | BaseException], answers)


def _separated(
    answers: Sequence[Embedding | BaseException],
) -> tuple[dict[int, Embedding], list[tuple[int, BaseException]]]:
    """Return the embeddings and the errors of items, by position."""
    good = {index: answer for index, answer in enumerate(answers) if not isinstance(answer, BaseException)}
    return good, [(index, answer) for index, answer in enumerate(answers) if isinstance(answer, BaseException)]
