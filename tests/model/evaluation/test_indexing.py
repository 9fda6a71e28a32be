"""An index of a manifest has the aligned vector of every good row, with its metadata; it is resumable and never half-written."""

import json
import multiprocessing
import resource

import numpy as np
import pytest

from polymodal.model import ModelError, SearchIndexError, answer_one, load_bundle, read_index
from polymodal.model import index as index_module
from polymodal.model.evaluation import Interrupted, build_index, indexing
from polymodal.model.manifest import open_table
from polymodal.model.tasks.embed import Embed, EmbedOptions

ALIGNED = EmbedOptions(space="aligned", fused=True)


@pytest.fixture(scope="module")
def aligned(aligned_bundle):
    return load_bundle(aligned_bundle, runtime="onnx", threads=1)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a manifest's lines, or those of another file."""

    def write(*lines, name="manifest.csv"):
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def search(index, model, text="red", **options):
    answer = answer_one(model, Embed(), {"text": text}, ALIGNED)
    return index.search(answer.fused, answer.modalities, model.description.matches, top_k=1000, **options)


def test_every_row_has_the_fused_vector_of_its_inputs(aligned, manifest_folder, tmp_path):
    summary = build_index(aligned, manifest_folder, tmp_path / "index", workers=2)
    index = read_index(tmp_path / "index")
    assert (summary.rows, summary.failed, summary.resumed, len(index)) == (48, 0, 0, 48)
    assert (index.digest, index.width) == (aligned.description.digest, 16)
    assert index.counts == {"image+text": 16, "image": 16, "text": 16}
    for row, _ in open_table(manifest_folder).rows("single-label"):
        content = {name: value if name == "text" else value.read_bytes() for name, value in row.inputs.items()}
        answer = answer_one(aligned, Embed(), content, ALIGNED)
        best = index.search(answer.fused, answer.modalities, {}, top_k=1)[0]
        assert best.cosine == pytest.approx(1, abs=1e-5)
        (same,) = [hit for hit in search(index, aligned) if hit.id == row.id]
        assert (same.modalities, same.metadata["label"]) == (tuple(sorted(row.inputs)), row.label)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_metadata_are_inputs_and_names_of_the_row(aligned, manifest_folder, tmp_path):
    build_index(aligned, manifest_folder, tmp_path / "index")
    index = read_index(tmp_path / "index")
    assert set(index.columns) == {"image", "text", "label", "group", "split", "source", "licence", "modalities"}
    hits = {hit.id: hit for hit in search(index, aligned, filter={"split": "test", "modalities": "image+text"})}
    assert hits["test-sea-0"].metadata == {
        "image": "images/test-sea-0.png",
        "text": "blue, blue",
        "label": "sea",
        "split": "test",
        "source": "painted",
        "licence": "CC0-1.0",
    }
    assert hits["test-sea-0"].match is None
    assert search(index, aligned, filter={"modalities": "image"})[0].match is not None


def test_further_metadata_come_from_another_table_or_from_other_columns_of_the_manifest(aligned, write, tmp_path):
    manifest = write("id,text,label,Price", "a,red,x,3", "b,blue,,4", "c,green,z,")
    other = write('{"id": "b", "stock": 5, "new": true}', '{"id": "lost", "stock": 1}', name="more.jsonl")
    warnings = []
    build_index(aligned, manifest, tmp_path / "own", metadata=manifest, warn=warnings.extend)
    assert warnings == []
    build_index(aligned, manifest, tmp_path / "other", metadata=other, warn=warnings.extend)
    assert [warning.partition(";")[0] for warning in warnings] == ["unknown column 'Price' is ignored"]
    own, more = read_index(tmp_path / "own"), read_index(tmp_path / "other")
    assert {hit.id: hit.metadata.get("Price") for hit in search(own, aligned)} == {"a": "3", "b": "4", "c": None}
    assert own.columns == ("text", "label", "Price", "modalities")
    (hit,) = search(more, aligned, filter={"stock": 5, "new": True})
    assert hit.metadata == {"text": "blue", "stock": 5, "new": True}


def test_a_manifest_without_ids_is_joined_by_the_number_of_the_row(aligned, write, tmp_path):
    manifest = write("text,price", "red,3", "blue,4")
    build_index(aligned, manifest, tmp_path / "index", metadata=manifest)
    prices = {hit.id: hit.metadata["price"] for hit in search(read_index(tmp_path / "index"), aligned)}
    assert prices == {"1": "3", "2": "4"}


@pytest.mark.parametrize(
    ("lines", "name", "problem"),
    [
        pytest.param(["id,n", "a,1", "a,2"], "more.csv", "id 'a' is taken by an earlier row", id="ids"),
        pytest.param(['{"id": "a", "n": [1]}'], "more.jsonl", "n is a list; allowed: text, a number", id="list"),
        pytest.param(['{"id": "a", "n": NaN}'], "more.jsonl", "n is a float; allowed: text, a number", id="nan"),
        pytest.param(["id,modalities", "a,1"], "more.csv", "column 'modalities', which filters use", id="reserved"),
        pytest.param(["id,n"], "more.xlsx", "format '.xlsx'; allowed: .csv", id="format"),
        pytest.param([",".join(f"c{n}" for n in range(40)), "1"], "more.csv", "41 columns of metadata", id="columns"),
    ],
)
def test_bad_metadata_are_refused_before_the_work(aligned, write, tmp_path, lines, name, problem):
    with pytest.raises(ModelError, match=problem):
        build_index(aligned, write("text", "red"), tmp_path / "index", metadata=write(*lines, name=name))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_rows_with_errors_and_repeated_ids_are_reported_and_left_out(aligned, write, tmp_path):
    manifest = write("id,image,text", "a,,red", "b,lost.png,", "a,,blue", "c,,green")
    summary = build_index(aligned, manifest, tmp_path / "index")
    assert (summary.rows, summary.failed) == (4, 2)
    assert [name for name, _ in summary.errors] == ["b", "a"]
    assert "id 'a' is taken by an earlier row; allowed: unique ids" in summary.errors[1][1]
    assert [hit.metadata["text"] for hit in search(read_index(tmp_path / "index"), aligned) if hit.id == "a"] == ["red"]


def test_long_and_broken_texts_of_metadata_are_cut(aligned, write, tmp_path):
    manifest = write(json.dumps({"text": "red " * 1000, "source": "a"}), name="manifest.jsonl")
    more = write(json.dumps({"id": "1", "note": "half \ud83d"}), name="more.jsonl")
    build_index(aligned, manifest, tmp_path / "index", metadata=more)
    (hit,) = search(read_index(tmp_path / "index"), aligned)
    assert (len(hit.metadata["text"]), hit.metadata["text"][-1]) == (1024, "…")
    assert hit.metadata["note"] == "half ?"


def test_an_interrupted_build_goes_on_where_it_stopped(aligned, write, tmp_path):
    manifest = write("text", *(f"{number} reds" for number in range(200)))

    def stop(rows, *_):
        for number, row in enumerate(rows):
            if number == 150:
                raise KeyboardInterrupt
            yield row

    with pytest.raises(Interrupted):
        build_index(aligned, manifest, tmp_path / "index", watch=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "index.part"]
    resumed = build_index(aligned, manifest, tmp_path / "index")
    build_index(aligned, manifest, tmp_path / "whole")
    assert 0 < resumed.resumed < resumed.rows == 200
    for name in ("vectors.npy", "items.jsonl"):
        assert (tmp_path / "index" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_index_is_only_replaced_with_restart(aligned, write, tmp_path):
    build_index(aligned, write("text", "red", "blue"), tmp_path / "index")
    with pytest.raises(ModelError, match="index: already exists; allowed: a new folder, or --restart"):
        build_index(aligned, write("text", "green"), tmp_path / "index")
    build_index(aligned, write("text", "green"), tmp_path / "index", restart=True)
    assert len(read_index(tmp_path / "index")) == 1


def test_a_failure_leaves_the_older_index_and_the_finished_rows(aligned, write, tmp_path, monkeypatch):
    build_index(aligned, write("text", "red", "blue"), tmp_path / "index")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_module.np, "save", full)
    with pytest.raises(SearchIndexError, match="No space left on device"):
        build_index(aligned, write("text", "green"), tmp_path / "index", restart=True)
    assert len(read_index(tmp_path / "index")) == 2
    assert (tmp_path / "index.part").exists()


def test_a_disk_that_is_full_before_the_last_row_is_named_and_the_same_command_goes_on(aligned, write, tmp_path):
    manifest = write("text", *(f"{number} reds" for number in range(100)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))  # bytes of a file
    try:
        with pytest.raises(
            ModelError, match=r"index.part: cannot be written: File too large; the same command goes on"
        ):
            build_index(aligned, manifest, tmp_path / "index")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < build_index(aligned, manifest, tmp_path / "index").resumed < 100
    assert len(read_index(tmp_path / "index")) == 100


def hold(path, ready, done):
    import fcntl

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ready.set()
        done.wait(30)


def test_a_second_writer_is_refused(aligned, write, tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "index.part", ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ModelError, match=r"index.part: is being written by another run; allowed: one at a time"):
            build_index(aligned, write("text", "red"), tmp_path / "index", restart=True)
    finally:
        done.set()
        other.join()
    build_index(aligned, write("text", "red"), tmp_path / "index", restart=True)


def test_a_model_without_aligned_vectors_is_refused_in_one_sentence(tiny_bundle, manifest_folder, tmp_path):
    plain = load_bundle(tiny_bundle, runtime="onnx", threads=1)
    with pytest.raises(
        SearchIndexError, match="shapes: a model whose vector spaces are: classifier; allowed: one with"
    ):
        build_index(plain, manifest_folder, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_above_the_bound_is_refused_before_the_work(aligned, write, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "MOST_ITEMS", 2)
    with pytest.raises(
        SearchIndexError, match=r"3 items; allowed: at most 2 in an index; docs/search.md has an example"
    ):
        build_index(aligned, write("text", "red", "green", "blue"), tmp_path / "index")
    assert not (tmp_path / "index.part").exists()


def test_a_row_whose_vector_is_not_finite_is_left_out(aligned, write, tmp_path, monkeypatch):
    run = indexing.embed_task.run

    def broken(batch):
        rows = run(batch)
        return [{**rows[0], "fused": np.full(16, np.nan, np.float32)}, *rows[1:]]

    monkeypatch.setattr(indexing.embed_task, "run", broken, raising=False)
    summary = build_index(aligned, write("text", "red", "green"), tmp_path / "index")
    assert (summary.failed, len(read_index(tmp_path / "index"))) == (1, 1)
    assert "its vector is not finite" in summary.errors[0][1]
