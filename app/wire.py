"""What the service and its workers say to each other: JSON with the bytes of pictures, texts and embeddings behind it.

Not pickles: a worker opens strangers' files, and whatever it then says must not be able to run anything here.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, TypeAdapter

from app.engine import Answer, Item, Model
from app.settings import Settings
from app.timeline import Took
from model import InputError, NothingGiven, Prediction, TooLarge, Undecodable, UnknownModality, UnsupportedFormat

LENGTH: Final = struct.Struct(">Q")
"""Before every message: how many bytes follow."""
LONGEST: Final = 2**30
"""No message has more bytes."""
LONGEST_S: Final = 86_400.0
"""No stage of a batch takes longer."""
SIGN_OF_LIFE: Final = b""
"""A message without anything: from the service it asks for one, from a worker it is one."""
BEGINS: Final = b"b"
"""From a worker, before it computes a batch."""
_REFUSALS: Final[Mapping[str, type[InputError]]] = {
    each.__name__: each
    for each in (InputError, NothingGiven, TooLarge, Undecodable, UnknownModality, UnsupportedFormat)
}

Models: TypeAlias = dict[str, Model]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told first."""

    settings: Settings
    number: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Its answer when a bundle must not be served."""

    reason: str
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Failed:
    """Its answer when a batch failed as a whole; it has logged why."""

    reason: str
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class _Refusal:
    name: str
    modality: str
    problem: str
    allowed: str


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: Prediction | _Refusal
    stages: dict[str, tuple["_Seconds", "_Seconds"]]
    embeddings: "_Places"


_Seconds: TypeAlias = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]
_Places: TypeAlias = dict[str, NonNegativeInt]
"""Which of a message's blobs is what."""

_BATCH: Final[TypeAdapter[tuple[str, list[tuple[_Places, _Places]]]]] = TypeAdapter(
    tuple[str, list[tuple[_Places, _Places]]]
)
_ORDERS: Final = TypeAdapter(Orders)
_BEGUN: Final[TypeAdapter[Models | Refused]] = TypeAdapter(Models | Refused)
_ANSWERED: Final[TypeAdapter[list[_Answer] | Failed]] = TypeAdapter(list[_Answer] | Failed)


def framed(document: bytes, blobs: Sequence[bytes] = ()) -> bytes:
    """A message: its length, the number and lengths of its pieces, the pieces."""
    pieces = (document, *blobs)
    head = struct.pack(f">I{len(pieces)}Q", len(pieces), *map(len, pieces))
    return b"".join((LENGTH.pack(len(head) + sum(map(len, pieces))), head, *pieces))


def framed_sign(sign: bytes) -> bytes:
    """SIGN_OF_LIFE or BEGINS with its length before it."""
    return LENGTH.pack(len(sign)) + sign


def length(head: bytes) -> int:
    """How many bytes a message has, from what stands before it. Raises ValueError for more than LONGEST."""
    (found,) = LENGTH.unpack(head)
    if found > LONGEST:
        raise ValueError(f"a message of {found} bytes")
    return int(found)


def _pieces(message: bytes) -> list[bytes]:
    try:
        (count,) = struct.unpack_from(">I", message)
        lengths = struct.unpack_from(f">{count}Q", message, 4)
    except struct.error as problem:
        raise ValueError(f"a message of {len(message)} bytes: {problem}") from None
    pieces, start = [], 4 + 8 * count
    for length in lengths:
        pieces.append(message[start : start + length])
        start += length
    if start != len(message):
        raise ValueError(f"a message of {len(message)} bytes has pieces of {start}")
    return pieces


def orders(settings: Settings, number: int) -> bytes:
    """From the service, first."""
    return framed(_ORDERS.dump_json(Orders(settings, number)))


def read_orders(message: bytes) -> Orders:
    """What `orders` said."""
    return _ORDERS.validate_json(_pieces(message)[0])


def begun(answer: Models | Refused) -> bytes:
    """From a worker, first."""
    return framed(_BEGUN.dump_json(answer))


def read_begun(message: bytes) -> Models | Refused:
    """What `begun` said."""
    return _BEGUN.validate_json(_pieces(message)[0])


def batch(model: str, items: Sequence[Item]) -> bytes:
    """From the service, as often as it likes."""
    blobs: list[bytes] = []

    def put(content: bytes | str) -> int:
        blobs.append(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return len(blobs) - 1

    told = [
        [{name: put(each) for name, each in given.items()} for given in (item.parts, item.embeddings)] for item in items
    ]
    return framed(json.dumps([model, told]).encode(), blobs)


def read_batch(message: bytes) -> tuple[str, list[Item]]:
    """What `batch` said; texts as UTF-8."""
    document, *blobs = _pieces(message)
    model, told = _BATCH.validate_json(document)

    def got(given: Mapping[str, int]) -> dict[str, Any]:
        return {name: blobs[at] for name, at in given.items()}

    return model, [Item(got(parts), got(embeddings)) for parts, embeddings in told]


def answered(answers: Sequence[Answer] | Failed) -> bytes:
    """From a worker, to every batch."""
    if isinstance(answers, Failed):
        return framed(_ANSWERED.dump_json(answers))
    blobs: list[bytes] = []
    told = []
    for answer in answers:
        places = {name: len(blobs) + index for index, name in enumerate(answer.embeddings)}
        blobs += answer.embeddings.values()
        stages = {stage: (took.after_s, took.seconds) for stage, took in answer.stages.items()}
        told.append(_Answer(_sayable(answer.outcome), stages, places))
    return framed(_ANSWERED.dump_json(told), blobs)


def read_answered(message: bytes) -> list[Answer] | Failed:
    """What `answered` said."""
    document, *blobs = _pieces(message)
    told = _ANSWERED.validate_json(document)
    if isinstance(told, Failed):
        return told
    return [
        Answer(
            _meant(each.outcome),
            {stage: Took(*took) for stage, took in each.stages.items()},
            {name: blobs[at] for name, at in each.embeddings.items()},
        )
        for each in told
    ]


def _sayable(outcome: Prediction | InputError) -> Prediction | _Refusal:
    if isinstance(outcome, Prediction):
        return outcome
    return _Refusal(type(outcome).__name__, outcome.modality, outcome.problem, outcome.allowed)


def _meant(outcome: Prediction | _Refusal) -> Prediction | InputError:
    if isinstance(outcome, Prediction):
        return outcome
    return _REFUSALS.get(outcome.name, InputError)(outcome.modality, outcome.problem, outcome.allowed)
