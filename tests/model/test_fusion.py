"""The contract of all fusions, and values that are worked out by hand."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from polymodal.model.fusion import (
    FUSIONS,
    ConcatFusion,
    CrossAttentionFusion,
    GatedFusion,
    LowRankBilinearFusion,
    ProductFusion,
    SumFusion,
)

ORDER, WIDTH = ("image", "text"), 4
IMAGE = tensor([[2.0, 4.0, -1.0, 0.5]])
TEXT = tensor([[3.0, -2.0, 5.0, 0.0]])
BOTH, IMAGE_ONLY, TEXT_ONLY = tensor([[True, True]]), tensor([[True, False]]), tensor([[False, True]])


@pytest.fixture(params=FUSIONS)
def fusion(request):
    """A fusion with random weights."""
    torch.manual_seed(0)
    built = FUSIONS[request.param](ORDER, WIDTH)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_()
    return built


def random_batch(rows=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    embeddings = {name: torch.randn(rows, WIDTH, generator=generator) for name in ORDER}
    present = torch.cat([BOTH, IMAGE_ONLY, TEXT_ONLY]).repeat(rows // 3, 1)
    return embeddings, present


@pytest.mark.parametrize("junk", [0.0, 9.0, float("inf"), float("nan")])
@pytest.mark.parametrize("present", [IMAGE_ONLY, TEXT_ONLY], ids=["image", "text"])
def test_the_embedding_of_an_absent_modality_does_not_change_the_result(fusion, present, junk):
    embeddings = {"image": IMAGE, "text": TEXT}
    absent = "text" if present is IMAGE_ONLY else "image"
    expected = fusion(embeddings, present)
    assert_close(fusion({**embeddings, absent: torch.full((1, WIDTH), junk)}, present), expected)
    assert expected.isfinite().all()


@pytest.mark.parametrize("junk", [9.0, float("nan")])
def test_an_absent_modality_gets_no_gradient(fusion, junk):
    image, text = IMAGE.clone().requires_grad_(), torch.full((1, WIDTH), junk, requires_grad=True)
    fusion({"image": image, "text": text}, IMAGE_ONLY).square().sum().backward()
    assert image.grad.any()
    assert not text.grad.any()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in fusion.parameters())


def test_the_result_has_the_width_of_the_embeddings(fusion):
    embeddings, present = random_batch()
    fused = fusion(embeddings, present)
    assert fused.shape == (6, WIDTH)
    assert fused.isfinite().all()


def test_a_row_is_fused_as_if_it_were_alone(fusion):
    embeddings, present = random_batch()
    together = fusion(embeddings, present)
    for row in range(6):
        alone = fusion({name: rows[[row]] for name, rows in embeddings.items()}, present[[row]])
        assert_close(alone, together[[row]])


def test_permuting_the_rows_permutes_the_result(fusion):
    embeddings, present = random_batch()
    order = [3, 5, 0, 1, 4, 2]
    permuted = fusion({name: rows[order] for name, rows in embeddings.items()}, present[order])
    assert_close(permuted, fusion(embeddings, present)[order])


def test_the_order_of_the_dictionary_does_not_matter(fusion):
    assert_close(fusion({"text": TEXT, "image": IMAGE}, BOTH), fusion({"image": IMAGE, "text": TEXT}, BOTH))


def test_every_weight_gets_a_gradient(fusion):
    embeddings, present = random_batch()
    embeddings["image"].requires_grad_()  # some fusions have no weights
    fusion(embeddings, present).square().sum().backward()
    assert [name for name, weight in fusion.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.slow
@torch.no_grad()
def test_exported_graphs_agree_with_torch(exported):
    torch.manual_seed(0)

    class Together(torch.nn.Module):
        """All fusions in one graph."""

        def __init__(self):
            super().__init__()
            self.fusions = torch.nn.ModuleDict({name: build(ORDER, WIDTH) for name, build in FUSIONS.items()})

        def forward(self, embeddings, present):
            return torch.cat([fusion(embeddings, present) for fusion in self.fusions.values()], dim=1)

    together = Together().eval()
    embeddings, present = random_batch()
    embeddings["text"][1] = torch.nan  # which is absent
    traced = {"embeddings": {name: rows[:2] for name, rows in embeddings.items()}, "present": present[:2]}
    free = {"embeddings": {name: {0: "batch"} for name in ORDER}, "present": {0: "batch"}}
    results = exported(together, traced, [*ORDER, "present"], free)({**embeddings, "present": present})
    for name, fused in zip(FUSIONS, results.split(WIDTH, dim=1), strict=True):
        expected = together.fusions[name](embeddings, present)
        assert_close(fused, expected, msg=lambda message, name=name: f"{name}: {message}")


def test_a_second_modality_changes_the_result(fusion):
    embeddings = {"image": IMAGE, "text": TEXT}
    assert (fusion(embeddings, BOTH) - fusion(embeddings, IMAGE_ONLY)).abs().max() > 1e-3


@pytest.mark.parametrize("name", FUSIONS)
def test_a_single_modality_can_be_fused(name):
    torch.manual_seed(0)
    fused = FUSIONS[name](("image",), WIDTH)({"image": IMAGE}, tensor([[True]]))
    assert fused.shape == (1, WIDTH)
    assert fused.isfinite().all()
    if name in ("sum", "product", "gated"):  # the others project
        assert_close(fused, IMAGE)


def test_three_modalities_can_be_fused():
    embeddings = {"image": IMAGE, "text": TEXT, "sound": torch.full((1, WIDTH), 10.0)}
    present = tensor([[True, False, True]])
    order = ("image", "text", "sound")
    assert_close(SumFusion(order, WIDTH)(embeddings, present), IMAGE + 10)
    assert_close(ProductFusion(order, WIDTH)(embeddings, present), IMAGE * 10)
    for name in FUSIONS:
        assert FUSIONS[name](order, WIDTH)(embeddings, present).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "present", "expected"),
    [
        pytest.param(SumFusion, BOTH, tensor([[5.0, 2.0, 4.0, 0.5]]), id="sum"),
        pytest.param(SumFusion, IMAGE_ONLY, IMAGE, id="sum-of-image"),
        pytest.param(SumFusion, TEXT_ONLY, TEXT, id="sum-of-text"),
        pytest.param(ProductFusion, BOTH, tensor([[6.0, -8.0, -5.0, 0.0]]), id="product"),
        pytest.param(ProductFusion, IMAGE_ONLY, IMAGE, id="product-of-image"),
        pytest.param(ProductFusion, TEXT_ONLY, TEXT, id="product-of-text"),
    ],
)
def test_sum_and_product_by_hand(kind, present, expected):
    assert_close(kind(ORDER, WIDTH)({"image": IMAGE, "text": TEXT}, present), expected)


def test_concat_replaces_an_absent_modality_by_a_learned_vector():
    fusion = ConcatFusion(ORDER, WIDTH)
    with torch.no_grad():
        fusion.project.weight.copy_(torch.cat([torch.eye(WIDTH), 10 * torch.eye(WIDTH)], dim=1))
        fusion.project.bias.zero_()
        fusion.absent.copy_(tensor([[7.0] * WIDTH, [0.5] * WIDTH]))
    embeddings = {"image": IMAGE, "text": TEXT}
    assert_close(fusion(embeddings, BOTH), IMAGE + 10 * TEXT)
    assert_close(fusion(embeddings, IMAGE_ONLY), IMAGE + 10 * 0.5)
    assert_close(fusion(embeddings, TEXT_ONLY), 7.0 + 10 * TEXT)


def test_gates_without_weights_compute_the_mean():
    fusion = GatedFusion(ORDER, WIDTH)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.zero_()
    embeddings = {"image": IMAGE, "text": TEXT}
    assert_close(fusion(embeddings, BOTH), (IMAGE + TEXT) / 2)
    assert_close(fusion(embeddings, TEXT_ONLY), TEXT)


def test_gates_weight_each_channel():
    fusion = GatedFusion(ORDER, WIDTH)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.copy_(tensor([50.0, 50.0, -50.0, -50.0, 0.0, 0.0, 0.0, 0.0]))
    assert_close(fusion({"image": IMAGE, "text": TEXT}, BOTH), tensor([[2.0, 4.0, 5.0, 0.0]]))


def test_low_rank_bilinear_is_a_projected_product_of_squashed_factors():
    fusion = LowRankBilinearFusion(ORDER, WIDTH)
    with torch.no_grad():
        for layer, scale in zip((*fusion.factors, fusion.project), (1.0, 2.0, 3.0), strict=True):
            layer.weight.copy_(scale * torch.eye(WIDTH))
            layer.bias.zero_()
    embeddings = {"image": IMAGE, "text": TEXT}
    assert_close(fusion(embeddings, BOTH), 3 * IMAGE.tanh() * (2 * TEXT).tanh())
    assert_close(fusion(embeddings, TEXT_ONLY), 3 * (2 * TEXT).tanh())


def test_cross_attention_without_attention_is_the_mean_of_the_tokens():
    fusion = CrossAttentionFusion(ORDER, WIDTH)
    with torch.no_grad():
        for layer in (fusion.output, fusion.narrow):
            layer.weight.zero_()
            layer.bias.zero_()
        for unfold, scale in zip(fusion.unfold, (1.0, 10.0), strict=True):
            unfold.weight.copy_(scale * torch.eye(WIDTH).repeat(fusion.TOKENS, 1))
            unfold.bias.zero_()
    embeddings = {"image": IMAGE, "text": TEXT}
    assert_close(fusion(embeddings, BOTH), (IMAGE + 10 * TEXT) / 2)
    assert_close(fusion(embeddings, IMAGE_ONLY), IMAGE)


@pytest.mark.parametrize(("width", "heads"), [(256, 4), (6, 2), (7, 1)])
def test_cross_attention_has_heads_that_divide_the_width(width, heads):
    fusion = CrossAttentionFusion(ORDER, width)
    assert fusion.heads == heads
    fused = fusion({name: torch.ones(1, width) for name in ORDER}, BOTH)
    assert fused.shape == (1, width)
