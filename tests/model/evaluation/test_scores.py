"""The file of scores of a manifest is complete, in order, resumable, and never half-written."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from polymodal.model import ModelError
from polymodal.model.evaluation import Interrupted, embed, score
from polymodal.model.evaluation.scores import WRITERS
from polymodal.model.manifest import open_table

COLUMNS = ["id", "label", "score", "score_sea", "score_tomato", "error"]


@pytest.fixture(scope="module")
def expected(served, with_bad_rows):
    """Scores by label of the good rows, "" for bad ones, by id and in order."""
    scores_by_id = {}
    for row, errors in open_table(with_bad_rows).rows(None):
        inputs = {"image": row.inputs["image"].read_bytes()} if "image" in row.inputs and row.id != "broken" else {}
        inputs |= {"text": row.inputs["text"]} if "text" in row.inputs else {}
        bad = errors or row.id == "broken"
        scores_by_id[row.id] = "" if bad else dict(served.predict([served.prepare(inputs)])[0].scores)
    return scores_by_id


def read(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = ("score", "score_sea", "score_tomato")
    return [
        {name: (float(cell) if name in numbers else cell) if cell else None for name, cell in row.items()}
        for row in rows
    ]


def only(folder):
    """Return the name of the only file in a folder."""
    (path,) = folder.iterdir()
    return path.name


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_row_gets_its_scores_or_a_reason(served, with_bad_rows, expected, tmp_path, suffix):
    out = tmp_path / f"scores{suffix}"
    scored = score(served, with_bad_rows, out, workers=2)
    rows = read(out)
    assert [row["id"] for row in rows] == list(expected)
    for row in rows:
        assert list(row) == COLUMNS
        scores = expected[row["id"]]
        if not scores:
            assert row["error"]
            assert {row[name] for name in COLUMNS[1:-1]} == {None}
            continue
        assert row["error"] is None
        assert {label: row[f"score_{label}"] for label in scores} == pytest.approx(scores, abs=1e-5)
        assert row["score"] == row[f"score_{row['label']}"] == max(row["score_sea"], row["score_tomato"])
    assert (scored.rows, scored.resumed, scored.failed) == (len(expected), 0, 3)
    assert [identifier for identifier, _ in scored.errors] == ["lost", "broken", "empty"]
    assert only(tmp_path) == out.name


def test_all_formats_hold_the_same_rows(served, with_bad_rows, tmp_path):
    outs = [tmp_path / f"scores{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    for out in outs:
        score(served, with_bad_rows, out)
    csv_rows, *others = map(read, outs)
    assert others == [csv_rows] * 2


def test_a_parquet_file_has_a_type_for_each_column_even_if_it_is_empty(served, tmp_path):
    (tmp_path / "manifest.csv").write_text("text\nblue\n", encoding="utf-8")
    score(served, tmp_path / "manifest.csv", tmp_path / "scores.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "scores.parquet")
    assert [str(field.type) for field in schema] == ["string", "string", *["double"] * 3, "string"]


def test_labels_are_not_needed(served, tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"text": "deep water, blue"}\n{"text": "ripe fruit, red"}\n')
    score(served, tmp_path, tmp_path / "scores.csv")
    assert [row["label"] for row in read(tmp_path / "scores.csv")] == ["sea", "tomato"]


class Interruption:
    """Raises KeyboardInterrupt after `after` rows of the manifest."""

    def __init__(self, after):
        self.after = after
        self.passed = 0

    def __call__(self, rows, total, done):
        self.total, self.done = total, done
        for row in rows:
            if self.passed == self.after:
                raise KeyboardInterrupt
            self.passed += 1
            yield row


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("polymodal.model.evaluation.scores.BATCH", 2)


@pytest.mark.usefixtures("small_batches")
def test_a_resumed_run_writes_the_same_rows_as_an_uninterrupted_one(served, with_bad_rows, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "scores.jsonl"
    score(served, with_bad_rows, whole)
    with pytest.raises(Interrupted, match=r"scores\.jsonl\.part holds 4 rows, and the same command goes on from there"):
        score(served, with_bad_rows, out, watch=Interruption(after=8))
    assert not out.exists()
    again = Interruption(after=100)
    scored = score(served, with_bad_rows, out, watch=again)
    assert (again.total, again.done, again.passed) == (16, 4, 12)
    assert scored.resumed == 4
    assert read(out) == read(whole)
    assert not (tmp_path / "scores.jsonl.part").exists()


def test_a_run_that_starts_when_another_ends_keeps_its_rows(served, with_bad_rows, tmp_path, monkeypatch):
    unfinished, unlink, started = tmp_path / "scores.csv.part", Path.unlink, []

    def unlink_and_start(path, missing_ok=False):
        unlink(path, missing_ok)
        if path == unfinished and not started:
            started.append(unfinished.write_text("of the other run", encoding="utf-8"))

    monkeypatch.setattr(Path, "unlink", unlink_and_start)
    score(served, with_bad_rows, tmp_path / "scores.csv")
    assert unfinished.read_text(encoding="utf-8") == "of the other run"


@pytest.fixture
def unfinished(served, with_bad_rows, tmp_path, small_batches):
    """FILE.part of an interrupted run whose output is scores.csv."""
    with pytest.raises(KeyboardInterrupt):
        score(served, with_bad_rows, tmp_path / "scores.csv", watch=Interruption(after=10))
    return tmp_path / "scores.csv.part"


@pytest.mark.usefixtures("small_batches")
def test_equal_reasons_are_one_line_in_a_resumed_run(served, tmp_path):
    lines = ["image,text", *(f"{number}.png," for number in range(9)), ",blue"]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "scores.jsonl"
    with pytest.raises(Interrupted):
        score(served, tmp_path / "rows.csv", out, watch=Interruption(after=8))
    scored = score(served, tmp_path / "rows.csv", out)
    assert scored.resumed
    allowed = f"allowed: a file below {tmp_path.name}/"
    assert scored.faults == (f"9 × image … is not there: 1 ('0.png'), 2 ('1.png'), 3 ('2.png') and 6 more; {allowed}",)
    assert list(read(out)[0]) == COLUMNS
    assert read(out)[0]["error"] == f"image '0.png' is not there; {allowed}"


def test_an_unfinished_run_of_an_older_release_is_resumed(served, with_bad_rows, unfinished):
    header, *lines = [json.loads(line) for line in unfinished.read_text(encoding="utf-8").splitlines()]
    older = [{name: cell for name, cell in line.items() if name != "fault"} for line in lines]
    assert older != lines
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in [header, *older]), encoding="utf-8")
    scored = score(served, with_bad_rows, unfinished.with_suffix(""))
    assert len(scored.faults) == scored.failed == 3


def test_images_below_a_root_are_scored(served, manifest_folder, tmp_path):
    image = next((manifest_folder / "images").glob("*.png"))
    (tmp_path / "rows.csv").write_text(f"image\n{image}\n", encoding="utf-8")
    scored = score(served, tmp_path / "rows.csv", tmp_path / "scores.csv", roots=[manifest_folder])
    assert (scored.rows, scored.failed) == (1, 0)


def test_an_incomplete_last_line_is_scored_again(served, with_bad_rows, unfinished, expected):
    lines = unfinished.read_bytes().splitlines(keepends=True)
    unfinished.write_bytes(b"".join(lines[:-1]) + lines[-1][:7])
    out = unfinished.with_suffix("")
    scored = score(served, with_bad_rows, out)
    assert scored.resumed == len(lines) - 2  # without the header and the torn line
    assert [row["id"] for row in read(out)] == list(expected)


def test_an_incomplete_header_is_written_again(served, with_bad_rows, unfinished):
    unfinished.write_bytes(b'{"format"')
    assert score(served, with_bad_rows, unfinished.with_suffix("")).resumed == 0


def test_a_run_is_not_resumed_with_another_manifest(served, with_bad_rows, unfinished, tmp_path):
    changed = with_bad_rows.with_name("changed.csv")
    changed.write_text(with_bad_rows.read_text(encoding="utf-8").replace("blue", "azure"), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"scores\.csv\.part: started with another manifest, .*; --restart starts again"
    ):
        score(served, changed, tmp_path / "scores.csv")
    scored = score(served, changed, tmp_path / "scores.csv", restart=True)
    assert scored.resumed == 0


def test_a_run_is_not_resumed_with_another_bundle(served, with_bad_rows, unfinished, tmp_path):
    header, *lines = unfinished.read_text(encoding="utf-8").splitlines(keepends=True)
    other = {**json.loads(header), "bundle": "0" * 64}
    unfinished.write_text("".join([json.dumps(other) + "\n", *lines]), encoding="utf-8")
    with pytest.raises(ModelError, match="started with another bundle, 0000"):
        score(served, with_bad_rows, tmp_path / "scores.csv")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"precious notes\n", id="something-else"),
        pytest.param(b"notes without an end", id="no-line-end"),
        pytest.param(b"notes\nwithout an end", id="unfinished-line"),
        pytest.param(b"[]\n", id="other-json"),
    ],
)
def test_a_file_of_this_name_that_no_run_wrote_is_kept(served, with_bad_rows, tmp_path, content):
    other = tmp_path / "scores.csv.part"
    other.write_bytes(content)
    with pytest.raises(ModelError, match="not written by an interrupted run"):
        score(served, with_bad_rows, tmp_path / "scores.csv")
    assert other.read_bytes() == content


def test_a_damaged_line_is_rejected(served, with_bad_rows, unfinished):
    lines = unfinished.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"id"\n'
    unfinished.write_bytes(b"".join(lines))
    with pytest.raises(ModelError, match="line 3 is damaged; --restart starts again"):
        score(served, with_bad_rows, unfinished.with_suffix(""))


def test_an_existing_output_is_replaced_only_on_request(served, with_bad_rows, tmp_path):
    out = tmp_path / "scores.csv"
    out.write_text("hours of work", encoding="utf-8")
    with pytest.raises(ModelError, match="already exists; allowed: a new file, or --restart to replace this one"):
        score(served, with_bad_rows, out)
    assert out.read_text(encoding="utf-8") == "hours of work"
    score(served, with_bad_rows, out, restart=True)
    assert len(read(out)) == 16


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("scores.xlsx", r"format '\.xlsx'; allowed: \.csv, \.jsonl, \.parquet", id="unknown"),
        pytest.param("scores", r"format '\(none\)'", id="none"),
    ],
)
def test_an_output_in_an_unknown_format_is_rejected_before_the_work(served, with_bad_rows, tmp_path, name, problem):
    with pytest.raises(ModelError, match=problem):
        score(served, with_bad_rows, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_output_is_removed_and_the_finished_rows_are_kept(served, with_bad_rows, unfinished, monkeypatch):
    out = unfinished.with_suffix("")

    def fail(path, rows, names):
        path.write_text(f"{next(iter(rows))['id']}", encoding="utf-8")
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setitem(WRITERS, ".csv", fail)
        with pytest.raises(OSError, match="No space left"):
            score(served, with_bad_rows, out)
    assert only(out.parent) == unfinished.name
    assert score(served, with_bad_rows, out).resumed == 16


def test_cells_that_csv_quotes_are_read_back(served, tmp_path):
    names = ['a "quoted", id', "line\nbreak", "carriage\rreturn"]
    lines = [json.dumps({"id": name, "text": "blue"}) for name in names]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    score(served, tmp_path, tmp_path / "scores.csv")
    assert [row["id"] for row in read(tmp_path / "scores.csv")] == names


def test_formulas_are_escaped_in_csv_only(tmp_path):
    names = ("id", "label", "score", "score_=1", "error")
    row = dict(zip(names, ("=1+1", "@SUM(A1)", -0.5, None, "-1: no picture"), strict=True))
    for suffix, write in WRITERS.items():
        write(tmp_path / f"scores{suffix}", iter([row]), names)
    lines = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["id,label,score,score_=1,error", "'=1+1,'@SUM(A1),-0.5,,'-1: no picture"]
    assert json.loads((tmp_path / "scores.jsonl").read_text(encoding="utf-8")) == row
    assert pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist() == [row]


def test_a_run_with_formulas_as_ids_is_resumed(served, tmp_path, small_batches):
    ids = ["=1+1", "-7", "@x", "'=1", *"abcdefghijkl"]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps({"id": name, "text": "blue"}) for name in ids))
    with pytest.raises(Interrupted):
        score(served, tmp_path, tmp_path / "scores.csv", watch=Interruption(after=10))
    assert score(served, tmp_path, tmp_path / "scores.csv").resumed > 0
    written = [row["id"] for row in read(tmp_path / "scores.csv")]
    assert written == ["'=1+1", "'-7", "'@x", "''=1", *"abcdefghijkl"]


def test_a_table_of_a_spreadsheet_is_scored_with_warnings_first(served, tmp_path):
    (tmp_path / "new.csv").write_bytes("Text;mood\r\ngrün, deep water;calm\r\nripe fruit;\r\n;\r\n".encode("cp1252"))
    reported = []
    scored = score(served, tmp_path / "new.csv", tmp_path / "scores.csv", warn=reported.extend)
    assert scored.warnings == tuple(reported)
    assert reported == [
        "new.csv: read as Windows-1252 (line 2: 'grün'), separated by semicolons",
        "unknown column 'mood' is ignored; allowed: id, image, text, audio, label, group, split, source, licence",
    ]
    assert [row["label"] for row in read(tmp_path / "scores.csv")] == ["sea", "tomato"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_row_gets_a_vector_for_each_of_its_inputs_or_a_reason(served, with_bad_rows, expected, tmp_path, suffix):
    out = tmp_path / f"vectors{suffix}"
    written = embed(served, with_bad_rows, out, workers=2)
    rows = read(out)
    assert written.rows == len(rows) == len(expected)
    names = [spec.name for spec in served.description.inputs]
    for row in rows:
        assert list(row) == ["id", *names, "error"]
        vectors = [json.loads(row[name]) if isinstance(row[name], str) else row[name] for name in names if row[name]]
        assert bool(vectors) != bool(row["error"])
        assert bool(vectors) == bool(expected[row["id"]])
        for vector in vectors:
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_run_is_not_resumed_by_another_task(served, with_bad_rows, tmp_path):
    out = tmp_path / "out.jsonl"

    def stop(rows, total, done):
        yield next(rows)
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        embed(served, with_bad_rows, out, watch=stop)
    with pytest.raises(ModelError, match="started with another task, embed; this one is score"):
        score(served, with_bad_rows, out)
    assert embed(served, with_bad_rows, out).rows == len(read(out))
