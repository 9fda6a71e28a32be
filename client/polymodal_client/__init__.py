"""A client of Polymodal: `Client` for ordinary code, `AsyncClient` for asyncio and trio, with the same calls.

files.py      objects that are accepted as files, and their bytes; pil.py: the images of Pillow
items.py      rows of tables as items, their inputs, and missing values
calls.py      descriptions of the calls and the tasks: method, path, body, and how the answer is read
exchange.py   deadline, retries and errors of a call, as a generator that yields requests and pauses
sync.py, asynchronous.py   the two clients, which run that generator
"""

from polymodal_client.answers import (
    Classification,
    Embedding,
    FailedCandidate,
    Health,
    Hit,
    Index,
    Input,
    Interval,
    Item,
    ItemAnswer,
    LabelScore,
    Model,
    ModelDetail,
    Models,
    Pair,
    SearchAnswer,
    Similarity,
    TranscribedSegment,
    TranscribedWord,
    Transcription,
)
from polymodal_client.asynchronous import AsyncClient
from polymodal_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    IndexOfAnotherModel,
    InternalError,
    InvalidInput,
    InvalidRequest,
    NotFound,
    Overloaded,
    PolymodalError,
    ProblemError,
    RateLimited,
    TimedOut,
    TryLater,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    UnknownIndex,
    UnknownModel,
)
from polymodal_client.files import File, Image
from polymodal_client.retries import Retries
from polymodal_client.sync import Client

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Embedding",
    "FailedCandidate",
    "File",
    "Forbidden",
    "Health",
    "Hit",
    "Image",
    "Index",
    "IndexOfAnotherModel",
    "Input",
    "InternalError",
    "Interval",
    "InvalidInput",
    "InvalidRequest",
    "Item",
    "ItemAnswer",
    "LabelScore",
    "Model",
    "ModelDetail",
    "Models",
    "NotFound",
    "Overloaded",
    "Pair",
    "PolymodalError",
    "ProblemError",
    "RateLimited",
    "Retries",
    "SearchAnswer",
    "Similarity",
    "TimedOut",
    "TranscribedSegment",
    "TranscribedWord",
    "Transcription",
    "TryLater",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownIndex",
    "UnknownModel",
]
