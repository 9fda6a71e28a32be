"""The cache of embeddings, and its limit."""

from polymodal.app.serving.cache import OVERHEAD_BYTES, EmbeddingCache, digest_of

WIDTH = 16
ENTRY = WIDTH + OVERHEAD_BYTES  # bytes


def key(number, modality="image"):
    return ("version", modality, str(number).encode())


def embedding(number):
    return bytes([number]) * WIDTH


def test_the_least_recently_used_entry_is_removed_first():
    cache = EmbeddingCache(3 * ENTRY)
    for number in (1, 2, 3):
        cache.put(key(number), embedding(number))
    assert cache.get(key(1)) is not None
    cache.put(key(4), embedding(4))
    assert [cache.get(key(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.get(key(4)) == embedding(4)
    assert cache.used_bytes == 3 * ENTRY


def test_an_entry_larger_than_the_limit_is_not_kept():
    cache = EmbeddingCache(ENTRY - 1)
    cache.put(key(1), embedding(1))
    assert cache.get(key(1)) is None
    assert cache.used_bytes == 0


def test_modalities_and_versions_have_separate_entries():
    cache = EmbeddingCache(9 * ENTRY)
    cache.put(key(1, "image"), embedding(1))
    assert cache.get(key(1, "text")) is None
    assert cache.get(("another version", *key(1, "image")[1:])) is None


def test_a_text_has_one_digest_as_str_and_as_utf8():
    assert digest_of("Zürich") == digest_of("Zürich".encode()) != digest_of("Zurich")
    assert len(digest_of("\ud800")) == 16  # half a character; the model refuses it later
