"""The peer is MONAI's network, and a VAE like ours."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import VarAutoEncoder

from vaelab.errors import UserError
from vaelab.models.monai_vae import MonaiVAE


def test_it_computes_what_monai_computes():
    torch.manual_seed(0)
    settings = {"channels": (4, 8), "num_res_units": 2}
    ours = MonaiVAE((8, 8, 8), input_channels=2, z_dim=3, **settings).eval()
    theirs = VarAutoEncoder(
        3, (2, 8, 8, 8), 2, 3, strides=(2, 2), use_sigmoid=False, use_mean_at_inference=True,
        **settings,
    ).eval()  # fmt: skip
    for name, part in (
        ("encode", ours.encoder[0]), ("mu", ours.mu_head), ("logvar", ours.logvar_head),
        ("decodeL", ours.decoder.project), ("decode", ours.decoder.stages),
    ):  # fmt: skip
        getattr(theirs, name).load_state_dict(part.state_dict())
    count = sum(weight.numel() for weight in theirs.parameters())
    assert sum(weight.numel() for weight in ours.parameters()) == count

    x = torch.randn(2, 2, 8, 8, 8)
    x_hat, mu, logvar, _ = theirs(x)
    mine = ours(x)
    torch.testing.assert_close(mine.x_hat, x_hat)
    torch.testing.assert_close(mine.mu, mu)
    # logvar is bounded, smoothly: near 0 it is MONAI's own.
    torch.testing.assert_close(mine.logvar, logvar / (1 + (logvar / 15) ** 2) ** 0.5)


def test_it_has_the_size_that_the_study_had():
    with torch.device("meta"):
        model = MonaiVAE((128, 128, 128))
    count = sum(weight.numel() for weight in model.parameters())
    assert round(count / 1e6) == 57


def test_images_work_as_volumes_do():
    x = torch.rand(2, 1, 16, 16)
    assert MonaiVAE((16, 16), 1, 3, (4, 8), 1)(x).x_hat.shape == x.shape


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(UserError, match=r"model\.image_size=\[24, 16, 16\]: .* multiple of 16"):
        MonaiVAE((24, 16, 16))
