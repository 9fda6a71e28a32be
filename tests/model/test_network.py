"""A network is built from a config and runs encoders, fusion and head one after another."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from polymodal.model.config import EncoderConfig, ModalityConfig, NetworkConfig
from polymodal.model.fusion import FUSIONS
from polymodal.model.network import build_network
from polymodal.model.targets.single_label.head import SingleLabelHead

ENCODERS = {
    "image": EncoderConfig(name="cnn", options={"channels": 4}),
    "text": EncoderConfig(name="lstm", options={"vocabulary": 20, "hidden": 6, "tokens": 5}),
}


def config(*names, **changed):
    modalities = {name: ModalityConfig(input={}, encoder=ENCODERS[name]) for name in names or ENCODERS}
    network = NetworkConfig(modalities=modalities, width=8, fusion="sum", target="single-label", labels=("a", "b", "c"))
    return network.model_copy(update=changed)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(2, 20, (3, 4), generator=generator)
    return {"image": {"pixels": pixels}, "text": {"ids": ids, "mask": torch.ones(3, 4, dtype=torch.bool)}}


PRESENT = torch.tensor([[True, True], [True, False], [False, True]])


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_a_network_runs_encoders_fusion_and_head(batches, fusion):
    torch.manual_seed(0)
    network = build_network(config(fusion=fusion)).eval()
    embeddings = {name: network.encode(name, batch) for name, batch in batches.items()}
    logits = network(batches, PRESENT)
    assert logits.shape == (3, 3)
    assert_close(logits, network.fuse(embeddings, PRESENT))
    assert_close(logits, network.head(network.fusion(embeddings, PRESENT)))


@torch.no_grad()
def test_an_absent_modality_does_not_change_the_logits(batches):
    torch.manual_seed(0)
    network = build_network(config(fusion="gated")).eval()
    embeddings = {name: network.encode(name, batch) for name, batch in batches.items()}
    spoilt = {"image": embeddings["image"].clone(), "text": embeddings["text"].clone()}
    spoilt["text"][1], spoilt["image"][2] = torch.nan, torch.inf
    assert_close(network.fuse(spoilt, PRESENT), network.fuse(embeddings, PRESENT))


@torch.no_grad()
def test_with_the_fusion_sum_logits_of_modalities_add_up(batches):
    torch.manual_seed(0)
    network = build_network(config()).eval()
    embeddings = {name: network.encode(name, batch) for name, batch in batches.items()}
    image, text, both = (
        network.fuse(embeddings, torch.tensor([row] * 3)) for row in ([True, False], [False, True], [True, True])
    )
    nothing = network.head(torch.zeros(1, 8))
    assert_close(both - nothing, (image - nothing) + (text - nothing))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_network_may_have_one_modality(batches, name):
    network = build_network(config(name)).eval()
    logits = network({name: batches[name]}, torch.ones(3, 1, dtype=torch.bool))
    assert logits.shape == (3, 3)
    assert set(network.encoders) == {name}


def test_the_order_of_modalities_is_that_of_the_config():
    assert config().order == ("image", "text")
    assert build_network(config()).fusion.order == ("image", "text")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_each_example_is_its_cross_entropy(smoothing):
    head = SingleLabelHead(width=8, labels=3, dropout=0.0)
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 2])
    losses = head.loss(logits, targets, smoothing)
    assert losses.shape == (4,)
    smooth = functional.one_hot(targets, 3) * (1 - smoothing) + smoothing / 3
    assert_close(losses, -(smooth * logits.log_softmax(dim=1)).sum(dim=1))
