"""Model folders of other libraries become bundles, or errors that name what is missing. The models are tiny and random."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from polymodal.model import load_bundle
from polymodal.model.bundle import read_bundle
from polymodal.model.errors import ModelError
from polymodal.model.modalities import hub
from polymodal.model.modalities.branch import BranchOptions
from polymodal.model.modalities.image.encoders import ENCODERS as IMAGE_ENCODERS
from polymodal.model.modalities.text.vocabulary import train_tokenizer
from polymodal.model.network import encoders_of
from polymodal.model.training import train
from polymodal.model.training.presets import make_branch

TINY = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
PREPROCESSING = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"height": 32, "width": 32}}


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="session")
def tokenizer(manifest):
    return train_tokenizer([row.inputs["text"] for row in manifest.by_split("train") if "text" in row.inputs])


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory, tokenizer):
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(**TINY, vocab_size=tokenizer.get_vocab_size() + 3, max_position_embeddings=16)
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, tokenizer_config={"pad_token": "[PAD]", "unk_token": {"content": "[UNK]"}})
    return folder


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    torch.manual_seed(0)
    ViTModel(ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(folder)
    write(folder, preprocessor_config=PREPROCESSING)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, tokenizer):
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    torch.manual_seed(0)
    text = {**TINY, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 12}
    config = CLIPConfig(text_config=text, vision_config={**TINY, "image_size": 32, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, tokenizer_config={"eos_token": "[UNK]"}, preprocessor_config={**PREPROCESSING, "size": 32})
    return folder


@pytest.fixture(scope="session")
def convnext_folder(tmp_path_factory):
    from transformers import ConvNextConfig, ConvNextModel

    folder = tmp_path_factory.mktemp("models") / "tiny-convnext"
    torch.manual_seed(0)
    config = ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, patch_size=4, image_size=32)
    ConvNextModel(config).save_pretrained(folder)
    write(folder, preprocessor_config={**PREPROCESSING, "size": {"shortest_edge": 32}})
    return folder


@pytest.fixture(params=["vit", "clip", "convnext"])
def image_folder(request):
    return request.getfixturevalue(f"{request.param}_folder")


def read(modality, folder, trained=True):
    return make_branch(modality, str(folder), BranchOptions((), folder.parent, trained))


def encoder_of(modality, branch):
    """The encoder of a branch, with its weights."""
    encoder = encoders_of(modality)[branch.encoder.name](6, **branch.encoder.options)
    weights = {name: torch.from_numpy(array) for name, array in branch.weights.items()}
    result = encoder.load_state_dict(weights, strict=False)
    assert result.unexpected_keys == []
    assert all(name.startswith("project.") for name in result.missing_keys)
    return encoder.eval()


def pixels_for(branch):
    return torch.randint(0, 256, (2, branch.input.side, branch.input.side, 3), dtype=torch.uint8)


def copied(source, folder, *, without=""):
    """Copy the files of a model folder, except the one named `without`, and return the new folder."""
    for path in source.iterdir():
        if path.name != without:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def assert_agree(predictors, contents):
    """All runtimes have the same finite scores."""
    scores = []
    for predictor in predictors:
        (prediction,) = predictor.predict([predictor.prepare(contents)])
        scores.append(list(prediction.scores.values()))
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[1], abs=1e-4, rel=0)


def test_a_bundle_does_not_need_the_folders_that_it_was_made_from(manifest_folder, bert_folder, vit_folder, tmp_path):
    out = tmp_path / "tiny"
    changes = {"encoders": {"image": str(vit_folder), "text": str(bert_folder)}, "epochs": 1, "batch_size": 8}
    train(manifest_folder, out, preset="pretrained", device="cpu", workers=1, cache=tmp_path, changes=changes)
    predictors = [load_bundle(out, runtime=runtime, threads=1) for runtime in ("onnx", "torch")]
    for predictor in predictors:
        predictor.warm_up()
    image = (manifest_folder / "images/test-sea-0.png").read_bytes()
    for contents in ({"image": image, "text": "deep water"}, {"image": image}, {"text": "juice of ripe fruit, red"}):
        assert_agree(predictors, contents)
    bundle = read_bundle(out)
    config = (out / "config.json").read_text(encoding="utf-8")
    assert str(vit_folder.parent) not in config + bundle.card
    assert "the model folder tiny-vit" in bundle.card
    options = bundle.config.network.modalities["image"].encoder.options
    assert (options["mean"], options["std"]) == (PREPROCESSING["image_mean"], PREPROCESSING["image_std"])
    assert bundle.inputs["text"].max_tokens <= 16


@torch.no_grad()
def test_an_image_model_has_the_weights_of_its_folder(image_folder):
    from transformers import AutoModel

    branch = read("image", image_folder)
    encoder = encoder_of("image", branch)
    model = AutoModel.from_pretrained(image_folder).eval()
    pixels = pixels_for(branch)
    mean, std = (torch.tensor(PREPROCESSING[key])[:, None, None] for key in ("image_mean", "image_std"))
    output = getattr(model, "vision_model", model)(pixel_values=(pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    expected = output.last_hidden_state.mean(dim=1) if "vit" in image_folder.name else output.pooler_output.flatten(1)
    torch.testing.assert_close(encoder.pool(pixels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "clip"])
@torch.no_grad()
def test_a_text_model_has_the_weights_of_its_folder(request, kind):
    from transformers import AutoModel

    folder = request.getfixturevalue(f"{kind}_folder")
    branch = read("text", folder)
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.from_numpy(branch.input.preprocess("deep water"))[None]
    output = getattr(model, "text_model", model)(input_ids=ids, attention_mask=torch.ones_like(ids))
    pooled = encoder_of("text", branch).pool(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(pooled, output.last_hidden_state.mean(dim=1), atol=1e-5, rtol=1e-4)


def test_texts_are_cut_to_the_positions_of_the_model(bert_folder, clip_folder):
    assert read("text", bert_folder, trained=False).input.max_tokens == 15
    assert read("text", clip_folder, trained=False).input.max_tokens <= 12


def test_without_trained_weights_only_the_architecture_is_read(vit_folder, bert_folder):
    for modality, folder in (("image", vit_folder), ("text", bert_folder)):
        branch = read(modality, folder, trained=False)
        assert branch.weights == {}
        assert branch.encoder == read(modality, folder).encoder


@pytest.mark.parametrize(
    ("modality", "file", "problem"),
    [
        ("image", "config.json", "config.json is missing"),
        ("image", "preprocessor_config.json", "preprocessor_config.json is missing"),
        ("image", "model.safetensors", "safetensors is missing; weights in other formats are not read"),
        ("text", "tokenizer.json", "tokenizer.json is missing"),
        ("text", "tokenizer_config.json", "tokenizer_config.json is missing"),
    ],
)
def test_a_missing_file_of_a_folder_is_named(vit_folder, bert_folder, tmp_path, modality, file, problem):
    source = {"image": vit_folder, "text": bert_folder}[modality]
    with pytest.raises(ModelError, match=problem):
        read(modality, copied(source, tmp_path, without=file))


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config", "[]", "config.json is not an object"),
        ("config", "{", "config.json is not JSON"),
        ("config", '{"model_type": "abacus"}', "not a model that transformers can load"),
        ("preprocessor_config", '{"size": 32}', "lacks one of image_mean, image_std and size"),
    ],
)
def test_a_broken_file_of_a_folder_is_an_error(vit_folder, tmp_path, file, content, problem):
    (copied(vit_folder, tmp_path) / f"{file}.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=problem):
        read("image", tmp_path)


def test_a_tokenizer_that_is_larger_than_its_model_is_rejected(bert_folder, tmp_path):
    config = json.loads((bert_folder / "config.json").read_text(encoding="utf-8"))
    write(copied(bert_folder, tmp_path), config={**config, "vocab_size": 5})
    with pytest.raises(
        ModelError, match=r"not a model that fits: vocabulary of .* tokens; the model has embeddings for 5"
    ):
        read("text", tmp_path, trained=False)


def test_missing_weights_are_named(vit_folder, tmp_path):
    weights = load_file(vit_folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("patch_embeddings.projection.weight"))]
    save_file(weights, copied(vit_folder, tmp_path) / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for .*patch_embeddings\.projection\.weight"):
        read("image", tmp_path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(
        ModelError, match=r"no such folder; expected a model's folder with config\.json, or hf://owner/name"
    ):
        read("image", tmp_path / "nowhere")


def test_only_data_files_are_downloaded_from_the_hub(vit_folder, tmp_path, monkeypatch):
    calls = []

    def download(name, *, cache_dir, allow_patterns):
        calls.append((name, cache_dir, allow_patterns))
        return str(vit_folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    branch = make_branch("image", "hf://owner/name", BranchOptions((), tmp_path, trained=True))
    assert calls == [("owner/name", tmp_path / "hub", ["*.json", "model*.safetensors"])]
    assert branch.origin.startswith("hf://owner/name on the Hugging Face hub")


def test_a_failed_download_from_the_hub_is_an_error(tmp_path, monkeypatch):
    def download(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(ModelError, match="hf://owner/name: could not be downloaded: no route to host"):
        make_branch("text", "hf://owner/name", BranchOptions((), tmp_path, trained=True))


@torch.no_grad()
def test_a_timm_model_has_the_weights_of_its_folder(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an optional package")
    model = timm.create_model("test_resnet", num_classes=5).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    branch = read("image", tmp_path)
    assert branch.encoder.name == "timm"
    assert branch.encoder.options["architecture"] == "test_resnet"
    encoder = encoder_of("image", branch)
    assert isinstance(encoder, IMAGE_ENCODERS["timm"])
    pixels = pixels_for(branch)
    expected = model.forward_head(model.forward_features(encoder.normalise(pixels)), pre_logits=True)
    torch.testing.assert_close(encoder.pool(pixels), expected, atol=1e-5, rtol=1e-4)
