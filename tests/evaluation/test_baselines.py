"""Claims about maps that know less than the run's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaelab.anomaly.detector import Prediction
from vaelab.evaluation.baselines import (
    AVERAGE_MASK,
    BLIND,
    CENTRE,
    OTHER_PATIENT,
    Baselines,
    centre_weight,
)
from vaelab.evaluation.localisation import MEASURES, Localisation
from vaelab.evaluation.map_tally import MapFigures
from vaelab.metrics.bootstrap import Estimate

SIDE = 8
LESION = np.zeros((SIDE, SIDE), np.uint8)
LESION[1:3, 1:3] = 1  # 4 of 64 pixels
ELSEWHERE = LESION[::-1, ::-1].copy()


def hear(
    choosing: list[np.ndarray],
    judging: list[np.ndarray],
    x: list[np.ndarray],
    maps: list[np.ndarray],
    patients: str = "abc",
) -> dict[str, MapFigures]:
    """Baselines of images, those that thresholds are chosen on first."""
    baselines = Baselines({str(n): name for n, name in enumerate(patients)}, ["x-ray"])
    for n, mask in enumerate([*choosing, *judging]):
        heat = torch.tensor(maps[n], dtype=torch.float32)[None]
        image = torch.tensor(x[n], dtype=torch.float32)[None, None]
        batch = {"id": [str(n)], "image": image, "mask": torch.tensor(mask)[None, None]}
        hears = baselines.choose if n < len(choosing) else baselines.judge
        hears(batch, Prediction(heat, heat, heat, None, shows_score=True))
    return baselines.result(num_resamples=10, seed=0)


def test_intensity_alone_finds_what_is_bright_and_its_opposite_does_not():
    found = hear([LESION], [ELSEWHERE], [LESION, ELSEWHERE], [LESION, LESION])
    assert found["bright x-ray"].average_precision == 1
    assert found["bright x-ray"].pointing_game.value == 1
    assert found["bright x-ray"].dice == 1
    assert found["dark x-ray"].pointing_game.value == 0
    assert found[BLIND].average_precision == pytest.approx(4 / 64)


def test_the_average_mask_knows_the_place_and_not_the_image():
    blank = [np.zeros((SIDE, SIDE))] * 3
    same = hear([LESION, LESION], [LESION], blank, blank)
    assert same[AVERAGE_MASK].average_precision_per_image.value == 1
    assert same[AVERAGE_MASK].dice == 1  # at a threshold from the two others
    moved = hear([LESION, LESION], [ELSEWHERE], blank, blank)
    assert moved[AVERAGE_MASK].pointing_game.value == 0


def test_a_map_of_another_patient_is_the_map_of_the_one_before():
    blank = [np.zeros((SIDE, SIDE))] * 3
    # Every map is a perfect one of the patient after it.
    found = hear([LESION], [LESION, ELSEWHERE], blank, [LESION, ELSEWHERE, LESION])
    assert found[OTHER_PATIENT].average_precision_per_image.value == 1


def test_further_images_of_a_patient_get_no_map_of_their_own_patient():
    blank = [np.zeros((SIDE, SIDE))] * 3
    maps = [LESION, ELSEWHERE, ELSEWHERE]  # of patients a, b and b
    found = hear([LESION], [LESION, LESION], blank, maps, patients="abb")
    assert found[OTHER_PATIENT].average_precision_per_image.value == 1


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_the_weight_of_the_centre_is_largest_there_and_alike_on_both_sides(shape: tuple[int, ...]):
    weight = centre_weight(shape)
    assert weight.shape == shape
    assert weight[tuple(side // 2 for side in shape)] == weight.max() == 1
    np.testing.assert_array_equal(weight, np.flip(weight))


def figures(value: float) -> MapFigures:
    return MapFigures(value, Estimate(value, 0, 1), Estimate(value, 0, 1), value)


def localisation(own: float, other: float) -> Localisation:
    return Localisation(
        "pixel", "half", 3, "the other half", 3, "evidence", own, (own, own), 0.1, own, own, 1.0,
        0.1, 3, 3, 1.0, 0.0, 3, Estimate(own, 0, 1), Estimate(own, 0, 1),
        {CENTRE: figures(other), BLIND: figures(0.1)},
    )  # fmt: skip


def test_a_baseline_that_wins_is_named_with_both_figures():
    said = localisation(0.25, 0.5).verdict()
    assert said.count(CENTRE) == 1
    assert [said.count(f"{name} (0.50 against 0.25)") for name in MEASURES] == [1, 1, 1, 1]
    assert BLIND not in said
    assert "better than every baseline" in localisation(0.5, 0.25).verdict()
