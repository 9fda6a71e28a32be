"""Augmentation changes the values of a batch at random, never its shapes and types."""

import pytest
import torch

from polymodal.model.modalities.audio.augment import NOISE
from polymodal.model.modalities.audio.augment import augment as augment_audio
from polymodal.model.modalities.audio.spectrum import FLOOR
from polymodal.model.modalities.image.augment import augment as augment_image
from polymodal.model.modalities.text.augment import augment as augment_text


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    pixels = torch.full((6, 32, 32, 3), 255, dtype=torch.uint8)
    pixels[:, 10:22, 10:22] = torch.tensor([200, 30, 40], dtype=torch.uint8)
    return {"pixels": pixels}


@pytest.fixture
def texts():
    lengths = torch.tensor([1, 2, 5, 9])
    mask = torch.arange(9) < lengths[:, None]
    return {"ids": (torch.arange(9) + 10) * mask, "mask": mask}


def test_augmented_images_have_the_same_shape_and_type(images):
    before = images["pixels"].clone()
    (changed,) = augment_image(images, generator()).values()
    assert (changed.shape, changed.dtype) == (before.shape, torch.uint8)
    assert (images["pixels"] == before).all()
    assert (changed != before).any()


def test_pixels_from_outside_the_image_have_the_colour_of_the_background(images):
    for seed in range(20):  # some have other backgrounds or are negatives
        changed = augment_image(images, generator(seed))["pixels"].float()
        corners = changed[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners - changed[:, :1, 16]).abs().max() < 3  # no seam


def test_most_images_keep_a_light_background_and_some_do_not(images):
    corners = torch.cat([augment_image(images, generator(seed))["pixels"][:, 0, 0] for seed in range(50)]).float()
    light = (corners.mean(dim=1) > 0.5 * 255).float().mean()
    assert 0.7 < light < 0.98


def test_each_image_is_changed_differently(images):
    changed = augment_image(images, generator())["pixels"]
    assert len({row.numpy().tobytes() for row in changed}) == len(changed)


def test_the_same_seed_gives_the_same_batch(images, texts):
    for augment, batch in ((augment_image, images), (augment_text, texts)):
        first, second, other = (augment(batch, generator(seed)) for seed in (1, 1, 2))
        assert all((first[key] == second[key]).all() for key in first)
        assert any((first[key] != other[key]).any() for key in first)


def test_a_text_loses_tokens_but_never_its_first_one_and_never_its_order(texts):
    lost = 0
    for seed in range(50):
        changed = augment_text(texts, generator(seed))
        assert changed["ids"].shape == texts["ids"].shape
        assert changed["ids"].dtype == texts["ids"].dtype
        for row, (ids, mask) in enumerate(zip(changed["ids"], changed["mask"], strict=True)):
            kept = ids[mask].tolist()
            whole = texts["ids"][row][texts["mask"][row]].tolist()
            assert kept[0] == whole[0]
            assert kept == [token for token in whole if token in kept]
            assert mask.tolist() == sorted(mask.tolist(), reverse=True)  # no gaps
            lost += len(whole) - len(kept)
    assert 0.10 < lost / (50 * (0 + 1 + 4 + 8)) < 0.20


@pytest.fixture
def sounds():
    windows = torch.full((40, 3, 96, 64), FLOOR)
    windows[:, :, 30:60, 20:30] = 1.0
    return {"windows": windows, "mask": torch.ones(40, 3, dtype=torch.bool)}


def test_augmented_sounds_have_the_same_shape_and_type_and_keep_their_mask(sounds):
    before = sounds["windows"].clone()
    changed = augment_audio(sounds, generator())
    assert (changed["windows"].shape, changed["windows"].dtype) == (before.shape, torch.float32)
    assert changed["mask"] is sounds["mask"]
    assert (sounds["windows"] == before).all()
    assert changed["windows"].isfinite().all()
    assert (changed["windows"] >= FLOOR).all()


def test_a_tone_stays_above_noise_in_its_bands_at_another_level_and_time(sounds):
    changed = augment_audio(sounds, generator())["windows"]
    levels = changed[:, :, :, 20:30].amax(dim=(1, 2, 3))
    assert (levels > NOISE[1]).all()
    assert 0.5 < (levels.max() - levels.min()) <= 3.1
    beginnings = (changed[:, 0, :, 20:30].amax(dim=2) > -1).float().argmax(dim=1)
    assert len(set(beginnings.tolist())) > 10
    assert (changed[:, :, :, 40:].amax(dim=(1, 2, 3)) < NOISE[1] + 1).all()


def test_some_sounds_get_noise_and_the_others_stay_silent_where_they_were(sounds):
    quiet = augment_audio(sounds, generator())["windows"][:, :, :, 50:]
    noisy = (quiet > FLOOR + 0.1).flatten(1).any(dim=1)
    assert 8 < int(noisy.sum()) < 32


def test_the_same_seed_changes_sounds_alike(sounds):
    first, second, other = (augment_audio(sounds, generator(seed))["windows"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
