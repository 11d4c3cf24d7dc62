"""Augmentation moves an image as much as it says and no more."""

from __future__ import annotations

import pytest
import torch

from vaelab.data.xray.augment import RandomAffine2d
from vaelab.errors import UserError


def bright_spot() -> torch.Tensor:
    image = torch.zeros(256, 1, 33, 33)
    image[:, :, 16, 16] = 1  # the centre
    return image


def centre_of_mass(images: torch.Tensor) -> torch.Tensor:
    places = torch.arange(images.shape[-1], dtype=torch.float32)
    rows = (images.sum((1, 3)) * places).sum(1) / images.sum((1, 2, 3))
    columns = (images.sum((1, 2)) * places).sum(1) / images.sum((1, 2, 3))
    return torch.stack([rows, columns], 1)


def test_no_limits_change_nothing():
    images = torch.rand(4, 1, 16, 16)
    unmoved = RandomAffine2d(rotation=0, translation=0, scale=0)(images)
    torch.testing.assert_close(unmoved, images, atol=1e-5, rtol=0)


def test_the_centre_moves_by_at_most_the_translation():
    torch.manual_seed(0)
    moved = RandomAffine2d(rotation=20, translation=0.1, scale=0)(bright_spot())
    offset = (centre_of_mass(moved) - 16).abs()
    # 0.1 of 33 pixels along each axis of the turned image: at most 3.3 · (cos 20° + sin 20°) = 4.2
    assert 2.5 < offset.max() <= 4.3


def test_a_rotation_turns_about_the_centre():
    torch.manual_seed(0)
    turned = RandomAffine2d(rotation=45, translation=0, scale=0)(bright_spot())
    torch.testing.assert_close(centre_of_mass(turned), torch.full((256, 2), 16.0))


def test_every_image_of_a_batch_is_changed_differently_and_a_seed_repeats_it():
    change = RandomAffine2d()
    images = torch.rand(1, 1, 16, 16).expand(3, -1, -1, -1)
    torch.manual_seed(1)
    first = change(images)
    torch.manual_seed(1)
    assert torch.equal(change(images), first)
    assert not torch.equal(first[0], first[1])


def test_a_negative_limit_names_its_key():
    with pytest.raises(UserError, match=r"dataset\.augment\.rotation=-1"):
        RandomAffine2d(rotation=-1)
