"""Embeddings kept for the next time that the same bytes come, so that a known picture with a new text costs only the text."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final, TypeAlias

OVERHEAD_BYTES: Final = 512  # of an entry beside its bytes: key, object, place in the table; rounded up

Key: TypeAlias = tuple[str, str, bytes]
"""Digest of the bundle, modality, digest of what was sent."""


class EmbeddingCache:
    """Embeddings, as bytes, by key, at most so many bytes of them; the least recently used leave first.

    For one thread. Whoever can send requests and measure their time can tell whether somebody has sent the same bytes lately.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0

    @property
    def used_bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def get(self, key: Key) -> bytes | None:
        """The embedding kept under this key."""
        if (found := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Key, embedding: bytes) -> None:
        """Keep it, unless it alone is larger than all that may be kept."""
        size = len(embedding) + OVERHEAD_BYTES
        if size > self.max_bytes or key in self._entries:
            return
        self._entries[key] = embedding
        self._bytes += size
        while self._bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest) + OVERHEAD_BYTES


def digest_of(part: bytes | str) -> bytes:
    """What tells one picture or text from all others: BLAKE2b, 16 bytes; a text is its UTF-8."""
    content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
    return blake2b(content, digest_size=16).digest()
