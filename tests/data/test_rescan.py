"""A second scan differs from the first in what was asked for, and in nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaelab.data.rescan import Rescan
from vaelab.errors import UserError


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def head() -> Tensor:
    """Two volumes of two channels: -0.7 around a cube of tissue."""
    x = torch.full((2, 2, 12, 12, 12), -0.7)
    x[..., 3:9, 3:9, 3:9] = 1 + torch.rand(2, 2, 6, 6, 6, generator=seeded())
    return x


def test_the_background_stays_where_it_is() -> None:
    x = head()
    scanned = Rescan(shift=0)(x, seeded())
    assert (scanned[x == -0.7] == -0.7).all()
    assert (scanned[x > -0.7] != x[x > -0.7]).all()


def test_noise_has_the_size_asked_for() -> None:
    x = head()
    change = (Rescan(shift=0, gain=0, noise=0.1)(x, seeded()) - x)[x > -0.7]
    assert change.std().item() == pytest.approx(0.1 * x[0, 0].std().item(), rel=0.1)


def test_a_gain_is_one_factor_for_each_channel() -> None:
    x = head()
    scanned = Rescan(shift=0, gain=0.1, noise=0)(x, seeded())
    tissue = slice(3, 9)
    factor = ((scanned + 0.7) / (x + 0.7))[..., tissue, tissue, tissue].flatten(2)
    torch.testing.assert_close(factor.amax(2), factor.amin(2))
    assert len(factor[..., 0].flatten().unique()) == 4


def test_a_shift_moves_all_channels_together_by_whole_voxels() -> None:
    x = head()
    found = set()
    draw = seeded()
    for _ in range(20):
        scanned = Rescan(shift=1, gain=0, noise=0)(x, draw)
        corner = (scanned[0, 0] > 0).nonzero()[0].tolist()
        assert (scanned[0, 1] > 0).nonzero()[0].tolist() == corner
        found |= set(corner)
        torch.testing.assert_close(scanned.sum(), x.sum())
    assert found == {2, 3, 4}


def test_images_of_two_dimensions_are_scanned_too() -> None:
    x = torch.rand(3, 1, 16, 16, generator=seeded())
    assert Rescan()(x, seeded()).shape == x.shape
    torch.testing.assert_close(Rescan()(x, seeded()), Rescan()(x, seeded()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": -1}, r"task\.rescan\.shift=-1"),
        ({"noise": -0.1}, r"task\.rescan\.noise=-0\.1"),
        ({"shift": 0, "gain": 0, "noise": 0}, "all 0"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rescan(**arguments)  # type: ignore[arg-type]
