"""Many items, split into requests. The clients send a few requests at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Generic, TypeAlias, TypeVar

from polymodal_client.answers import Item, ItemAnswer
from polymodal_client.calls import Packed, Task, pack, whole_number
from polymodal_client.errors import ConnectionFailed, Forbidden, NotFound, PolymodalError, Unauthorized
from polymodal_client.exchange import Exchange, Steps
from polymodal_client.items import id_of, rows_of

Answer = TypeVar("Answer")

MOST_CHARACTERS: Final = 12 * 2**20
"""Of one request: well below the 20 MiB that a service accepts by default."""
_SHARED_ERRORS: Final = (Unauthorized, Forbidden, NotFound)
"""Errors that every other request would get, too."""

Numbered: TypeAlias = Sequence[tuple[int, object]]
Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the number of items that are done, and the number of all items, or None where it is not known."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A share of the items, without those that can't be sent."""

    packed: Sequence[Packed]
    failed: Sequence[ItemAnswer[Any]]


class Batch(Generic[Answer]):
    """All the items of one call, and their answers so far."""

    def __init__(
        self,
        task: Task[Answer],
        items: Iterable[Item | Mapping[str, Any]],
        exchange: Exchange,
        items_per_request: int,
        concurrency: int,
        progress: Progress | None,
    ) -> None:
        """Raises ValueError for numbers below 1, TypeError for an object that is not iterable."""
        self.concurrency = _at_least_1("concurrency", concurrency)
        self._items_per_request = _at_least_1("items_per_request", items_per_request)
        self._task, self._items, self._exchange = task, rows_of(items), exchange
        self._progress = progress
        self._total = len(items) if isinstance(items, Sequence) else None
        self._answers: list[ItemAnswer[Answer]] = []
        self._answered = False
        self._last_error: PolymodalError | None = None
        """The error after which nothing more is sent."""

    def shares(self) -> Iterator[Numbered]:
        """Yield the items of each request, read when they are needed, so that a generator may yield millions.

        If reading them fails, they end, and the error becomes that of the last item, so that earlier answers are kept.
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
        """Read and encode items; slow, so run it in a thread. An item that can't be sent does not affect the others."""
        packed: list[Packed] = []
        failed: list[ItemAnswer[Any]] = []
        for index, row in share:
            try:
                packed.append(pack(index, row))
            except Exception as error:  # noqa: BLE001 — a row, and a value in it, may raise anything
                failed.append(ItemAnswer(index, id_of(row), None, error))
        return Prepared(packed, failed)

    def perform(self, prepared: Prepared) -> Steps[list[ItemAnswer[Answer]]]:
        """Return a share's answers. Raises an error that every request would get, unless there are already answers."""
        answers: list[ItemAnswer[Answer]] = list(prepared.failed)
        for packed in _by_size(prepared.packed):
            error = self._last_error
            if error is None:
                try:
                    answers += yield from self._exchange.perform_batch(self._task, packed)
                    self._answered = True
                    continue
                except (*_SHARED_ERRORS, ConnectionFailed) as problem:
                    if not self._answered:
                        raise
                    error = problem
                    self._last_error = problem if isinstance(problem, _SHARED_ERRORS) else None
                except PolymodalError as problem:
                    error = problem
            answers += [ItemAnswer(item.index, item.id, None, error) for item in packed]
        return answers

    def add(self, answers: Iterable[ItemAnswer[Answer]]) -> None:
        """Add answers, and report progress."""
        self._answers += answers
        if self._progress:
            self._progress(len(self._answers), self._total)

    def result(self) -> list[ItemAnswer[Answer]]:
        """Return all answers, in the items' order."""
        return sorted(self._answers, key=lambda answer: answer.index)


def _at_least_1(name: str, value: int) -> int:
    if (number := whole_number(name, value)) < 1:
        raise ValueError(f"{name}: {number}; allowed: at least 1")
    return number


def _by_size(packed: Sequence[Packed]) -> Iterator[Sequence[Packed]]:
    """Yield adjacent items that fit into one request; an item that is too large gets its own."""
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
