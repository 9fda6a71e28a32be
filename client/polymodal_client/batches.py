"""Many items: cut into requests, a few of which are under way at one time. What is under way is the clients' affair."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeAlias

from polymodal_client.answers import Item, ItemAnswer
from polymodal_client.calls import Options, Packed, pack, whole_number
from polymodal_client.errors import ConnectionFailed, Forbidden, NotFound, PolymodalError, Unauthorized
from polymodal_client.exchange import Exchange, Steps
from polymodal_client.items import id_of

MOST_CHARACTERS: Final = 12 * 2**20
"""Of one request: well below the 20 MiB that a service reads by default."""
_HOPELESS: Final = (Unauthorized, Forbidden, NotFound)
"""What one request is told, every other one would be told too."""

Numbered: TypeAlias = Sequence[tuple[int, object]]
Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with how many items are done, and of how many; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A share of the items, with those left out that can't be sent."""

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
        """Raises ValueError for numbers below 1, TypeError for what has no items."""
        self.concurrency = _at_least_1("concurrency", concurrency)
        self._items_per_request = _at_least_1("items_per_request", items_per_request)
        self._items, self._options, self._exchange = _iterator(items), options, exchange
        self._progress = progress
        self._total = len(items) if isinstance(items, Sequence) else None
        self._answers: list[ItemAnswer] = []
        self._answered = False
        self._over: PolymodalError | None = None
        """Why nothing more is asked."""

    def shares(self) -> Iterator[Numbered]:
        """Yield the items in as many as one request may have; read as they are needed, so that a generator may yield millions.

        Where reading them fails, they end, and the error is the last item's: the answers that are there already are kept.
        """
        share: list[tuple[int, object]] = []
        for index in count():
            try:
                share.append((index, next(self._items)))
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 — any of the caller's own iterable
                self.add([ItemAnswer(index, None, None, error)])
                break
            if len(share) == self._items_per_request:
                yield share
                share = []
        if share:
            yield share

    @staticmethod
    def prepare(share: Numbered) -> Prepared:
        """Read and encode items: slow, for a thread. One that can't be sent fails alone."""
        packed: list[Packed] = []
        failed: list[ItemAnswer] = []
        for index, row in share:
            try:
                packed.append(pack(index, row))
            except Exception as error:  # noqa: BLE001 — a row, and a value in it, may raise anything
                failed.append(ItemAnswer(index, id_of(row), None, error))
        return Prepared(packed, failed)

    def ask(self, prepared: Prepared) -> Steps[list[ItemAnswer]]:
        """Return a share's answers. Raises an error that every request would get, unless there are answers to keep."""
        answers = list(prepared.failed)
        for packed in _by_size(prepared.packed):
            error = self._over
            if error is None:
                try:
                    answers += yield from self._exchange.ask_batch(packed, self._options)
                    self._answered = True
                    continue
                except (*_HOPELESS, ConnectionFailed) as problem:
                    if not self._answered:
                        raise
                    error = problem
                    self._over = problem if isinstance(problem, _HOPELESS) else None
                except PolymodalError as problem:
                    error = problem
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


def _at_least_1(name: str, value: int) -> int:
    if (number := whole_number(name, value)) < 1:
        raise ValueError(f"{name}: {number}; allowed: at least 1")
    return number


def _iterator(items: Any) -> Iterator[object]:  # noqa: ANN401
    """Raises TypeError for one item, and for a table, whose iterator yields the names of its columns."""
    is_table = any(kind.__name__ == "DataFrame" for kind in type(items).__mro__)
    if isinstance(items, str | bytes | Mapping | Item) or is_table or not hasattr(items, "__iter__"):
        allowed = "an iterable of Items or mappings; of a DataFrame its rows, such as frame.to_dict('records')"
        raise TypeError(f"items: {type(items).__name__}; allowed: {allowed}")
    iterator: Iterator[object] = iter(items)
    return iterator


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
