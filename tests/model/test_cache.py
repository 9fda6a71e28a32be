"""Embeddings that are kept: what comes back, what leaves, and what a Predictor saves by it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model import EmbeddingCache, InputError, load_bundle
from model.cache import OVERHEAD_BYTES, digest_of

WIDTH = 4
ENTRY = WIDTH * 4 + OVERHEAD_BYTES  # bytes


def key(number, modality="image"):
    return ("bundle", modality, str(number).encode())


def embedding(number):
    return np.full(WIDTH, number, dtype=np.float32)


def test_the_least_recently_used_leaves_first():
    cache = EmbeddingCache(3 * ENTRY)
    for number in (1, 2, 3):
        cache.put(key(number), embedding(number))
    assert cache.get(key(1)) is not None
    cache.put(key(4), embedding(4))
    assert [cache.get(key(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    np.testing.assert_array_equal(cache.get(key(4)), embedding(4))
    assert cache.used_bytes == 3 * ENTRY


def test_what_is_larger_than_the_whole_is_not_kept():
    cache = EmbeddingCache(ENTRY - 1)
    cache.put(key(1), embedding(1))
    assert cache.get(key(1)) is None
    assert cache.used_bytes == 0


def test_what_is_kept_does_not_change_with_the_batch_that_it_came_from():
    cache, batch = EmbeddingCache(ENTRY), np.ones((2, WIDTH), dtype=np.float32)
    cache.put(key(1), batch[0])
    batch[:] = 7
    np.testing.assert_array_equal(cache.get(key(1)), embedding(1))


def test_modalities_and_bundles_are_kept_apart():
    cache = EmbeddingCache(9 * ENTRY)
    cache.put(key(1, "image"), embedding(1))
    assert cache.get(key(1, "text")) is None
    assert cache.get(("another bundle", *key(1, "image")[1:])) is None


def test_a_text_is_the_same_as_str_and_as_utf8():
    assert digest_of("Zürich") == digest_of("Zürich".encode()) != digest_of("Zurich")
    assert len(digest_of("\ud800")) == 16  # half a character: it is refused later, by those whose business that is


def test_threads_do_not_lose_count():
    cache = EmbeddingCache(50 * ENTRY)

    def use(number):
        cache.put(key(number % 90), embedding(number % 90))
        found = cache.get(key(number % 90))
        return found is None or (found == number % 90).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(4000)))
    assert cache.used_bytes == 50 * ENTRY


@pytest.fixture
def pair(tiny_bundle):
    """The same bundle with a cache and without."""
    return load_bundle(tiny_bundle, threads=1, cache=EmbeddingCache(2**20)), load_bundle(tiny_bundle, threads=1)


@pytest.fixture
def picture(manifest_folder):
    return (manifest_folder / "images/test-tomato-0.png").read_bytes()


def ask(predictor, parts):
    (prediction,) = predictor.predict([predictor.prepare(parts)])
    return prediction


def test_a_known_picture_with_a_new_text_is_neither_decoded_nor_encoded_again(pair, picture):
    keeping, plain = pair
    first = ask(keeping, {"image": picture, "text": "red"})
    sample = keeping.prepare({"image": picture, "text": "ripe fruit"})
    assert set(sample.arrays) == {"text"}
    assert set(sample.embeddings) == {"image"}
    assert sample.costs.keys() == {"text"}
    assert sample.present == {"image", "text"}
    (second,) = keeping.predict([sample])
    assert second.used == {"image", "text"}
    for found, parts in (
        (first, {"image": picture, "text": "red"}),
        (second, {"image": picture, "text": "ripe fruit"}),
    ):
        assert found.scores == pytest.approx(ask(plain, parts).scores, abs=1e-6)


def test_kept_and_new_embeddings_share_a_batch_without_mixing(pair, picture):
    keeping, plain = pair
    ask(keeping, {"image": picture, "text": "red"})
    examples = [
        {"text": "blue, deep water"},
        {"image": picture},  # kept
        {"text": "red", "image": picture},  # both kept
        {"text": "waves at the coast"},
        {"text": "red"},  # kept
    ]
    together = keeping.predict([keeping.prepare(example) for example in examples])
    for found, example in zip(together, examples, strict=True):
        assert found.scores == pytest.approx(ask(plain, example).scores, abs=1e-5)
        assert found.used == set(example)


def test_an_input_that_is_refused_or_blank_is_not_kept(tiny_bundle):
    cache = EmbeddingCache(2**20)
    keeping = load_bundle(tiny_bundle, threads=1, cache=cache)
    for parts in ({"image": b"no picture"}, {"text": " "}):
        for _ in range(2):
            with pytest.raises(InputError):
                keeping.prepare(parts)
    assert cache.used_bytes == 0
    assert ask(keeping, {"text": "red"}).used == {"text"}
    assert cache.used_bytes > 0
