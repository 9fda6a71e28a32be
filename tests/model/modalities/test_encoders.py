"""All encoders encode each row of a batch as if it were alone.

The tests run for every entry of the tables ENCODERS; SMALL has options that make an encoder smaller.
"""

import importlib.util
import sys

import pytest
import torch
from torch.testing import assert_close

from polymodal.model.errors import ModelError
from polymodal.model.modalities import MODALITIES
from polymodal.model.modalities.image.encoders import ENCODERS as IMAGE_ENCODERS
from polymodal.model.modalities.text.encoders import ENCODERS as TEXT_ENCODERS

WIDTH, VOCABULARY = 12, 30
TINY = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
VIT = {"model_type": "vit", **TINY, "image_size": 64, "patch_size": 16}
BERT = {"model_type": "bert", **TINY, "vocab_size": VOCABULARY, "max_position_embeddings": 12}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
COMMON = {"image": {}, "text": {"vocabulary": VOCABULARY}, "audio": {}}
SMALL = {
    "image": {
        "cnn": {"channels": 4},
        **{
            f"efficientnet-lite{variant}": {
                "width_multiplier": 0.2,
                "depth_multiplier": 0.4 * variant,
                "projection": 2 * variant,
            }
            for variant in range(5)
        },
        "transformers": {"config": VIT, "features": 8, **HALF},
        "timm": {"architecture": "test_resnet", "arguments": {"zero_init_last": False}, "features": 96, **HALF},
    },
    "text": {
        "static": {"hidden": 8, "tokens": 6},
        "lstm": {"hidden": 8, "tokens": 6},
        "gru": {"hidden": 8, "tokens": 6},
        "transformer": {
            **{"hidden": 8, "layers": 2, "heads": 2, "inner": 16, "positions": 12},
            **{"pool": (0, 2), "projection": 8},
        },
        "transformers": {"config": BERT, "features": 8},
    },
    "audio": {"cnn": {"channels": 4}, "yamnet": {"multiplier": 1 / 16, "projection": 8}},
}
ORDERLESS = {"static"}  # reads a text as a bag of tokens
ENCODERS = {name: entry.module("encoders").ENCODERS for name, entry in MODALITIES.items()}
EVERY = [(modality, name) for modality, table in ENCODERS.items() for name in table]
LENGTHS = (5, 1, 3, 5)


def build(modality, name):
    """Build a small encoder of this name; skips the test where its library is not installed."""
    if name == "timm":
        pytest.importorskip("timm", reason="timm is an optional package")
    torch.manual_seed(0)
    return ENCODERS[modality][name](WIDTH, **COMMON[modality], **SMALL[modality].get(name, {}))


def batch_of(modality):
    """Return four different rows; texts have different lengths."""
    generator = torch.Generator().manual_seed(3)
    if modality == "image":
        tiles = torch.randint(0, 256, (4, 4, 4, 3), dtype=torch.uint8, generator=generator)
        return {"pixels": tiles.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)}
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    if modality == "audio":
        return {"windows": torch.randn(*mask.shape, 96, 64, generator=generator) - 3, "mask": mask}
    ids = torch.randint(2, VOCABULARY, mask.shape, generator=generator) * mask
    return {"ids": ids, "mask": mask}


@pytest.fixture(scope="module", params=EVERY, ids="-".join)
def named(request):
    """Return an encoder in evaluation mode, normalised for the batch that comes with it."""
    modality, name = request.param
    encoder = build(modality, name)
    batch = batch_of(modality)
    encoder.train()
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # a plain mean over the batches
    with torch.no_grad():
        encoder(**batch)
    return name, encoder.eval(), batch


@torch.no_grad()
def test_an_embedding_has_the_width_of_the_network(named):
    _, encoder, batch = named
    embeddings = encoder(**batch)
    assert embeddings.shape == (4, WIDTH)
    assert embeddings.dtype == torch.float32
    assert embeddings.isfinite().all()


@torch.no_grad()
def test_the_same_batch_gives_the_same_embeddings(named):
    _, encoder, batch = named
    assert torch.equal(encoder(**batch), encoder(**batch))


@torch.no_grad()
def test_different_rows_have_different_embeddings(named):
    _, encoder, batch = named
    embeddings = encoder(**batch)
    assert (torch.cdist(embeddings, embeddings) + torch.eye(4) > 1e-4).all()


@torch.no_grad()
def test_a_row_is_encoded_as_if_it_were_alone(named):
    _, encoder, batch = named
    together = encoder(**batch)
    for row in range(4):
        alone = {key: tensor[[row]] for key, tensor in batch.items()}
        assert_close(encoder(**alone), together[[row]], atol=1e-4, rtol=1e-4)


def test_every_weight_has_a_gradient(named):
    _, encoder, batch = named
    encoder(**batch).square().sum().backward()
    unreached = [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()]
    encoder.zero_grad()
    # A key's bias adds the same number to every logit of a softmax.
    assert [name for name in unreached if not name.endswith("key.bias")] == []


@pytest.mark.slow
@pytest.mark.parametrize("modality", ENCODERS)
@torch.no_grad()
def test_exported_graphs_agree_with_torch(modality, exported):
    """Exports all encoders of a modality in one graph, without those that differ from another one in numbers alone."""
    kinds = {}
    for name, entry in ENCODERS[modality].items():
        words = [value for value in getattr(entry, "keywords", {}).values() if isinstance(value, str)]
        if name != "timm" or importlib.util.find_spec("timm"):
            kinds.setdefault((getattr(entry, "func", entry), *words), name)
    encoders = torch.nn.ModuleDict({name: build(modality, name) for name in kinds.values()}).eval()

    class Together(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoders = encoders

        def forward(self, batch):
            return torch.cat([encoder(**batch) for encoder in self.encoders.values()], dim=1)

    batch = batch_of(modality)
    traced = {key: tensor[:2, : None if modality == "image" else 2].contiguous() for key, tensor in batch.items()}
    free = {key: {0: "batch"} if modality == "image" else {0: "batch", 1: "length"} for key in batch}
    output = exported(Together(), {"batch": traced}, list(batch), {"batch": free})(batch)
    for name, embeddings in zip(encoders, output.split(WIDTH, dim=1), strict=True):
        assert_close(
            embeddings, encoders[name](**batch), atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", ENCODERS["audio"])
@torch.no_grad()
def test_padding_with_other_windows_does_not_change_an_embedding(name):
    encoder, batch = build("audio", name).eval(), batch_of("audio")
    longer = {
        "windows": torch.cat([batch["windows"], torch.randn(4, 3, 96, 64)], dim=1),
        "mask": torch.cat([batch["mask"], torch.zeros(4, 3, dtype=torch.bool)], dim=1),
    }
    assert_close(encoder(**longer), encoder(**batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.no_grad()
def test_padding_does_not_change_an_embedding(name):
    encoder = build("text", name).eval()
    batch = batch_of("text")
    longer = {
        "ids": torch.cat([batch["ids"], torch.full((4, 4), 7)], dim=1),  # padding with a real token
        "mask": torch.cat([batch["mask"], torch.zeros(4, 4, dtype=torch.bool)], dim=1),
    }
    assert_close(encoder(**longer), encoder(**batch))
    cut = {key: tensor[[1], : LENGTHS[1]] for key, tensor in batch.items()}
    assert_close(encoder(**cut), encoder(**batch)[[1]])


@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.no_grad()
def test_every_text_encoder_but_the_static_one_reads_the_order_of_words(name):
    mask = torch.ones(2, 3, dtype=torch.bool)
    forwards, backwards = build("text", name).eval()(ids=torch.tensor([[3, 4, 5], [5, 4, 3]]), mask=mask)
    assert ((forwards - backwards).abs().max() > 1e-4) == (name not in ORDERLESS)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@torch.no_grad()
def test_a_recurrent_encoder_reads_a_text_in_both_directions(name):
    """With the same weights, the backward cell computes for a text what the forward cell computes for the mirrored one."""
    encoder = build("text", name).eval()
    encoder.backwards.load_state_dict(encoder.forwards.state_dict())
    states = []
    encoder.project.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    encoder(ids=torch.tensor([[3, 4, 5, 0], [5, 4, 3, 0]]), mask=mask)
    mean_ahead, mean_behind, highest_ahead, highest_behind = states[0].chunk(4, dim=1)
    assert_close(mean_ahead[0], mean_behind[1])
    assert_close(highest_ahead[0], highest_behind[1])


@torch.no_grad()
def test_the_static_encoder_projects_the_mean_of_its_tokens():
    encoder = build("text", "static").eval()
    mask = torch.tensor([[True, True, True, False]])
    ids = torch.tensor([[3, 4, 4, 9]])
    expected = encoder.project((encoder.embed.weight[3] + 2 * encoder.embed.weight[4])[None] / 3)
    assert_close(encoder(ids=ids, mask=mask), expected)


# Weights with a classifier of 1,000 labels: the sizes that TensorFlow's TPU models name for lite0 … lite4, in millions 4.7, 5.4,
# 6.1, 8.2 and 13.0; exactly, for lite0 … lite2, those of the packages in the presets.
@pytest.mark.parametrize(
    ("variant", "weights", "blocks"),
    [(0, 4_652_008, 16), (1, 5_416_680, 21), (2, 6_092_072, 21), (3, 8_197_096, 24), (4, 13_006_568, 30)],
)
def test_an_efficientnet_lite_has_the_published_number_of_weights(variant, weights, blocks):
    with torch.device("meta"):
        encoder = IMAGE_ENCODERS[f"efficientnet-lite{variant}"](1000)
    assert sum(weight.numel() for weight in encoder.parameters()) == weights
    assert len(encoder.blocks) == blocks


@pytest.mark.parametrize("side", [33, 40, 60, 64])
@torch.no_grad()
def test_any_side_is_halved_rounding_up(side):
    encoder = build("image", "efficientnet-lite1").eval()
    shapes = []
    encoder.head.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    encoder(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    assert shapes[0][2:] == (-(-side // 32), -(-side // 32))


@pytest.mark.parametrize(
    ("modality", "name", "package", "extra"),
    [
        ("image", "transformers", "transformers", r"polymodal\[transformers\]"),
        ("text", "transformers", "transformers", r"polymodal\[transformers\]"),
        ("image", "timm", "timm", "timm"),
    ],
)
def test_a_missing_library_is_named_with_its_requirement(monkeypatch, modality, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"the package {package} is not installed; pip install '{extra}' brings it"):
        ENCODERS[modality][name](WIDTH, **COMMON[modality], **SMALL[modality][name])


def test_a_config_chooses_neither_the_attention_nor_remote_code():
    config = {**BERT, "_attn_implementation": "owner/kernel", "auto_map": {"AutoModel": "owner/code--model.Model"}}
    encoder = TEXT_ENCODERS["transformers"](WIDTH, VOCABULARY, config=config, features=8)
    assert type(encoder.model).__module__.startswith("transformers.models.bert.")
    assert encoder.model.config._attn_implementation == "sdpa"


def test_a_vocabulary_larger_than_the_models_is_rejected():
    with pytest.raises(ValueError, match="vocabulary of 31 tokens; the model has embeddings for 30"):
        TEXT_ENCODERS["transformers"](WIDTH, VOCABULARY + 1, config=BERT, features=8)
