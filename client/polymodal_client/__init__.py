"""A client of Polymodal: `Client` for ordinary code, `AsyncClient` for asyncio and trio, with the same calls.

pictures.py   what may be given as an image; pil.py, the images of Pillow
items.py      rows of tables as items, and which values are missing
calls.py      what can be asked, each described once: method, path, body, and how the answer is read
exchange.py   what happens around one call: deadline, retries, errors; it only says what is to be sent, and when
sync.py, asynchronous.py   send it, in two thin ways
"""

from polymodal_client.answers import (
    Classification,
    Health,
    Input,
    Interval,
    Item,
    ItemAnswer,
    LabelScore,
    Model,
    ModelDetail,
    Models,
)
from polymodal_client.asynchronous import AsyncClient
from polymodal_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
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
    UnknownModel,
)
from polymodal_client.pictures import Image
from polymodal_client.retries import Retries
from polymodal_client.sync import Client

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Forbidden",
    "Health",
    "Image",
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
    "PolymodalError",
    "ProblemError",
    "RateLimited",
    "Retries",
    "TimedOut",
    "TryLater",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownModel",
]
