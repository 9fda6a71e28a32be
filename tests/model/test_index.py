"""Search indexes: exact, in the right order, filtered, refused when they are broken, and written as a whole."""

import errno
import json
import shutil

import numpy as np
import pytest

from polymodal.model import Description, InvalidParameter, MatchConfig, SearchIndexError, read_index
from polymodal.model import index as module
from polymodal.model.digest import file_sha256
from polymodal.model.index import MOST_ITEMS, IndexItem, text_of, write_index

MODEL = Description(
    "toy", "ab" * 32, "single-label", ("a",), (), "onnx", "", {}, spaces={"aligned": 3, "classifier": 4}
)
MATCHES = {
    "image~text": MatchConfig(slope=10.0, intercept=-2.0, threshold=0.5),
    "text~text": MatchConfig(slope=10.0, intercept=-8.0, threshold=0.5),
}
RED, GREEN, BLUE = np.eye(3, dtype=np.float32)


def between(one, other, share):
    vector = (1 - share) * one + share * other
    return (vector / np.linalg.norm(vector)).astype(np.float32)


ITEMS = [
    (IndexItem("red", ("image",), {"label": "warm", "price": 3}), RED),
    (IndexItem("red words", ("text",), {"label": "warm", "price": 3.5}), RED),
    (IndexItem("orange", ("image",), {"label": "warm", "new": True}), between(RED, GREEN, 0.3)),
    (IndexItem("sea", ("image", "text"), {"label": "cold"}), between(BLUE, RED, 0.2)),
    (IndexItem("nothing", ("text",), {}), np.zeros(3, np.float32)),
]
COLUMNS = ("label", "price", "new")


@pytest.fixture
def folder(tmp_path):
    write_index(tmp_path / "index", ITEMS, MODEL, COLUMNS)
    return tmp_path / "index"


@pytest.fixture
def index(folder):
    return read_index(folder)


def ids(hits):
    return [hit.id for hit in hits]


def test_an_index_has_its_items_its_model_and_its_columns(folder, index):
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "items.jsonl", "vectors.npy"]
    assert (len(index), index.model, index.digest, index.width) == (5, "toy", "ab" * 32, 3)
    assert index.columns == ("label", "price", "new", "modalities")
    assert index.counts == {"image": 2, "text": 2, "image+text": 1}


def test_items_are_sorted_by_match_and_those_without_one_follow_by_cosine(index):
    hits = index.search(RED, ["text"], MATCHES)
    assert ids(hits) == ["red", "orange", "red words", "nothing", "sea"]
    assert [hit.cosine for hit in hits] == pytest.approx([1, 0.919145, 1, 0, 0.242536], abs=1e-6)
    assert [hit.match for hit in hits][:3] == pytest.approx([0.999665, 0.999248, 0.880797], abs=1e-5)
    assert hits[-1].match is None
    assert (hits[0].modalities, hits[0].metadata) == (("image",), {"label": "warm", "price": 3})


def test_without_calibration_items_are_sorted_by_cosine(index):
    assert ids(index.search(RED, ["image"], {})) == ["red", "red words", "orange", "sea", "nothing"]


def test_the_prior_shifts_every_match_and_no_order(index):
    even, rare = (index.search(RED, ["text"], MATCHES, prior=prior) for prior in (0.5, 0.01))
    assert ids(even) == ids(rare)
    assert rare[0].match < even[0].match
    assert index.search(RED, ["text"], MATCHES, prior=1 / len(index), min_match=0.9)[0].id == "red"


@pytest.mark.parametrize(("top_k", "number"), [(1, 1), (2, 2), (5, 5), (1000, 5)])
def test_at_most_top_k_items_are_returned(index, top_k, number):
    assert ids(index.search(RED, ["text"], MATCHES, top_k=top_k)) == ids(index.search(RED, ["text"], MATCHES))[:number]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"label": "warm"}, ["red", "orange", "red words"]),
        ({"label": "warm", "modalities": "image"}, ["red", "orange"]),
        ({"modalities": "image+text"}, ["sea"]),
        ({"price": 3}, ["red"]),
        ({"price": "3"}, ["red"]),
        ({"price": 3.0}, ["red"]),
        ({"price": 3.5}, ["red words"]),
        ({"new": True}, ["orange"]),
        ({"new": "true"}, ["orange"]),
        ({"label": ""}, ["nothing"]),
        ({"label": "lukewarm"}, []),
    ],
    ids=str,
)
def test_a_filter_compares_values_as_texts(index, filter, expected):
    assert ids(index.search(RED, ["text"], MATCHES, filter=filter)) == expected


def test_a_key_that_no_item_can_have_is_rejected(index):
    with pytest.raises(InvalidParameter, match="filter: key 'colour'; allowed: label, price, new, modalities"):
        index.search(RED, ["text"], MATCHES, filter={"colour": "red"})


def test_min_match_leaves_out_items_without_a_match_and_is_rejected_where_none_can_have_one(index):
    assert ids(index.search(RED, ["text"], MATCHES, min_match=0.9)) == ["red", "orange"]
    with pytest.raises(InvalidParameter, match=r"min_match: 0.9 for audio, .*; allowed: image~text, text~text"):
        index.search(RED, ["audio"], MATCHES, min_match=0.9)


def test_an_empty_index_returns_nothing(tmp_path):
    write_index(tmp_path / "index", [], MODEL, COLUMNS)
    empty = read_index(tmp_path / "index")
    assert empty.search(RED, ["text"], MATCHES, filter={"label": "x"}, min_match=0.5) == []


def test_a_search_is_exact(tmp_path):
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((2000, 3), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [(IndexItem(str(row), ("image",)), vector) for row, vector in enumerate(vectors)]
    write_index(tmp_path / "index", items, MODEL, ())
    hits = read_index(tmp_path / "index").search(vectors[7], ["image"], {}, top_k=20)
    assert ids(hits) == [str(row) for row in np.argsort(-(vectors @ vectors[7]), kind="stable")[:20]]


def test_of_equal_items_the_first_are_returned_first(tmp_path):
    write_index(tmp_path / "index", [(IndexItem(str(row), ("image",)), RED) for row in range(100)], MODEL, ())
    assert ids(read_index(tmp_path / "index").search(RED, ["image"], {}, top_k=3)) == ["0", "1", "2"]


def test_a_filter_that_few_items_pass_changes_no_cosine(tmp_path):
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((100, 3), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [
        (IndexItem(str(row), ("image",), {"tenth": row % 10, "half": row % 2}), vectors[row]) for row in range(100)
    ]
    write_index(tmp_path / "index", items, MODEL, ("tenth", "half"))
    index = read_index(tmp_path / "index")
    every = {hit.id: hit.cosine for hit in index.search(vectors[7], ["image"], {}, top_k=100)}
    for filter, number in (({"tenth": 7}, 10), ({"half": 1}, 50)):
        hits = index.search(vectors[7], ["image"], {}, top_k=100, filter=filter)
        assert hits[0].id == "7"
        assert {hit.id: hit.cosine for hit in hits}.items() <= every.items()
        assert len(hits) == number


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (3.0, "3"), (0.1, "0.1"), (1e300, str(int(1e300))), (True, "true"), ("a b", "a b")]
)
def test_values_are_compared_as_json_writes_them(value, text):
    assert text_of(value) == text


# --- broken and foreign indexes ---


def reseal(folder):
    header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    header["files"] = {name: file_sha256(folder / name) for name in header["files"]}
    (folder / "index.json").write_text(json.dumps(header), encoding="utf-8")


def with_header(**changed):
    def change(folder):
        header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        (folder / "index.json").write_text(json.dumps(header | changed), encoding="utf-8")

    return change


def with_vectors(make):
    def change(folder):
        np.save(folder / "vectors.npy", make(np.load(folder / "vectors.npy")))
        reseal(folder)

    return change


def with_nan(vectors):
    vectors[2, 1] = np.nan
    return vectors


def pickled(folder):
    np.save(folder / "vectors.npy", np.asarray([{}]), allow_pickle=True)
    reseal(folder)


def without_id(folder):
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "items.jsonl").write_text("\n".join(["{}", *lines[1:]]) + "\n", encoding="utf-8")
    reseal(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(shutil.rmtree, "index.json is missing; allowed: a folder written by", id="no-folder"),
        pytest.param(lambda folder: (folder / "vectors.npy").unlink(), "cannot be read: No such file", id="no-vectors"),
        pytest.param(lambda folder: (folder / "items.jsonl").write_text(""), "items.jsonl was altered", id="altered"),
        pytest.param(lambda folder: (folder / "index.json").write_text("{"), "index.json cannot be used", id="no-json"),
        pytest.param(with_header(format=2), "format: Input should be 1", id="format"),
        pytest.param(with_header(count=4), r"\(5, 3\) for 5 items; allowed: float32 \(4, 3\)", id="count"),
        pytest.param(
            with_vectors(with_nan), "row 2, of the item 'orange', has the length nan; allowed: finite", id="nan"
        ),
        pytest.param(with_vectors(lambda vectors: vectors * 2), "has the length 2", id="length"),
        pytest.param(with_vectors(lambda vectors: vectors.astype(np.float16)), "float16", id="float16"),
        pytest.param(pickled, "vectors.npy is no array: Object arrays cannot be loaded", id="pickle"),
        pytest.param(without_id, "line 1 of items.jsonl is no item", id="no-item"),
    ],
)
def test_a_broken_index_is_explained(folder, change, problem):
    change(folder)
    with pytest.raises(SearchIndexError, match=problem):
        read_index(folder)


def test_an_index_of_another_version_is_rejected_with_the_way_out(index):
    other = Description("toy", "cd" * 32, "single-label", ("a",), (), "onnx", "", {})
    with pytest.raises(SearchIndexError, match=r"model toy, version abab.*; this one is toy, version cdcd.*: build it"):
        index.check_model(other, "build it")


# --- writing ---


def test_more_items_than_the_bound_are_refused_with_the_way_out(tmp_path):
    items = ((IndexItem(str(number), ("text",)), RED) for number in range(MOST_ITEMS + 1))
    with pytest.raises(SearchIndexError, match=r"100,001 items; allowed: at most 100,000 in an index; docs/search.md"):
        write_index(tmp_path / "index", items, MODEL, ())
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_aligned_vectors_is_refused(tmp_path):
    plain = Description("toy", "ab" * 32, "", (), (), "onnx", "", {}, spaces={"classifier": 4})
    with pytest.raises(
        SearchIndexError, match=r"toy: a model whose vector spaces are: classifier; allowed: .* aligned"
    ):
        write_index(tmp_path / "index", ITEMS, plain, ())


def test_a_full_disk_leaves_the_older_index(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(
        SearchIndexError, match="index: cannot be written: No space left on device; nothing was replaced"
    ):
        write_index(folder, ITEMS[:1], MODEL, ())
    assert len(read_index(folder)) == 5
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_a_vector_that_is_not_finite_is_never_written(folder):
    with pytest.raises(SearchIndexError, match=r"index: vectors.npy: row 0, of the item 'x', has the length inf"):
        write_index(folder, [(IndexItem("x", ("text",)), np.full(3, np.inf, np.float32))], MODEL, ())
    assert len(read_index(folder)) == 5


def test_an_index_is_replaced_as_a_whole(folder):
    write_index(folder, ITEMS[:2], MODEL, COLUMNS)
    assert len(read_index(folder)) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_a_folder_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SearchIndexError, match="no index; allowed: a new or empty folder"):
        write_index(tmp_path, ITEMS, MODEL, ())
    assert (tmp_path / "notes.txt").read_text() == "mine"
