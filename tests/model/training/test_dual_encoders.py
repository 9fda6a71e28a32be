"""Imported dual encoders have the vectors that transformers compute, and need nothing of transformers when they are served."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from polymodal.model import BundleError, Sample, load_bundle, tasks_of
from polymodal.model.bundle import read_bundle, read_kind
from polymodal.model.config import EncodersConfig
from polymodal.model.errors import ModelError
from polymodal.model.modalities import hub
from polymodal.model.modalities.text.towers import read_tower
from polymodal.model.modalities.towers import read_dual_encoder
from polymodal.model.runtimes.onnx_runtime import OnnxRuntime
from polymodal.model.training import export, import_encoders
from polymodal.model.training.dual_encoders import licence_of
from tests.bundle_files import update_sums
from tests.in_process import serving
from tests.media import saved

CLOSE = 1e-4
TEXTS = ["a red boat", "The LAKE, a cat", "Käse ☕", "words " * 30, "two"]
SIZES = [(32, 32), (36, 50), (200, 31), (5, 7), (1, 1), (640, 480), (500, 33)]


def png(size, seed=0):
    """A PNG of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return saved(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


IMAGES = [png(size, seed) for seed, size in enumerate(SIZES)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@torch.no_grad()
def theirs(folder):
    """The vectors of TEXTS and IMAGES as transformers compute them from the folder."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([Image.open(io.BytesIO(image)) for image in IMAGES], return_tensors="pt")
    texts, images = model.get_text_features(**tokens), model.get_image_features(**pixels)
    return {name: unit(output.pooler_output.numpy()) for name, output in (("text", texts), ("image", images))}


@pytest.fixture
def copy(dual_encoder, tmp_path):
    """A model folder that may be changed."""
    return shutil.copytree(dual_encoder[0], tmp_path / "model")


def change(folder, file, **changes):
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**content, **changes}), encoding="utf-8")


async def test_a_service_has_the_vectors_of_transformers(dual_encoder):
    folder, bundle = dual_encoder
    expected = theirs(folder)
    contents = [("text", text.encode(), "text/plain") for text in TEXTS]
    contents += [("image", image, "image/png") for image in IMAGES]
    async with serving(bundle) as client:
        (model,) = (await client.get("/v1/models")).json()["models"]
        assert model["kind"] == "encoders"
        assert model["tasks"] == ["embed"]
        assert model["embeddings"]["spaces"] == {"aligned": expected["text"].shape[1]}
        assert model["embeddings"]["matches"] == model["labels"] == []
        assert model.get("target") is None
        got = {"text": [], "image": []}
        for modality, content, media_type in contents:
            file = {modality: (None if modality == "text" else "x.png", content, media_type)}
            answer = (await client.post("/v1/embed", files=file)).json()
            assert (answer["space"], answer["aligned"]) == ("aligned", True)
            got[modality].append(answer["embeddings"][modality])
        refused = await client.post("/v1/classify", json={"text": "a boat"})
    for modality, vectors in expected.items():
        np.testing.assert_allclose(got[modality], vectors, atol=CLOSE, rtol=0)
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_task")
    assert "embed" in refused.json()["detail"]


def test_a_batch_has_the_vectors_of_single_items(dual_encoder):
    model = load_bundle(dual_encoder[1], threads=1)
    samples = [model.prepare({"text": text, "image": image}) for text, image in zip(TEXTS, IMAGES, strict=False)]
    together = model.embed(samples)
    for number, sample in enumerate(samples):
        alone = model.embed([sample])
        for name, rows in together.items():
            np.testing.assert_array_equal(rows[number], alone[name][0])
    absent = model.embed([Sample({"text": samples[0].arrays["text"]})])["image"]
    assert not absent.any()


def test_a_bundle_states_origin_licence_and_limits(dual_encoder):
    folder, bundle = dual_encoder
    description = load_bundle(bundle, threads=1).description
    report = description.report
    assert report["source"] == folder.name
    assert report["family"] in ("clip", "siglip")
    assert report["licence"] == ("mit" if report["family"] == "clip" else "not stated")
    assert report["comparison"]["logit_scale"] > 0
    assert ("logit_bias" in report["comparison"]) == (report["family"] == "siglip")
    for words in (
        f"licence, as its own\ncard states it: {report['licence']}",
        "a cosine is not a probability",
        "no `match`",
    ):
        assert words in description.card.lower()
    assert tasks_of(description) == ("embed",)
    assert str(folder.parent) not in "".join(
        (bundle / file).read_text(encoding="utf-8") for file in ("config.json", "report.json", "README.md")
    )


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        pytest.param("---\nlicense: apache-2.0\n---\n# Card", "apache-2.0", id="name"),
        pytest.param("---\nlicense:\n- mit\nlanguage: en\n---\n", "mit", id="list"),
        pytest.param("---\nlicense: other\nlicense_name: 'own terms'\n---\n", "other, own terms", id="own-name"),
        pytest.param("# Card\nlicense: mit", "not stated", id="not-in-the-metadata"),
        pytest.param("---\ntags: [a]\n---\n", "not stated", id="without"),
    ],
)
def test_a_licence_is_read_from_the_metadata_of_the_card(tmp_path, card, licence):
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert licence_of(tmp_path) == licence


def test_weights_are_stored_without_loss(dual_encoder):
    stored = read_kind(dual_encoder[1], EncodersConfig).read_stored()
    original = load_file(dual_encoder[0] / "model.safetensors")
    assert stored
    for name, array in stored.items():
        torch.testing.assert_close(
            torch.from_numpy(array).float(), original[name.split("model.", 1)[1]], atol=0, rtol=0
        )


def test_a_wrong_weight_is_noticed_before_serving(dual_encoder, monkeypatch):
    model = load_bundle(dual_encoder[1], threads=1)
    encode = OnnxRuntime.encode
    monkeypatch.setattr(OnnxRuntime, "encode", lambda self, name, batch: encode(self, name, batch) + np.float32(0.1))
    with pytest.raises(BundleError, match=r"golden input 1 is .* away from what the bundle recorded; allowed: 0\.02"):
        model.warm_up()


def test_another_vocabulary_is_noticed_before_serving(dual_encoder, tmp_path):
    bundle = shutil.copytree(dual_encoder[1], tmp_path / "bundle")
    tokenizer = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = ("a</w>", "o</w>") if "a</w>" in vocabulary else ("a", "of")
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (bundle / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    update_sums(bundle)
    with pytest.raises(BundleError, match="away from what the bundle recorded"):
        load_bundle(bundle, threads=1).warm_up()


@pytest.mark.parametrize("runtime", ["torch", "onnx-int8"])
def test_a_runtime_that_cannot_serve_it_is_named(dual_encoder, runtime):
    if runtime == "torch":
        with pytest.raises(BundleError, match="runtime torch; allowed for a model of kind encoders: auto or onnx"):
            load_bundle(dual_encoder[1], runtime=runtime, threads=1)
    else:  # without graphs in 8 bits it computes in float32
        load_bundle(dual_encoder[1], runtime=runtime, threads=1).warm_up()


def test_commands_about_networks_name_the_kind(dual_encoder, tmp_path):
    with pytest.raises(BundleError, match="a model of kind 'encoders'; allowed here: network"):
        read_bundle(dual_encoder[1])
    with pytest.raises(BundleError, match="a model of kind 'encoders'; allowed here: network"):
        export(dual_encoder[1], tmp_path / "out", work=tmp_path)


# --- folders that cannot be imported ---


def refused(folder, tmp_path, problem):
    with pytest.raises(ModelError, match=problem):
        import_encoders(str(folder), tmp_path / "out", cache=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        pytest.param(
            "config.json", {"model_type": "bert"}, "a model of type 'bert'; allowed: clip, siglip", id="family"
        ),
        pytest.param(
            "config.json", {"model_type": None}, "a model of type None; allowed: clip, siglip", id="no-family"
        ),
        pytest.param("preprocessor_config.json", {"do_rescale": False}, "not scaled to 0 … 1", id="scale"),
        pytest.param("preprocessor_config.json", {"do_resize": False}, "not resized", id="size"),
        pytest.param(
            "preprocessor_config.json",
            {"size": {"height": 40, "width": 48}},
            "allowed: shortest_edge, or height and width that are equal",
            id="not-square",
        ),
        pytest.param(
            "preprocessor_config.json",
            {"size": {"height": 40, "width": 40}, "crop_size": {"height": 40, "width": 40}},
            "images of 40 × 40 px; the model takes 32 × 32",
            id="side",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_explained(copy, tmp_path, file, changes, problem):
    change(copy, file, **changes)
    refused(copy, tmp_path, problem)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        pytest.param("config.json", "config.json is missing", id="config"),
        pytest.param(
            "model.safetensors", "safetensors is missing; weights in other formats are not read", id="weights"
        ),
        pytest.param(
            "tokenizer.json", "tokenizer.json is missing; a tokenizer of Python code can't be packed", id="tokenizer"
        ),
        pytest.param("preprocessor_config.json", "not a model that transformers can load", id="preprocessing"),
    ],
)
def test_a_missing_file_is_named(copy, tmp_path, file, problem):
    (copy / file).unlink()
    refused(copy, tmp_path, problem)


def test_a_tokenizer_of_python_code_is_replaced_by_tokenizer_json(copy):
    change(copy, "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    tower = read_tower(read_dual_encoder(str(copy), copy))
    ids = Tokenizer.from_file(str(copy / "tokenizer.json")).encode("a red cat").ids
    assert tower.input.preprocess("a red cat").tolist() == ids
    assert tower.reference(["a red cat"]).shape[0] == 1


def test_texts_that_are_padded_on_the_left_are_refused(copy):
    change(copy, "tokenizer_config.json", padding_side="left")
    dual = read_dual_encoder(str(copy), copy)
    if dual.family == "clip":  # never looks at padding
        read_tower(dual)
    else:
        with pytest.raises(ModelError, match="texts are padded on the left; allowed: right"):
            read_tower(dual)


def test_missing_weights_are_named(copy, tmp_path):
    weights = load_file(copy / "model.safetensors")
    del weights["text_model.final_layer_norm.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, tmp_path, "no weights for text_model.final_layer_norm.weight")


def test_weights_that_are_not_finite_are_refused(copy, tmp_path):
    weights = load_file(copy / "model.safetensors")
    weights["text_model.final_layer_norm.weight"][0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, tmp_path, "not finite")


def test_a_missing_folder_is_an_error(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "no such folder; expected a model's folder")


def test_a_folder_with_other_files_is_not_overwritten(dual_encoder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match="holds files that are no bundle"):
        import_encoders(str(dual_encoder[0]), tmp_path / "out", cache=tmp_path)
    assert (tmp_path / "out/notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_name_that_no_model_can_have_is_an_error(dual_encoder, tmp_path):
    with pytest.raises(ModelError, match="name: 'My Model'; allowed: lower-case letters"):
        import_encoders(str(dual_encoder[0]), tmp_path / "out", name="My Model", cache=tmp_path)


def test_only_data_files_are_downloaded_from_the_hub(tmp_path, monkeypatch):
    calls = []

    def download(name, *, cache_dir, allow_patterns):
        calls.append((name, cache_dir, allow_patterns))
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(ModelError, match="hf://owner/name: could not be downloaded: no route to host"):
        import_encoders("hf://owner/name", tmp_path / "out", cache=tmp_path)
    assert calls == [("owner/name", tmp_path / "hub", ["*.json", "model*.safetensors", "README.md"])]
