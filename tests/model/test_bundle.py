"""A bundle is complete, unaltered and of a known format, or it is rejected with the reason."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from polymodal.model import BundleError, load_bundle
from polymodal.model.bundle import compress_weights, decompress_weights, halve_weights, read_bundle, write_bundle
from polymodal.model.config import ROW_SETS, BundleConfig, sets_to_measure, subset_key, subsets, upgraded
from polymodal.model.targets.regression.scoring import Regression

FILES = (
    "README.md",
    "config.json",
    "golden.json",
    "onnx/head.onnx",
    "onnx/image.int8.onnx",
    "onnx/image.onnx",
    "onnx/text.int8.onnx",
    "onnx/text.onnx",
    "report.json",
    "tokenizer.json",
    "weights.safetensors",
)


def rewrite(folder, file, change):
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(change(content)), encoding="utf-8")


def with_network(**changed):
    return lambda config: {**config, "network": {**config["network"], **changed}}


def with_encoder(modality, **changed):
    def change(config):
        config["network"]["modalities"][modality]["encoder"] |= changed
        return config

    return change


def change_weights(folder, change):
    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")


def write(bundle, folder, **changed):
    """Write a bundle with the inputs and the config of another one, and with nothing else unless it is `changed`."""
    empty = {"weights": {}, "graphs": {}, "report": {}, "golden": [], "card": ""}
    write_bundle(folder, **{"config": bundle.config, "inputs": bundle.inputs, **empty, **changed})


# --- content ---


def test_a_bundle_has_the_documented_files_and_no_pickle(tiny_bundle):
    files = [path for path in tiny_bundle.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tiny_bundle).as_posix() for path in files) == sorted((*FILES, "SHA256SUMS"))
    assert [path for path in files if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04")] == []


def test_every_user_may_read_a_bundle(tiny_bundle):
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in tiny_bundle.rglob("*"))


def test_a_bundle_is_read_with_its_config_inputs_and_golden_inputs(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    assert bundle.config.name == "shapes"
    assert bundle.config.network.order == ("image", "text")
    assert bundle.config.network.labels == ("sea", "tomato")
    assert set(bundle.config.temperatures) == {"image+text", "image", "text"}
    assert list(bundle.inputs) == ["image", "text"]
    assert len(bundle.digest) == 64
    assert bundle.files == set(FILES)
    assert "# shapes" in bundle.card
    assert {frozenset(golden["parts"]) for golden in bundle.golden} == {
        frozenset({"image"}),
        frozenset({"text"}),
        frozenset({"image", "text"}),
    }


def test_writing_a_bundle_that_was_read_gives_the_same_bundle(tiny_bundle, tmp_path):
    bundle = read_bundle(tiny_bundle)
    copy = tmp_path / "copy"
    write(
        bundle,
        copy,
        weights=compress_weights(bundle.read_weights()),
        graphs={name: bundle.graph(name) for name in ("image", "image.int8", "text", "text.int8", "head")},
        report=bundle.report,
        golden=list(bundle.golden),
        card=bundle.card,
    )
    assert read_bundle(copy).digest == bundle.digest
    assert list(tmp_path.iterdir()) == [copy]  # no temporary folder remains


def test_the_digest_changes_with_a_file(bundle_copy, seal):
    before = read_bundle(bundle_copy).digest
    (bundle_copy / "README.md").write_text("# another card\n", encoding="utf-8")
    seal(bundle_copy)
    assert read_bundle(bundle_copy).digest != before


def test_files_that_are_not_listed_do_not_belong_to_a_bundle(bundle_copy):
    before = read_bundle(bundle_copy).digest
    (bundle_copy / ".DS_Store").write_bytes(b"whatever")
    (bundle_copy / "onnx/sound.onnx").write_bytes(b"whatever")
    bundle = read_bundle(bundle_copy)
    assert bundle.digest == before
    assert bundle.graph("sound") is None


# --- format 2 ---


def as_format_2(config):
    """Return the config.json as the release before format 3 wrote it."""
    network = {("task" if key == "target" else key): value for key, value in config["network"].items()}
    older = {key: value for key, value in config.items() if key not in ("kind", "fallback")}
    return {**older, "format": 2, "network": network}


def test_a_bundle_of_format_2_scores_as_the_same_bundle_of_format_3(tiny_bundle, bundle_copy, seal):
    rewrite(bundle_copy, "config.json", as_format_2)
    seal(bundle_copy)
    written = json.loads((tiny_bundle / "config.json").read_text(encoding="utf-8"))
    assert (written["format"], written["kind"], written["fallback"]) == (3, "network", "nearest")
    assert written["network"]["target"] == "single-label"
    before = read_bundle(bundle_copy).digest
    newer, older = (load_bundle(folder, threads=1) for folder in (tiny_bundle, bundle_copy))
    older.warm_up()
    for golden in read_bundle(tiny_bundle).golden:
        assert older.predict_golden(golden).scores == newer.predict_golden(golden).scores
    assert older.description.target == "single-label"
    assert read_bundle(bundle_copy).config.fallback == "none"
    assert read_bundle(bundle_copy).digest == before  # reading rewrites nothing


def test_a_regression_of_format_2_still_has_no_fallback_for_intervals():
    network = {
        "modalities": {name: {"input": {}, "encoder": {"name": "none"}} for name in ("image", "text")},
        "width": 2,
        "fusion": "sum",
        "task": "regression",
        "labels": [],
        "scale": {"mean": 0, "std": 1},
    }
    content = {"format": 2, "name": "prices", "network": network, "half_widths": {"image": 5.0}}
    older = BundleConfig.model_validate(upgraded(content))
    newer = older.model_copy(update={"fallback": "nearest"})
    logits = np.zeros((2, 1), dtype=np.float32)
    lows = [Regression.of(config).scores(logits, ["image", "text"])[:, 1].tolist() for config in (older, newer)]
    assert lows[0] == pytest.approx([-5, np.nan], nan_ok=True)
    assert lows[1] == [-5, -5]


# --- rejected bundles ---


@pytest.mark.parametrize("file", FILES)
def test_an_altered_or_missing_file_is_named(bundle_copy, file):
    content = bytearray((bundle_copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / file).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{file} was altered"):
        load_bundle(bundle_copy)
    (bundle_copy / file).unlink()
    with pytest.raises(BundleError, match=rf"{file} is missing, though SHA256SUMS lists it"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("onnx/")])
def test_a_required_file_must_be_listed(bundle_copy, seal, file):
    (bundle_copy / file).unlink()
    seal(bundle_copy)
    with pytest.raises(BundleError, match=rf"{file} is missing"):
        load_bundle(bundle_copy)


def test_an_unlisted_file_is_not_used(bundle_copy, seal):
    for file in ("tokenizer.json", "onnx/text.onnx"):
        sums = (bundle_copy / "SHA256SUMS").read_text(encoding="utf-8").splitlines(keepends=True)
        (bundle_copy / "SHA256SUMS").write_text("".join(line for line in sums if file not in line), encoding="utf-8")
        with pytest.raises(BundleError, match=rf"{file} is missing"):
            load_bundle(bundle_copy, runtime="onnx")
        seal(bundle_copy)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("{digest}  ../secret", id="parent"),
        pytest.param("{digest}  onnx/../../secret", id="parent-inside"),
        pytest.param("{digest}  /etc/passwd", id="absolute"),
        pytest.param("{digest} config.json", id="one-space"),
        pytest.param("{digest}  ", id="no-name"),
        pytest.param("abc  config.json", id="short-digest"),
        pytest.param("", id="empty-line"),
        pytest.param("\ufffd", id="not-utf-8"),
    ],
)
def test_a_forged_list_of_digests_is_rejected(bundle_copy, line):
    (bundle_copy.parent / "secret").write_text("secret", encoding="utf-8")
    with (bundle_copy / "SHA256SUMS").open("a", encoding="utf-8") as file:
        file.write(line.format(digest="0" * 64) + "\n")
    with pytest.raises(BundleError, match="line 12 of SHA256SUMS is not"):
        load_bundle(bundle_copy)


def test_a_file_that_cannot_be_read_is_named(bundle_copy):
    with (bundle_copy / "SHA256SUMS").open("a", encoding="utf-8") as file:
        file.write(f"{'0' * 64}  {'x' * 300}\n")
    with pytest.raises(BundleError, match=r"x{300}(: cannot be read: File name too long| is missing)"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "file"])
def test_a_place_without_a_bundle_is_rejected(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "empty folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("words", encoding="utf-8")
    with pytest.raises(BundleError, match="expected a bundle written by `polymodal train`"):
        load_bundle(place)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(
            lambda config: {**config, "format": 1}, "has format 1; this release reads formats 2 and 3", id="version"
        ),
        pytest.param(lambda config: {**config, "format": None}, "has format None", id="no-version"),
        pytest.param(lambda config: [config], "has format None", id="a-list"),
        pytest.param(lambda config: {**config, "more": 1}, "more: Extra inputs", id="unknown-field"),
        pytest.param(lambda config: {**config, "name": "a/b"}, "name: String should match", id="name"),
        pytest.param(
            lambda config: {**config, "temperatures": {}}, "no temperature; allowed: one", id="no-temperature"
        ),
        pytest.param(
            lambda config: {**config, "temperatures": {"image": 1.0}, "fallback": "none"},
            "no temperature for image+text, text",
            id="no-temperature-and-no-fallback",
        ),
        pytest.param(
            lambda config: {**config, "temperatures": {"text+image": 1.0, "image": 1.0}},
            "a temperature for text+image; allowed: sets of image, text",
            id="an-unknown-set",
        ),
        pytest.param(lambda config: {**config, "fallback": "best"}, "fallback: Input should be", id="fallback"),
        pytest.param(
            lambda config: {**config, "temperatures": {**config["temperatures"], "image": 0}},
            "temperatures.image: Input should be greater than 0",
            id="temperature-zero",
        ),
        pytest.param(with_network(labels=["one"]), "network.labels", id="one-label"),
        pytest.param(
            with_network(target="sorting"), "network.target: 'sorting' is not known; known are", id="unknown-target"
        ),
        pytest.param(
            with_network(target="multi-label"),
            "calibrated by temperatures; allowed for multi-label: temperatures, thresholds",
            id="no-thresholds",
        ),
        pytest.param(
            lambda config: with_network(target="multi-label")({**config, "thresholds": {"sea": 0.5}}),
            "no threshold for tomato",
            id="a-threshold-too-few",
        ),
        pytest.param(
            lambda config: {**config, "thresholds": {"sea": 0.5, "tomato": 0.5}},
            "calibrated by temperatures, thresholds; allowed for single-label: temperatures",
            id="unused-thresholds",
        ),
        pytest.param(
            with_network(target="regression"),
            "network.labels: 2 labels; allowed for regression: none",
            id="labels",
        ),
        pytest.param(
            with_network(target="regression", labels=[]), "no scale; allowed: one for regression", id="no-scale"
        ),
        pytest.param(
            with_network(target="regression", labels=[], scale={"mean": 1, "std": 0}),
            "network.scale.std",
            id="scale-of-zero",
        ),
        pytest.param(
            with_network(scale={"mean": 1, "std": 2}), "scale; allowed: one for regression", id="unused-scale"
        ),
        pytest.param(with_network(modalities={}), "network.modalities", id="no-modalities"),
        pytest.param(
            lambda config: json.loads(json.dumps(config).replace('"text"', '"sound"').replace("+text", "+sound")),
            "config.json names sound; known are image, text",
            id="unknown-modality",
        ),
    ],
)
def test_an_invalid_config_is_rejected_with_the_reason(bundle_copy, seal, change, problem):
    rewrite(bundle_copy, "config.json", change)
    seal(bundle_copy)
    with pytest.raises(BundleError, match=re.escape(problem)):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("file", ["config.json", "report.json", "golden.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"words"], ids=["cut", "empty", "not-utf-8", "words"])
def test_broken_json_is_named(bundle_copy, seal, file, content):
    (bundle_copy / file).write_bytes(content)
    seal(bundle_copy)
    with pytest.raises(BundleError, match=rf"{file} is not JSON"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("setting", [{"max_tokens": "many"}, {"more": 1}], ids=["wrong-type", "unknown-setting"])
def test_invalid_settings_of_an_input_are_rejected(bundle_copy, seal, setting):
    def change_text(config):
        config["network"]["modalities"]["text"]["input"] |= setting
        return config

    rewrite(bundle_copy, "config.json", change_text)
    seal(bundle_copy)
    with pytest.raises(BundleError, match="preprocessing cannot be set up"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("content", [b"{}", b"words"])
def test_a_broken_tokenizer_is_rejected(bundle_copy, seal, content):
    (bundle_copy / "tokenizer.json").write_bytes(content)
    seal(bundle_copy)
    with pytest.raises(BundleError, match="preprocessing cannot be set up"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(with_encoder("image", name="abacus"), "abacus", id="unknown-encoder"),
        pytest.param(with_encoder("image", options={"abacus": 1}), "abacus", id="unknown-option"),
        pytest.param(with_network(fusion="confusion"), "confusion", id="unknown-fusion"),
    ],
)
def test_a_network_that_torch_cannot_build_is_rejected(bundle_copy, seal, change, named):
    rewrite(bundle_copy, "config.json", change)
    seal(bundle_copy)
    with pytest.raises(BundleError, match=named):
        load_bundle(bundle_copy, runtime="torch")


def test_an_unknown_runtime_is_rejected(tiny_bundle):
    with pytest.raises(BundleError, match="runtime 'abacus' is not known; known are auto, onnx-int8, onnx, torch"):
        load_bundle(tiny_bundle, runtime="abacus")


def test_a_runtime_that_is_not_installed_is_rejected(tiny_bundle, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BundleError, match="needs the package onnxruntime, which is not installed"):
        load_bundle(tiny_bundle)


# --- weights ---

WEIGHT = "head.classify.1.weight"


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda weights: weights.update({WEIGHT: weights[WEIGHT][:, :3].copy()}), id="too-few"),
        pytest.param(lambda weights: weights.update({WEIGHT: np.zeros((99, 999), np.float16)}), id="too-many"),
        pytest.param(lambda weights: weights.update({WEIGHT: weights[WEIGHT].T.copy()}), id="transposed"),
        pytest.param(lambda weights: weights.update({WEIGHT: np.zeros((), np.float32)}), id="scalar"),
        pytest.param(lambda weights: weights.pop(WEIGHT), id="missing"),
        pytest.param(lambda weights: weights.update(more=np.zeros(3, np.float32)), id="one-more"),
        pytest.param(
            lambda weights: weights.update(
                {"encoders.text.embed.weight": weights["encoders.text.embed.weight"][:2].copy()}
            ),
            id="smaller-vocabulary",
        ),
        pytest.param(lambda weights: weights.clear(), id="none"),
    ],
)
def test_weights_of_another_network_are_rejected(bundle_copy, seal, change, runtime):
    change_weights(bundle_copy, change)
    seal(bundle_copy)
    with pytest.raises(BundleError):
        load_bundle(bundle_copy, runtime=runtime, threads=1)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize("content", [b"", b"words", b"\xff" * 100], ids=["empty", "words", "huge-header"])
def test_broken_weights_are_rejected(bundle_copy, seal, content, runtime):
    (bundle_copy / "weights.safetensors").write_bytes(content)
    seal(bundle_copy)
    with pytest.raises(BundleError, match=r"weights\.safetensors cannot be read"):
        load_bundle(bundle_copy, runtime=runtime)


@pytest.mark.parametrize("content", [b"", b"words"], ids=["empty", "words"])
def test_a_broken_graph_is_rejected(bundle_copy, seal, content):
    (bundle_copy / "onnx/head.onnx").write_bytes(content)
    seal(bundle_copy)
    with pytest.raises(BundleError, match=r"onnx/head\.onnx cannot be used"):
        load_bundle(bundle_copy, runtime="onnx")


def test_a_bundle_without_graphs_is_served_by_torch(bundle_copy, seal):
    shutil.rmtree(bundle_copy / "onnx")
    seal(bundle_copy)
    with pytest.raises(BundleError, match=r"onnx/image\.onnx is missing; export the bundle or serve it with torch"):
        load_bundle(bundle_copy, runtime="onnx")
    predictor = load_bundle(bundle_copy, threads=1)
    predictor.warm_up()
    assert predictor.description.runtime == "torch"


def test_matrices_are_stored_as_float16_and_vectors_as_float32():
    weights = {"matrix": np.full((2, 2), 0.1, np.float32), "vector": np.full(2, 0.1, np.float32)}
    stored = compress_weights(weights)
    assert {name: array.dtype for name, array in stored.items()} == {"matrix": np.float16, "vector": np.float32}
    assert stored["matrix"] == pytest.approx(weights["matrix"], rel=1e-3)
    assert (stored["vector"] == weights["vector"]).all()


def test_large_matrices_are_stored_in_8_bits_within_half_a_step():
    matrix = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    matrix[1] *= 1000.0
    matrix[2] = 0.0
    stored = compress_weights({"matrix": matrix, "smaller": matrix[:255]})
    assert {name: array.dtype for name, array in stored.items()} == {
        "matrix": np.int8,
        "matrix.scale": np.float32,
        "smaller": np.float16,
    }
    decompressed = decompress_weights(stored)
    assert set(decompressed) == {"matrix", "smaller"}
    assert decompressed["matrix"].dtype == np.float32
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(decompressed["matrix"] - matrix) <= 0.5001 * step).all()


def test_an_8_bit_matrix_without_its_scales_is_rejected():
    stored = compress_weights({"matrix": np.ones((256, 256), np.float32)})
    del stored["matrix.scale"]
    with pytest.raises(BundleError, match=r"matrix is stored in 8 bits, but matrix\.scale is missing"):
        decompress_weights(stored)


def test_weights_are_stored_in_any_memory_layout(tiny_bundle, tmp_path):
    weight = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    channels_last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not channels_last.flags.c_contiguous
    weights = {"usual": weight, "channels last": channels_last, "number": np.float32(1) + np.zeros((), np.float32)}
    write(read_bundle(tiny_bundle), tmp_path / "out", weights=compress_weights(weights))
    stored = read_bundle(tmp_path / "out").read_weights()
    assert (stored["usual"] == weight).all()
    assert (stored["channels last"] == weight).all()
    assert stored["number"].shape == ()


@pytest.mark.parametrize(("value", "side"), [(70_000.0, 1), (np.inf, 1), (np.nan, 1), (np.inf, 256), (np.nan, 256)])
def test_a_weight_that_cannot_be_stored_is_rejected(value, side):
    with (
        pytest.raises(BundleError, match=r"not finite in the precision of a bundle: matrix$"),
        np.errstate(over="ignore"),
    ):
        compress_weights({"matrix": np.full((side, side), value, np.float32), "vector": np.ones(1, np.float32)})


def test_weights_are_read_as_float32(tiny_bundle):
    assert {array.dtype.name for array in read_bundle(tiny_bundle).read_weights().values()} == {"float32"}


# --- writing ---


@pytest.mark.parametrize("file", ["place", "place/thesis.txt"], ids=["file", "folder of something else"])
def test_files_that_are_no_bundle_are_never_replaced(tiny_bundle, tmp_path, file):
    precious = tmp_path / file
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("years of work", encoding="utf-8")
    with pytest.raises(BundleError, match="allowed: a new or empty folder, or an older bundle"):
        write(read_bundle(tiny_bundle), tmp_path / "place")
    assert precious.read_text(encoding="utf-8") == "years of work"


def test_an_older_bundle_is_replaced(bundle_copy):
    bundle = read_bundle(bundle_copy)
    write(bundle, bundle_copy, weights=bundle.read_weights(), card="# newer\n")
    newer = read_bundle(bundle_copy)
    assert newer.card == "# newer\n"
    assert newer.graph("head") is None


# --- config ---


def test_sets_of_modalities_are_named_in_the_networks_order():
    assert subsets(("image", "text")) == ("image+text", "image", "text")
    assert subsets(("text",)) == ("text",)
    assert len(subsets(("a", "b", "c"))) == 7
    assert subset_key({"text", "image"}, ("image", "text")) == "image+text"
    assert {subset_key(set(key.split("+")), ("c", "a", "b")) for key in subsets(("c", "a", "b"))} == set(
        subsets(("c", "a", "b"))
    )


@pytest.mark.parametrize("order", [("image",), ("image", "text")], ids=["one", "two"])
def test_every_set_of_one_or_two_modalities_is_measured(order):
    assert sets_to_measure(order, ()) == subsets(order)
    assert sets_to_measure(order, [frozenset(order), frozenset()]) == subsets(order)


def test_for_many_modalities_all_together_each_alone_and_the_most_frequent_sets_are_measured():
    order = tuple("abcdefgh")
    rows = [frozenset("gh")] * 2 + [frozenset(key.split("+")) for key in subsets(order)]
    keys = sets_to_measure(order, [*rows, frozenset("xyz")])
    assert keys[0] == "+".join(order)
    assert set(order) <= set(keys)
    assert "g+h" in keys
    assert len(keys) <= 1 + len(order) + ROW_SETS
    assert sets_to_measure(("a", "b", "c"), [frozenset("ca"), frozenset("c")]) == ("a+b+c", "a+c", "a", "b", "c")


def test_a_config_is_equal_after_writing_and_reading(tiny_bundle):
    config = read_bundle(tiny_bundle).config
    assert BundleConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("older", [True, False], ids=["older-bundle", "new-folder"])
def test_a_bundle_that_fails_its_verification_is_removed(bundle_copy, tmp_path, older):
    bundle = read_bundle(bundle_copy)
    out = bundle_copy if older else tmp_path / "new"

    def reject(folder):
        read_bundle(folder)
        raise BundleError(f"{folder}: contradicts itself")

    with pytest.raises(BundleError) as caught:
        write(bundle, out, weights=bundle.read_stored(), verify=reject)
    assert str(caught.value) == f"{out}: contradicts itself"
    assert list(tmp_path.iterdir()) == [bundle_copy]
    assert read_bundle(bundle_copy).digest == bundle.digest


def test_weights_are_halved_only_where_nothing_is_lost():
    exact = np.asarray([[1.0, 0.5, -65504.0]], np.float32)
    finer, larger = np.asarray([0.1], np.float32), np.asarray([1e6], np.float32)
    stored = halve_weights({"exact": exact, "finer": finer, "larger": larger})
    assert {name: array.dtype.name for name, array in stored.items()} == {
        "exact": "float16",
        "finer": "float32",
        "larger": "float32",
    }
    for name, array in {"exact": exact, "finer": finer, "larger": larger}.items():
        np.testing.assert_array_equal(stored[name], array)
