"""Many items: cut into requests, a few of which are under way at one time. What is under way is the clients' affair."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from polymodal_client.answers import Item, ItemAnswer
from polymodal_client.calls import Options, Packed, pack
from polymodal_client.errors import ConnectionFailed, Forbidden, NotFound, PolymodalError, Unauthorized
from polymodal_client.exchange import Exchange, Steps

MOST_CHARACTERS: Final = 12 * 2**20
"""Of one request: well below the 20 MiB that a service reads by default."""
_HOPELESS: Final = (Unauthorized, Forbidden, NotFound)
"""What one request is told, every other one would be told too."""

Numbered: TypeAlias = Sequence[tuple[int, Item]]
Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with how many items are done, and of how many; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A share of the items, with those left out whose images can't be read."""

    packed: Sequence[Packed]
    failed: Sequence[ItemAnswer]


class Batch:
    """All the items of one call, and what has become of them so far."""

    def __init__(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        options: Options,
        exchange: Exchange,
        *,
        items_per_request: int,
        concurrency: int,
        progress: Progress | None,
    ) -> None:
        """Raises ValueError for numbers below 1."""
        for name, number in (("items_per_request", items_per_request), ("concurrency", concurrency)):
            if number < 1:
                raise ValueError(f"{name}: {number}; allowed: at least 1")
        self.concurrency = concurrency
        self._items, self._options, self._exchange = items, options, exchange
        self._items_per_request, self._progress = items_per_request, progress
        self._total = len(items) if isinstance(items, Sequence) else None
        self._answers: list[ItemAnswer] = []
        self._answered = False

    def shares(self) -> Iterator[Numbered]:
        """The items in as many as one request may have; read as they are needed, so that a generator may yield millions."""
        share: list[tuple[int, Item]] = []
        for index, item in enumerate(self._items):
            share.append((index, item if isinstance(item, Item) else Item(**item)))
            if len(share) == self._items_per_request:
                yield share
                share = []
        if share:
            yield share

    @staticmethod
    def prepare(share: Numbered) -> Prepared:
        """Read and encode images: slow, for a thread. One that can't be read fails alone."""
        packed: list[Packed] = []
        failed: list[ItemAnswer] = []
        for index, item in share:
            try:
                packed.append(pack(index, item))
            except (OSError, TypeError, ValueError) as error:
                failed.append(ItemAnswer(index, item.id, None, error))
        return Prepared(packed, failed)

    def ask(self, prepared: Prepared) -> Steps[list[ItemAnswer]]:
        """A share's answers. Raises what would befall every other one too; any other error is its own items'."""
        answers = list(prepared.failed)
        for packed in _by_size(prepared.packed):
            try:
                answers += yield from self._exchange.ask_batch(packed, self._options)
                self._answered = True
            except _HOPELESS:
                raise
            except PolymodalError as error:
                if isinstance(error, ConnectionFailed) and not self._answered:
                    raise  # there has never been a service
                answers += [ItemAnswer(item.index, item.id, None, error) for item in packed]
        return answers

    def add(self, answers: Iterable[ItemAnswer]) -> None:
        """Note what came, and tell how far it is."""
        self._answers += answers
        if self._progress:
            self._progress(len(self._answers), self._total)

    def result(self) -> list[ItemAnswer]:
        """All answers, in the items' order."""
        return sorted(self._answers, key=lambda answer: answer.index)


def _by_size(packed: Sequence[Packed]) -> Iterator[Sequence[Packed]]:
    """Neighbours, as many as fit into one request; one that is too large by itself comes alone."""
    group: list[Packed] = []
    size = 0
    for item in packed:
        if group and size + item.size > MOST_CHARACTERS:
            yield group
            group, size = [], 0
        group.append(item)
        size += item.size
    if group:
        yield group
