"""Embeddings kept for the next time that the same bytes come, so that a known picture with a new text costs only the text."""

import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import Final, TypeAlias

from model.types import FloatArray

OVERHEAD_BYTES: Final = 512  # of an entry beside its numbers: key, array object, place in the table; rounded up

Key: TypeAlias = tuple[str, str, bytes]
"""Digest of the bundle, modality, digest of what was sent."""


class EmbeddingCache:
    """Embeddings (D,) by key, at most so many bytes of them; the least recently used leave first.

    Thread-safe. Whoever can send requests and measure their time can tell whether somebody has sent the same bytes lately.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Key, FloatArray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def get(self, key: Key) -> FloatArray | None:
        """The embedding kept under this key; it must not be changed."""
        with self._lock:
            if (found := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: Key, embedding: FloatArray) -> None:
        """Keep a copy, unless it alone is larger than all that may be kept."""
        size = embedding.nbytes + OVERHEAD_BYTES
        with self._lock:
            if size > self.max_bytes or key in self._entries:
                return
            self._entries[key] = embedding.copy()  # of its own, not a view that keeps a whole batch alive
            self._bytes += size
            while self._bytes > self.max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.nbytes + OVERHEAD_BYTES


def digest_of(part: bytes | str) -> bytes:
    """What tells one picture or text from all others: BLAKE2b, 16 bytes; a text is its UTF-8."""
    content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
    return blake2b(content, digest_size=16).digest()
