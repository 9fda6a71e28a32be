"""Messages between the service and its workers: JSON, followed by the bytes of inputs and arrays.

Not pickles, which can execute code: workers open untrusted files, so the service does not trust their messages. Arrays have a type
of a fixed list of numeric types.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Final, Literal, TypeAlias

import numpy as np
from pydantic import Field, NonNegativeInt, TypeAdapter

from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.engine import Item, ItemResult, Loaded
from polymodal.model import Array, Arrays, Took, input_error

LENGTH: Final = struct.Struct(">Q")
"""Head of every message: the number of bytes that follow."""
LONGEST: Final = 2**30
"""Largest message, in bytes."""
LONGEST_S: Final = 86_400.0
"""Longest stage of a batch."""
MOST_AXES: Final = 8
"""Most axes of an array."""
HEARTBEAT: Final = b""
"""A message without content, which the worker sends back."""
STOP: Final = b"stop "
"""Begins a message of the service: the number of an abandoned request, counted from 1."""
STARTS: Final = b"s"
"""Sent by a worker before it handles a message."""
DTYPES: Final = frozenset({"|b1", "|i1", "|u1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"})
"""Types of arrays: numbers in little-endian order, as numpy writes them."""

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Init:
    """The first message to a worker."""

    settings: Settings
    number: int


@dataclass(frozen=True, slots=True)
class Load:
    """Load a bundle under a reference."""

    ref: str
    source: BundleSource
    kind: Literal["load"] = "load"


@dataclass(frozen=True, slots=True)
class Unload:
    """Forget what was loaded under a reference."""

    ref: str
    kind: Literal["unload"] = "unload"


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute a batch."""

    ref: str
    task: str
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Failed:
    """The reply to a request that failed; the worker has logged the reason."""

    reason: str
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Done:
    """The reply to `Unload`."""

    kind: Literal["done"] = "done"


_Places: TypeAlias = dict[str, NonNegativeInt]
"""By name, the index of the blob in the message."""
_Axis: TypeAlias = Annotated[int, Field(ge=0, le=LONGEST)]
_Array: TypeAlias = tuple[str, Annotated[list[_Axis], Field(max_length=MOST_AXES)], NonNegativeInt]
"""Type, shape, and the index of the blob in the message."""
_Seconds: TypeAlias = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class _Item:
    inputs: _Places
    kept: _Places
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Compute:
    ref: str
    task: str
    items: list[_Item]
    kind: Literal["compute"] = "compute"


@dataclass(frozen=True, slots=True)
class _Error:
    code: str
    input: str
    found: str
    allowed: str


@dataclass(frozen=True, slots=True)
class _Result:
    arrays: dict[str, _Array]
    used: list[str]
    stages: dict[str, tuple[_Seconds, _Seconds]]
    embeddings: dict[str, _Array]
    error: _Error | None = None


_INIT: Final = TypeAdapter(Init)
_REQUEST: Final[TypeAdapter[Load | Unload | _Compute]] = TypeAdapter(Load | Unload | _Compute)
_LOADED: Final[TypeAdapter[Loaded | Failed]] = TypeAdapter(Loaded | Failed)
_DONE: Final[TypeAdapter[Done | Failed]] = TypeAdapter(Done | Failed)
_RESULTS: Final[TypeAdapter[list[_Result] | Failed]] = TypeAdapter(list[_Result] | Failed)


# --- messages and their pieces ---


def encode(document: bytes, blobs: Sequence[Buffer] = ()) -> list[Buffer]:
    """Encode a message as buffers to be written one after the other, without copies: lengths first, then the pieces."""
    sizes = [len(document), *map(len, blobs)]
    head = struct.pack(f">I{len(sizes)}Q", len(sizes), *sizes)
    return [LENGTH.pack(len(head) + sum(sizes)) + head + document, *blobs]


def encode_signal(signal: bytes) -> bytes:
    """Encode HEARTBEAT or STARTS, with its length before it."""
    return LENGTH.pack(len(signal)) + signal


def length(head: bytes) -> int:
    """Return the length of a message, from its first bytes. Raises ValueError for more than LONGEST."""
    (size,) = LENGTH.unpack(head)
    if size > LONGEST:
        raise ValueError(f"a message of {size} bytes")
    return int(size)


def pieces_of(message: bytes) -> list[bytes]:
    """Split a message into its document and blobs. Raises ValueError when their lengths don't match the message's."""
    try:
        (count,) = struct.unpack_from(">I", message)
        sizes = struct.unpack_from(f">{count}Q", message, 4)
    except struct.error as problem:
        raise ValueError(f"a message of {len(message)} bytes: {problem}") from None
    start = 4 + 8 * count
    if start + sum(sizes) != len(message):
        raise ValueError(f"a message of {len(message)} bytes has pieces of {start + sum(sizes)}")
    pieces = []
    for size in sizes:
        pieces.append(message[start : start + size])
        start += size
    return pieces


def receive(stream: BinaryIO) -> list[bytes] | None:
    """Read the pieces of the service's next message, without copies; [] for a heartbeat, None at the end."""
    if (head := _exactly(stream, LENGTH.size)) is None:
        return None
    if not length(head):
        return []
    if (counted := _exactly(stream, 4)) is None:
        return None
    (count,) = struct.unpack(">I", counted)
    if (sizes := _exactly(stream, 8 * count)) is None:
        return None
    pieces = [_exactly(stream, size) for size in struct.unpack(f">{count}Q", sizes)]
    return None if any(piece is None for piece in pieces) else [piece for piece in pieces if piece is not None]


def _exactly(stream: BinaryIO, size: int) -> bytes | None:
    content = stream.read(size)
    return content if len(content) == size else None


# --- from the service ---


def init(settings: Settings, number: int) -> list[Buffer]:
    """Encode the first message to a worker."""
    return encode(_INIT.dump_json(Init(settings, number)))


def read_init(pieces: Sequence[bytes]) -> Init:
    """Decode what `init` encoded."""
    return _INIT.validate_json(pieces[0])


def request(message: Load | Unload | Compute) -> list[Buffer]:
    """Encode a request to a worker."""
    if not isinstance(message, Compute):
        return encode(_REQUEST.dump_json(message))
    blobs: list[Buffer] = []

    def put(content: Buffer | str) -> int:
        blobs.append(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return len(blobs) - 1

    items = [
        {
            "inputs": {name: put(content) for name, content in item.inputs.items()},
            "kept": {name: put(content) for name, content in item.kept.items()},
            "options": dict(item.options),
        }
        for item in message.items
    ]
    document = {"kind": "compute", "ref": message.ref, "task": message.task, "items": items}
    return encode(json.dumps(document).encode(), blobs)


def stop(number: int) -> list[Buffer]:
    """Encode that a request is abandoned."""
    return encode(STOP + str(number).encode())


def read_stop(pieces: Sequence[bytes]) -> int | None:
    """Return the number of the request that `stop` encoded; None for another message."""
    return int(pieces[0].removeprefix(STOP)) if pieces[0].startswith(STOP) else None


def read_request(pieces: Sequence[bytes]) -> Load | Unload | Compute:
    """Decode what `request` encoded; texts stay UTF-8."""
    document, *blobs = pieces
    message = _REQUEST.validate_json(document)
    if not isinstance(message, _Compute):
        return message

    def named(places: Mapping[str, int]) -> dict[str, Any]:
        return {name: blobs[index] for name, index in places.items()}

    items = [Item(named(item.inputs), named(item.kept), item.options) for item in message.items]
    return Compute(message.ref, message.task, items)


# --- from a worker ---


def loaded(answer: Loaded | Failed) -> list[Buffer]:
    """Encode the reply to `Load`."""
    return encode(_LOADED.dump_json(answer))


def read_loaded(message: bytes) -> Loaded | Failed:
    """Decode what `loaded` encoded."""
    return _LOADED.validate_json(pieces_of(message)[0])


def done(answer: Done | Failed) -> list[Buffer]:
    """Encode the reply to `Unload`."""
    return encode(_DONE.dump_json(answer))


def read_done(message: bytes) -> Done | Failed:
    """Decode what `done` encoded."""
    return _DONE.validate_json(pieces_of(message)[0])


def results(answer: Sequence[ItemResult] | Failed) -> list[Buffer]:
    """Encode the reply to `Compute`."""
    if isinstance(answer, Failed):
        return encode(_RESULTS.dump_json(answer))
    blobs: list[Buffer] = []
    documents = [
        _Result(
            arrays=_to_wire(item.arrays, blobs),
            used=sorted(item.used),
            stages={stage: (took.after_s, took.seconds) for stage, took in item.stages.items()},
            embeddings=_to_wire(item.embeddings, blobs),
            error=None
            if (error := item.error) is None
            else _Error(error.code, error.input, error.found, error.allowed),
        )
        for item in answer
    ]
    return encode(_RESULTS.dump_json(documents), blobs)


def read_results(message: bytes) -> list[ItemResult] | Failed:
    """Decode what `results` encoded. Raises ValueError or LookupError for an invalid message."""
    document, *blobs = pieces_of(message)
    answer = _RESULTS.validate_json(document)
    if isinstance(answer, Failed):
        return answer
    return [
        ItemResult(
            arrays=_from_wire(item.arrays, blobs),
            used=frozenset(item.used),
            stages={stage: Took(*took) for stage, took in item.stages.items()},
            embeddings=_from_wire(item.embeddings, blobs),
            error=None
            if (error := item.error) is None
            else input_error(error.code, error.input, error.found, error.allowed),
        )
        for item in answer
    ]


def _to_wire(arrays: Arrays, blobs: list[Buffer]) -> dict[str, _Array]:
    described: dict[str, _Array] = {}
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES:
            raise ValueError(f"array {name!r} of type {array.dtype.str}; allowed: {', '.join(sorted(DTYPES))}")
        described[name] = array.dtype.str, list(array.shape), len(blobs)
        blobs.append(array.tobytes())
    return described


def _from_wire(described: Mapping[str, _Array], blobs: Sequence[bytes]) -> dict[str, Array]:
    return {name: _array(dtype, shape, blobs[index]) for name, (dtype, shape, index) in described.items()}


def _array(dtype: str, shape: Iterable[int], blob: bytes) -> Array:
    if dtype not in DTYPES:
        raise ValueError(f"an array of type {dtype[:16]!r}")
    shape = tuple(shape)
    if math.prod(shape) * np.dtype(dtype).itemsize != len(blob):
        raise ValueError(f"an array of type {dtype} and shape {shape} in {len(blob)} bytes")
    return np.frombuffer(blob, dtype=dtype).reshape(shape)
