"""Search in the indexes of the settings, without HTTP: a query is embedded through the queue, then compared on a thread."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self, cast

import structlog
from pydantic import Field

from polymodal.app.observe.timeline import Timeline
from polymodal.app.problems import RequestError
from polymodal.app.serving.registry import Deployment
from polymodal.app.serving.service import Observer, Service
from polymodal.app.serving.similarity import ALIGNED, EMBED
from polymodal.app.settings import IndexSource
from polymodal.model import (
    EVEN,
    SHARE,
    Count,
    Description,
    Embedding,
    Hit,
    Inputs,
    SearchIndex,
    Share,
    TaskOptions,
    read_index,
    rebuild_command,
)

SEARCH_STAGE: Final = "search"
TOP_K, MOST_HITS = 10, 1000
"""Hits of an answer: the default and the most."""
_SHOWN: Final = 12  # characters of a digest

log = structlog.get_logger(__name__)


class UnknownIndex(RequestError):
    """No index of that name is served."""

    status = 404
    code = "unknown_index"
    title = "No index of that name"

    def __init__(self, name: str | None, served: Iterable[str]) -> None:
        allowed = ", ".join(served) or "nothing, because POLYMODAL_INDEXES names no index"
        super().__init__("index", "none" if name is None else f'"{name[:64]}"', allowed)

    @classmethod
    def example(cls) -> Self:
        """Return the error for a misspelt name."""
        return cls("thing", ["things"])


class IndexOfAnotherModel(RequestError):
    """The index was built with a version of a model that is not served."""

    status = 409
    code = "index_of_another_model"
    title = "The index belongs to another version of the model"

    def __init__(self, name: str, model: str, digest: str, served: Iterable[Description]) -> None:
        versions = ", ".join(f"{other.digest[:_SHOWN]}… of {other.name}" for other in served)
        built = f'"{name}", built with version {digest[:_SHOWN]}… of {model}'
        super().__init__(
            "index", built, f"an index of a served version ({versions}); the operator runs {rebuild_command()}"
        )

    @classmethod
    def example(cls) -> Self:
        """Return the error after a new version was deployed without a new index."""
        served = Description("illustrations", "9f2c41d7a0b3", "", (), (), "", "", {})
        return cls("things", "illustrations", "1b7d05e2c9aa", [served])


class SearchOptions(TaskOptions):
    """The index, and the items of it that are returned."""

    allowed: ClassVar = {
        "index": "the name of an index of /v1/indexes",
        "top_k": f"an integer from 1 to {MOST_HITS}, as JSON writes numbers",
        "filter": 'an object of up to 16 values, which are texts, numbers, true or false: {"label": "boat"}',
        "min_match": "a number from 0 to 1, as JSON writes numbers",
        "prior": SHARE,
    }

    index: Annotated[str, Field(max_length=64)] | None = None
    """Name of the index; by default the first one of /v1/indexes."""
    top_k: Annotated[Count, Field(le=MOST_HITS)] | None = None
    """Largest number of hits, best first; 10 by default; 3.0 is 3."""
    filter: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=128)],
                Annotated[str, Field(max_length=1024)] | int | Annotated[float, Field(allow_inf_nan=False)] | bool,
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    """Values that an item's metadata must have, all of them; compared as texts, so that 3 and "3" are equal."""
    min_match: Annotated[float, Field(ge=0, le=1)] | None = None
    """Lowest match of a hit; items without a match are then left out."""
    prior: Share | None = None
    """Share of the items that belong to a query, by your own estimate; 0.5 by default."""


class Search:
    """The operation search, described as tasks are."""

    name: ClassVar[str] = "search"
    Options: ClassVar[type[TaskOptions]] = SearchOptions


SEARCH: Final = Search()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query."""

    index: str
    query: Embedding
    prior: float
    hits: Sequence[Hit]
    """Best first."""


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """An index with its name and the deployment of its model."""

    name: str
    index: SearchIndex
    deployment: Deployment


class Indexes:
    """The indexes of the settings in memory, by name. `load` them before use."""

    def __init__(self, service: Service, observer: Observer, sources: Sequence[IndexSource]) -> None:
        self._service, self._observer, self._sources = service, observer, sources
        self._indexes: dict[str, SearchIndex] = {}

    def __iter__(self) -> Iterator[tuple[str, SearchIndex]]:
        """Yield every index with its name, in the order of the settings."""
        return iter(self._indexes.items())

    async def load(self) -> None:
        """Read all indexes on a thread. Raises model.SearchIndexError for a broken one."""
        for source in self._sources:
            self._indexes[source.name] = await self._service.offload(lambda path=source.path: read_index(path))  # type: ignore[misc]

    def log_state(self) -> None:
        """Log each index, and a warning for one whose version of the model is not served."""
        for name, index in self:
            if self.deployment_of(index):
                log.info("index_ready", index=name, items=len(index), digest=index.digest)
            else:
                served = {model.name: model.digest for model in self._service.models}
                log.warning(
                    "index_of_another_model",
                    index=name,
                    folder=str(index.folder),
                    model=index.model,
                    digest=index.digest,
                    served=served,
                    next=rebuild_command(index.folder),
                )

    def resolve(self, name: str | None) -> tuple[str, SearchIndex]:
        """Return an index with its name; the first one for None. Raises UnknownIndex."""
        if name is None:
            name = next(iter(self._indexes), None)
        if name is None or name not in self._indexes:
            raise UnknownIndex(name, self._indexes)
        return name, self._indexes[name]

    def deployment_of(self, index: SearchIndex) -> Deployment | None:
        """Return the deployment of the version that an index was built with; None if it is not served."""
        deployments = self._service.registry.deployments
        return next((entry for entry in deployments if entry.description.digest == index.digest), None)

    @contextmanager
    def use(self, name: str | None) -> Iterator[ServedIndex]:
        """Resolve an index and its model once for a request, and keep the model loaded until the block ends.

        Raises UnknownIndex and IndexOfAnotherModel.
        """
        name, index = self.resolve(name)
        if (deployment := self.deployment_of(index)) is None:
            raise IndexOfAnotherModel(name, index.model, index.digest, self._service.models)
        with deployment.used():
            yield ServedIndex(name, index, deployment)

    async def search(
        self, served: ServedIndex, inputs: Inputs, options: SearchOptions, *, deadline: float, timeline: Timeline
    ) -> SearchResult:
        """Return the items of an index that are most similar to a query with these inputs.

        Raises InvalidParameter for a filter or `min_match` that the index cannot have, and what embedding the query raises.
        """
        index, deployment = served.index, served.deployment
        index.check_filter(options.filter or {})  # before anything is spent on it
        answer = await self._service.run(deployment, EMBED, inputs, ALIGNED, deadline=deadline, timeline=timeline)
        query, prior = cast(Embedding, answer), options.prior or EVEN
        began = time.perf_counter()
        hits = await self._service.offload(
            lambda: index.search(
                query.fused or (),
                query.modalities,
                deployment.description.matches,
                top_k=options.top_k or TOP_K,
                filter=options.filter,
                min_match=options.min_match,
                prior=prior,
            )
        )
        seconds = time.perf_counter() - began
        timeline.note(SEARCH_STAGE, began, seconds)
        self._observer.stage(deployment.description.name, SEARCH_STAGE, seconds)
        return SearchResult(served.name, query, prior, hits)
