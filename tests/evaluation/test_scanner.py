"""Claims about what another scanner does to an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaelab.errors import UserError
from vaelab.evaluation.rescan import Rescan
from vaelab.evaluation.scanner import bias_fields, coarser, with_contrast

SAME = {"shift": 0.0, "rotation_deg": 0.0, "gain": 0.0, "noise": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def heads(count: int = 3) -> Tensor:
    """The same head several times: 0 around a cube of tissue of two channels."""
    x = torch.zeros(1, 2, 12, 12, 12)
    x[..., 3:9, 3:9, 3:9] = 1 + torch.rand(1, 2, 6, 6, 6, generator=seeded())
    return x.repeat(count, 1, 1, 1, 1)


def test_slices_of_three_voxels_average_them_and_leave_other_axes_alone() -> None:
    x = torch.zeros(1, 1, 2, 2, 9)
    x[0, 0, 0, 0, 4] = 3.0  # in the middle of the second of three slices
    found = coarser(x, size=6.0, spacing=(1.0, 1.0, 2.0))
    assert found[0, 0, 0, 0, 4] == pytest.approx(1)  # a third, at the centre of its slice
    assert found[0, 0, 0, 0].sum() == pytest.approx(3)
    assert found[0, 0, 1].abs().max() == 0


@pytest.mark.parametrize("size", [0.5, 2.0])
def test_slices_that_are_no_thicker_change_nothing(size: float) -> None:
    x = heads(1)
    assert torch.equal(coarser(x, size, (1.0, 1.0, 2.0)), x)


def test_a_bias_field_is_smooth_and_of_the_strength_asked_for() -> None:
    logs = bias_fields(500, (9, 9, 9), 0.2, seeded()).log()
    assert logs[..., 0, 0, 0].std() == pytest.approx(0.2, rel=0.1)  # at a point that defines it
    steps = logs.diff(dim=-1).abs()
    # Between defining points, four voxels apart, it is linear: each step is a quarter of the way.
    torch.testing.assert_close(steps[..., 0], steps[..., 3])


def test_contrast_keeps_nothing_and_the_brightest_and_darkens_what_is_between() -> None:
    above = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 1, 3)
    found = with_contrast(above, torch.full((1, 1, 1), 2.0))
    assert found.flatten().tolist() == [0, 0.5, 2]


def test_background_has_no_bias_and_no_contrast() -> None:
    x = heads()
    found = Rescan(**SAME, bias=0.3, contrast=0.3)(x, seeded())
    assert torch.equal(found == 0, x == 0)
    assert not torch.equal(found, x)


def test_a_site_changes_all_subjects_alike_and_sites_differ() -> None:
    def rescanned(site: int | None, seed: int = 0) -> Tensor:
        return Rescan(**SAME, bias=0.3, contrast=0.3, site=site)(heads(), seeded(seed))

    first, second, third = rescanned(1)
    assert torch.equal(first, second)
    assert torch.equal(second, third)
    assert torch.equal(rescanned(1, seed=5), rescanned(1))  # whatever else is drawn
    assert not torch.equal(rescanned(2), rescanned(1))
    first, second, _ = rescanned(None)
    assert not torch.equal(first, second)


def test_thicker_slices_alone_are_a_second_scan() -> None:
    assert not torch.equal(Rescan(**SAME, slice_size=3.0)(heads(), seeded()), heads())
    with pytest.raises(UserError, match=r"task\.rescan\.bias=-1"):
        Rescan(bias=-1)
