"""Model folders of other libraries: from folder to bundle, and what is said when something lacks. Tiny, with random weights."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

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


def network_of(modality, found):
    """Our encoder as the folder describes it, with the folder's weights."""
    encoder = encoders_of(modality)[found.encoder.name](6, **found.encoder.options)
    weights = {name: torch.from_numpy(array) for name, array in found.weights.items()}
    told = encoder.load_state_dict(weights, strict=False)
    assert told.unexpected_keys == []
    assert all(name.startswith("project.") for name in told.missing_keys)
    return encoder.eval()


def agrees(predictors, parts):
    """Both runtimes say the same, and every number is finite."""
    answers = []
    for predictor in predictors:
        (prediction,) = predictor.predict([predictor.prepare(parts)])
        answers.append(np.asarray(list(prediction.scores.values())))
    assert np.isfinite(answers[0]).all()
    return np.abs(answers[0] - answers[1]).max() < 1e-4


def test_from_two_folders_to_a_bundle_that_needs_neither(manifest_folder, bert_folder, vit_folder, tmp_path):
    out = tmp_path / "tiny"
    changes = {"encoders": {"image": str(vit_folder), "text": str(bert_folder)}, "epochs": 1, "batch_size": 8}
    train(manifest_folder, out, preset="pretrained", device="cpu", workers=1, cache=tmp_path, changes=changes)
    predictors = [load_bundle(out, runtime=runtime, threads=1) for runtime in ("onnx", "torch")]
    for predictor in predictors:
        predictor.warm_up()
    image = (manifest_folder / "images/test-sea-0.png").read_bytes()
    for parts in ({"image": image, "text": "deep water"}, {"image": image}, {"text": "juice of ripe fruit, red"}):
        assert agrees(predictors, parts)
    bundle = read_bundle(out)
    config = (out / "config.json").read_text(encoding="utf-8")
    assert str(vit_folder.parent) not in config + bundle.card
    assert "the model folder tiny-vit" in bundle.card
    options = bundle.config.network.modalities["image"].encoder.options
    assert (options["mean"], options["std"]) == (PREPROCESSING["image_mean"], PREPROCESSING["image_std"])
    assert bundle.inputs["text"].max_tokens <= 16


@torch.no_grad()
def test_a_picture_model_has_the_folders_weights(image_folder):
    from transformers import AutoModel

    found = read("image", image_folder)
    encoder = network_of("image", found)
    whole = AutoModel.from_pretrained(image_folder).eval()
    pixels = torch.randint(0, 256, (2, found.input.side, found.input.side, 3), dtype=torch.uint8)
    values = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor(
        [0.4, 0.5, 0.6]
    )[:, None, None]
    theirs = getattr(whole, "vision_model", whole)(pixel_values=values)
    expected = theirs.last_hidden_state.mean(dim=1) if "vit" in image_folder.name else theirs.pooler_output.flatten(1)
    torch.testing.assert_close(encoder.pool(pixels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "clip"])
@torch.no_grad()
def test_a_text_model_has_the_folders_weights(request, kind):
    from transformers import AutoModel

    folder = request.getfixturevalue(f"{kind}_folder")
    found = read("text", folder)
    encoder = network_of("text", found)
    whole = AutoModel.from_pretrained(folder).eval()
    ids = torch.from_numpy(found.input.preprocess("deep water"))[None]
    theirs = getattr(whole, "text_model", whole)(input_ids=ids, attention_mask=torch.ones_like(ids))
    expected = theirs.last_hidden_state.mean(dim=1)
    torch.testing.assert_close(
        encoder.pool(ids, torch.ones_like(ids, dtype=torch.bool)), expected, atol=1e-5, rtol=1e-4
    )


def test_a_text_is_not_longer_than_the_model_has_positions(bert_folder, clip_folder):
    assert read("text", bert_folder, trained=False).input.max_tokens == 15
    assert read("text", clip_folder, trained=False).input.max_tokens <= 12


def test_without_trained_weights_a_folder_is_an_architecture(vit_folder, bert_folder):
    for modality, folder in (("image", vit_folder), ("text", bert_folder)):
        found = read(modality, folder, trained=False)
        assert found.weights == {}
        assert found.encoder == read(modality, folder).encoder


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
def test_what_a_folder_lacks_is_named(vit_folder, bert_folder, tmp_path, modality, file, problem):
    whole = {"image": vit_folder, "text": bert_folder}[modality]
    for path in whole.iterdir():
        if path.name != file:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=problem):
        read(modality, tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config", "[]", "config.json is not an object"),
        ("config", "{", "config.json is not JSON"),
        ("config", '{"model_type": "abacus"}', "not a model that transformers can load"),
        ("preprocessor_config", '{"size": 32}', "lacks one of image_mean, image_std and size"),
    ],
)
def test_a_broken_folder_is_explained(vit_folder, tmp_path, file, content, problem):
    for path in vit_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"{file}.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=problem):
        read("image", tmp_path)


def test_a_tokenizer_that_is_larger_than_its_model_is_refused(bert_folder, tmp_path):
    for path in bert_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((bert_folder / "config.json").read_text(encoding="utf-8"))
    write(tmp_path, config={**config, "vocab_size": 5})
    with pytest.raises(
        ModelError, match=r"not a model that fits: vocabulary of .* tokens; the model has embeddings for 5"
    ):
        read("text", tmp_path, trained=False)


def test_weights_that_lack_are_named(vit_folder, tmp_path):
    from safetensors.torch import save_file

    for path in vit_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(vit_folder / "model.safetensors")
    lost = next(name for name in weights if name.endswith("patch_embeddings.projection.weight"))
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for .*patch_embeddings\.projection\.weight"):
        read("image", tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        ModelError, match=r"no such folder; expected a model's folder with config\.json, or hf://owner/name"
    ):
        read("image", tmp_path / "nowhere")


def test_the_hub_is_asked_for_data_alone(vit_folder, tmp_path, monkeypatch):
    asked = []

    def download(name, *, cache_dir, allow_patterns):
        asked.append((name, cache_dir, allow_patterns))
        return str(vit_folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    found = make_branch("image", "hf://owner/name", BranchOptions((), tmp_path, trained=True))
    assert asked == [("owner/name", tmp_path / "hub", ["*.json", "model*.safetensors"])]
    assert found.origin.startswith("hf://owner/name on the Hugging Face hub")


def test_a_hub_that_does_not_answer_is_named(tmp_path, monkeypatch):
    def download(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(ModelError, match="hf://owner/name: could not be downloaded: no route to host"):
        make_branch("text", "hf://owner/name", BranchOptions((), tmp_path, trained=True))


@torch.no_grad()
def test_a_timm_folder_becomes_an_encoder_with_its_weights(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an optional package")
    model = timm.create_model("test_resnet", num_classes=5).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    found = read("image", tmp_path)
    assert found.encoder.name == "timm"
    assert found.encoder.options["architecture"] == "test_resnet"
    encoder = network_of("image", found)
    assert isinstance(encoder, IMAGE_ENCODERS["timm"])
    pixels = torch.randint(0, 256, (2, found.input.side, found.input.side, 3), dtype=torch.uint8)
    expected = model.forward_head(model.forward_features(encoder.normalise(pixels)), pre_logits=True)
    torch.testing.assert_close(encoder.pool(pixels), expected, atol=1e-5, rtol=1e-4)
