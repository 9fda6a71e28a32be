"""Cache of embeddings of recent inputs, so that only new inputs of a request are encoded."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final, TypeAlias

OVERHEAD_BYTES: Final = 512  # of an entry in addition to its bytes: key, object, hash table; rounded up

Key: TypeAlias = tuple[str, str, bytes]
"""Version of the model, modality, digest of the input."""


class EmbeddingCache:
    """LRU cache of embeddings, as bytes, up to `max_bytes`.

    For one thread. A client that measures the time of its requests can detect whether the same bytes were sent recently.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all entries."""
        return self._bytes

    def get(self, key: Key) -> bytes | None:
        """Return the embedding of a key, or None."""
        if (embedding := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return embedding

    def put(self, key: Key, embedding: bytes) -> None:
        """Keep an embedding, unless it alone is larger than the limit."""
        size = len(embedding) + OVERHEAD_BYTES
        if size > self.max_bytes or key in self._entries:
            return
        self._entries[key] = embedding
        self._bytes += size
        while self._bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest) + OVERHEAD_BYTES


def digest_of(content: bytes | bytearray | str) -> bytes:
    """Return the BLAKE2b digest of an input, 16 bytes; of a text, that of its UTF-8."""
    encoded = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return blake2b(encoded, digest_size=16).digest()
