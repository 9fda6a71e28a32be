"""Packages with weights: what is in them finds its place in our networks. The packages here are small ones, made for the test."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from tokenizers import Tokenizer, models, normalizers

from polymodal.model.errors import ModelError
from polymodal.model.modalities.image.encoders import ENCODERS
from polymodal.model.modalities.image.presets import EFFICIENTNET_LITE, efficientnet_lite_weights
from polymodal.model.modalities.text import presets as text_presets
from polymodal.model.modalities.text.presets import WORDLLAMA, wordllama
from polymodal.model.modalities.wheels import Wheel

# Expansion ratio of 1, so no expanding convolution, in the first block alone.
LITE1_BLOCKS = 21


def theirs():
    """The weights' names of a package with EfficientNet-lite1, in the order in which our encoder has its own."""

    def normalisation(name):
        return [f"{name}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    names = ["_conv_stem.weight", *normalisation("_bn0")]
    for block in range(LITE1_BLOCKS):
        at = f"_blocks.{block}"
        names += [f"{at}._expand_conv.weight", *normalisation(f"{at}._bn0")] if block else []
        names += [f"{at}._depthwise_conv.weight", *normalisation(f"{at}._bn1")]
        names += [f"{at}._project_conv.weight", *normalisation(f"{at}._bn2")]
    return [*names, "_conv_head.weight", *normalisation("_bn1"), "_fc.weight", "_fc.bias"]


@pytest.fixture
def wheel(monkeypatch):
    """`wheel(files)`: every package now holds these files."""

    def hold(files):
        monkeypatch.setattr(Wheel, "read", lambda _, cache, member: files[member])

    return hold


def test_every_weight_of_a_lite_package_has_a_place(wheel, tmp_path):
    encoder = ENCODERS["efficientnet-lite1"](8)
    ours = [each for name, each in encoder.state_dict().items() if not name.startswith("project.")]
    stored = {
        name: torch.full_like(each, number)
        for number, (name, each) in enumerate(zip(theirs(), [*ours, torch.ones(2), torch.ones(2)], strict=True))
    }
    content = io.BytesIO()
    torch.save(stored, content)
    _, member = EFFICIENTNET_LITE["efficientnet-lite1"]
    wheel({member: content.getvalue()})
    weights = efficientnet_lite_weights("efficientnet-lite1", tmp_path)
    told = encoder.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()}, strict=False)
    assert told.missing_keys == ["project.1.weight", "project.1.bias"]
    assert told.unexpected_keys == []
    loaded = [each for name, each in encoder.state_dict().items() if not name.startswith("project.")]
    assert [int(each.flatten()[0]) for each in loaded] == list(range(len(loaded)))


def test_a_weight_without_a_place_is_named(wheel, tmp_path):
    content = io.BytesIO()
    torch.save({"_swish.weight": torch.ones(1)}, content)
    wheel({EFFICIENTNET_LITE["efficientnet-lite0"][1]: content.getvalue()})
    with pytest.raises(ModelError, match=r"no place for the weight _swish\.weight"):
        efficientnet_lite_weights("efficientnet-lite0", tmp_path)


def test_static_embeddings_stay_beside_their_tokens(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(text_presets, "WORDLLAMA_FREQUENT", 0)
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "s", "e", "b", "▁s", "▁se", "▁sea", "▁b", "▁be", "▁bee"]
    merges = [("▁", "s"), ("▁s", "e"), ("▁se", "a"), ("▁", "b"), ("▁b", "e"), ("▁be", "e")]
    tokenizer = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(pieces[:3])
    table = np.arange(len(pieces), dtype=np.float16)[:, None].repeat(256, axis=1)
    wheel(
        {
            "wordllama/tokenizers/l2_supercat_tokenizer_config.json": tokenizer.to_str().encode(),
            "wordllama/weights/l2_supercat_256.safetensors": save({"embedding.weight": table}),
        }
    )
    pruned, embeddings = wordllama(tmp_path, ["sea"])
    assert embeddings.shape == (pruned.get_vocab_size(), 256)
    assert embeddings.dtype == np.float32
    found = pruned.encode("sea bees")
    assert found.tokens == ["▁sea", "▁", "b", "e", "e", "s"]
    assert [int(row) for row in embeddings[found.ids, 0]] == [pieces.index(token) for token in found.tokens]


def archive(path, files):
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def test_a_package_that_was_altered_is_refused(tmp_path):
    package = replace(WORDLLAMA, file="words.whl")
    archive(tmp_path / "words.whl", {"a.json": json.dumps({})})
    with pytest.raises(ModelError, match=r"SHA-256 is .*, expected .*; delete the file to fetch it again"):
        package.read(tmp_path, "a.json")


def test_a_package_that_cannot_be_fetched_is_named(tmp_path, monkeypatch):
    package = replace(WORDLLAMA, name="polymodal-has-no-such-package", file="none.whl", platform=("--no-index",))
    with pytest.raises(ModelError, match=r"polymodal-has-no-such-package==0\.4\.0\.post1 could not be downloaded"):
        package.fetch(tmp_path)
