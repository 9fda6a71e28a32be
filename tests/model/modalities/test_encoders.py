"""The one contract of all encoders: a row of the batch is encoded as if it were alone."""

import pytest
import torch
from torch.testing import assert_close

from model.modalities.image.encoders import ENCODERS as IMAGE_ENCODERS
from model.modalities.text.encoders import ENCODERS as TEXT_ENCODERS
from model.network import ENCODERS

WIDTH, VOCABULARY = 12, 30
SMALL = {
    "cnn": {"channels": 4},
    "efficientnet-lite0": {},
    "lstm": {"vocabulary": VOCABULARY, "hidden": 8, "tokens": 6},
    "transformer": {"vocabulary": VOCABULARY, "hidden": 8, "layers": 2, "heads": 2, "inner": 16, "positions": 12},
}
EVERY = [(name, table) for table in (IMAGE_ENCODERS, TEXT_ENCODERS) for name in table]
LENGTHS = (5, 1, 3, 5)


def batch_of(name):
    """Four rows, different ones; texts of different lengths."""
    generator = torch.Generator().manual_seed(3)
    if name in IMAGE_ENCODERS:
        tiles = torch.randint(0, 256, (4, 4, 4, 3), dtype=torch.uint8, generator=generator)
        return {"pixels": tiles.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)}
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(2, VOCABULARY, mask.shape, generator=generator) * mask
    return {"ids": ids, "mask": mask}


@pytest.fixture(scope="module", params=EVERY, ids=lambda each: each[0])
def named(request):
    """An encoder in evaluation mode, with a batch; its normalisation has seen that batch."""
    name, table = request.param
    torch.manual_seed(0)
    encoder = table[name](WIDTH, **SMALL[name])
    batch = batch_of(name)
    encoder.train()
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean of what it has seen
    with torch.no_grad():
        encoder(**batch)
    return name, encoder.eval(), batch


def rows_of(batch, rows):
    return {key: tensor[rows] for key, tensor in batch.items()}


def test_every_encoder_is_tested():
    assert set(SMALL) == {name for table in ENCODERS.values() for name in table}


@torch.no_grad()
def test_an_embedding_has_the_width_of_the_network(named):
    _, encoder, batch = named
    embeddings = encoder(**batch)
    assert embeddings.shape == (4, WIDTH)
    assert embeddings.dtype == torch.float32
    assert embeddings.isfinite().all()


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
        assert_close(encoder(**rows_of(batch, [row])), together[[row]], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_permuting_the_rows_permutes_the_embeddings(named):
    _, encoder, batch = named
    order = [2, 0, 3, 1]
    assert_close(encoder(**rows_of(batch, order)), encoder(**batch)[order], atol=1e-4, rtol=1e-4)


def test_every_weight_is_reached_by_the_gradient(named):
    _, encoder, batch = named
    encoder(**batch).square().sum().backward()
    unreached = [name for name, each in encoder.named_parameters() if each.grad is None or not each.grad.any()]
    encoder.zero_grad()
    # A key's bias moves every logit of a softmax alike.
    assert [name for name in unreached if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.no_grad()
def test_padding_does_not_move_a_text(name):
    torch.manual_seed(0)
    encoder = TEXT_ENCODERS[name](WIDTH, **SMALL[name]).eval()
    batch = batch_of(name)
    longer = {
        "ids": torch.cat([batch["ids"], torch.full((4, 4), 7)], dim=1),  # not even padding with a real token
        "mask": torch.cat([batch["mask"], torch.zeros(4, 4, dtype=torch.bool)], dim=1),
    }
    assert_close(encoder(**longer), encoder(**batch))
    cut = {key: tensor[[1], : LENGTHS[1]] for key, tensor in batch.items()}
    assert_close(encoder(**cut), encoder(**batch)[[1]])


@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.no_grad()
def test_the_order_of_the_words_matters(name):
    torch.manual_seed(0)
    encoder = TEXT_ENCODERS[name](WIDTH, **SMALL[name]).eval()
    mask = torch.ones(2, 3, dtype=torch.bool)
    forwards, backwards = encoder(ids=torch.tensor([[3, 4, 5], [5, 4, 3]]), mask=mask)
    assert (forwards - backwards).abs().max() > 1e-4


@torch.no_grad()
def test_the_lstm_reads_a_text_from_both_of_its_ends():
    """Its backward half is its forward half on the mirrored text when both have the same weights."""
    torch.manual_seed(0)
    encoder = TEXT_ENCODERS["lstm"](WIDTH, **SMALL["lstm"]).eval()
    encoder.backwards.load_state_dict(encoder.forwards.state_dict())
    states = []
    encoder.project.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    encoder(ids=torch.tensor([[3, 4, 5, 0], [5, 4, 3, 0]]), mask=mask)
    mean_ahead, mean_behind, highest_ahead, highest_behind = states[0].chunk(4, dim=1)
    assert_close(mean_ahead[0], mean_behind[1])
    assert_close(highest_ahead[0], highest_behind[1])
