"""Localisation: maps and masks small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vaelab.errors import UserError
from vaelab.metrics.localisation import (
    BestDice,
    Bracketed,
    LesionCount,
    PixelHistogram,
    count_lesions,
)

MASK = np.array([[0, 0, 1, 1]])


def random_maps(shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Four volumes of 16³ voxels, one in twenty of them lesion and ``shift`` brighter."""
    draw = np.random.default_rng(0)
    masks = draw.random((4, 16, 16, 16)) < 0.05
    return (draw.normal(size=masks.shape) + shift * masks).astype(np.float32), masks


def counted(maps: np.ndarray, masks: np.ndarray) -> PixelHistogram:
    return PixelHistogram().add(maps, masks)


def dice_at(maps: np.ndarray, masks: np.ndarray, threshold: float) -> float:
    """Dice of pixels from a threshold on, counted one by one."""
    flagged, lesion = maps.astype(np.float64) >= threshold, masks != 0
    return float(2 * (flagged & lesion).sum() / (flagged.sum() + lesion.sum()))


# --- average precision


def test_average_precision_has_its_triad() -> None:
    def average_precision(*values: float) -> float:
        return counted(np.array([values]), MASK).average_precision().value

    assert average_precision(1, 2, 3, 4) == 1
    assert average_precision(7, 7, 7, 7) == 2 / 4  # share of lesion
    # Going down the ranking, precision is 1/3 at the first lesion pixel and 2/4 at the second.
    assert average_precision(3, 4, 1, 2) == (1 / 3 + 2 / 4) / 2
    assert average_precision(-2, -1, -4, -3) == (1 / 3 + 2 / 4) / 2  # maps may be signed


def test_any_label_that_is_not_zero_is_lesion() -> None:
    histogram = counted(np.array([[1.0, 2, 3, 4]]), np.array([[0, 0, 2, 3]]))
    assert histogram.average_precision().value == 1


# --- Dice


def test_the_best_threshold_is_where_the_most_lesion_is_flagged_for_the_least_else() -> None:
    # Flagging from 4 on: 2·1/(1+3); from 3 on: 2·1/(2+3); from 2 on: 2·3/(4+3); all: 2·3/(6+3).
    maps = np.array([[4.0, 3, 2, 2, 1, 1]])
    masks = np.array([[1, 0, 1, 1, 0, 0]])
    histogram = counted(maps, masks)
    assert histogram.best_dice_threshold() == BestDice(2, 6 / 7)
    assert histogram.flagged(2) == (3, 1)
    assert histogram.lesion_share == 3 / 6


def test_of_equally_good_thresholds_the_largest_is_taken() -> None:
    # From 4 on 2·1/(1+2) and from 2 on 2·2/(4+2): ⅔ both.
    maps, masks = np.array([[4.0, 3, 3, 2]]), np.array([[1, 0, 0, 1]])
    assert counted(maps, masks).best_dice_threshold() == BestDice(4, 2 / 3)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_no_threshold_does_better_than_the_best_by_more_than_a_bin(decimals: int) -> None:
    maps, masks = random_maps()
    maps = maps.round(decimals)
    best = counted(maps, masks).best_dice_threshold()
    assert dice_at(maps, masks, best.threshold) == best.dice  # exact, and not rounded to float32
    assert max(dice_at(maps, masks, t) for t in np.linspace(-4, 5, 200)) <= best.dice + 1e-3


def test_a_threshold_chosen_on_validation_flatters_no_test_volume() -> None:
    maps, masks = random_maps()
    chosen = counted(maps[:2], masks[:2]).best_dice_threshold().threshold
    assert (
        dice_at(maps[2:], masks[2:], chosen)
        <= counted(maps[2:], masks[2:]).best_dice_threshold().dice
    )


# --- lesions


def picture(*rows: str) -> np.ndarray:
    """``#`` is 1 and all else 0."""
    return np.array([[float(pixel == "#") for pixel in row] for row in rows])


LESIONS = picture(
    "##....",
    "##....",
    "......",
    "....##",
)
ALARMS = picture(
    ".#..#.",  # a quarter of the first lesion, and a false alarm
    "......",
    "......",
    "#.....",  # another; the second lesion is missed
)


def test_one_of_two_lesions_is_found_at_the_cost_of_two_false_alarms() -> None:
    assert count_lesions(ALARMS, LESIONS, threshold=1) == LesionCount(2, 1, 2, volumes=1)


def test_lesion_counts_have_their_triad() -> None:
    assert count_lesions(LESIONS, LESIONS, 1) == LesionCount(2, 2, 0, 1)  # perfect
    assert count_lesions(LESIONS, LESIONS, 0) == LesionCount(2, 2, 0, 1)  # all flagged: one blob
    assert count_lesions(LESIONS, LESIONS, 2) == LesionCount(2, 0, 0, 1)  # none flagged
    # Backwards: one component, all around the lesions, and no lesion in it.
    assert count_lesions(1 - LESIONS, LESIONS, 1) == LesionCount(2, 0, 1, 1)


def test_pixels_that_share_a_corner_are_one_lesion_in_2d_and_3d() -> None:
    diagonal = picture("#..", ".#.", "..#")
    assert count_lesions(diagonal, diagonal, 1).lesions == 1
    cube = np.zeros((3, 3, 3))
    cube[[0, 1, 2], [0, 1, 2], [0, 1, 2]] = 1
    assert count_lesions(cube, cube, 1).lesions == 1


def test_one_alarm_across_two_lesions_finds_both() -> None:
    mask, heatmap = picture("#...#"), picture("#####")
    assert count_lesions(heatmap, mask, 1) == LesionCount(2, 2, 0, 1)


def test_a_healthy_volume_has_false_alarms_only() -> None:
    count = count_lesions(ALARMS, np.zeros_like(LESIONS), 1)
    assert count == LesionCount(0, 0, 3, 1)
    assert count.sensitivity is None


def test_counts_of_volumes_add_up_to_rates_of_a_cohort() -> None:
    healthy = count_lesions(ALARMS, np.zeros_like(LESIONS), 1)  # three false alarms
    cohort = sum([count_lesions(ALARMS, LESIONS, 1), healthy], LesionCount())
    assert cohort == LesionCount(2, 1, 5, volumes=2)
    assert (cohort.sensitivity, cohort.false_positives_per_volume) == (1 / 2, 5 / 2)
    assert LesionCount().false_positives_per_volume is None


# --- many volumes in one histogram


def test_values_of_one_bin_bracket_average_precision_from_their_order_lost() -> None:
    alike = 1 + np.array([[1.0, 2, 3, 4]]) / 4096  # far less than 1/256 apart
    # Equal: 2/4. Others first: at least 1/3 at each lesion pixel. Lesion first: 1 at each.
    assert counted(alike, MASK).average_precision() == Bracketed(2 / 4, 1 / 3, 1)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("decimals", [0, 1, 8])  # ties across volumes, and none
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0, 9.0])
def test_the_exact_average_precision_lies_within_a_narrow_bracket(
    shift: float, decimals: int, scale: float
) -> None:
    maps, masks = random_maps(shift)
    maps = (maps.round(decimals) * scale).astype(np.float32)
    histogram = PixelHistogram()
    for heatmap, mask in zip(maps, masks, strict=True):
        histogram = histogram.add(heatmap, mask)
    exact = average_precision_score(masks.ravel(), maps.ravel())
    value, low, high = histogram.average_precision()
    assert low <= value <= high
    assert low - 1e-12 <= exact <= high + 1e-12
    assert high - low < 0.02 or decimals < 8  # in some order: ties have none of their own


def test_adding_leaves_the_histogram_as_it_was() -> None:
    empty = PixelHistogram()
    empty.add(np.ones((2, 2)), np.ones((2, 2)))
    assert empty.inside.total == empty.outside.total == 0


# --- refusals


def test_masks_without_a_lesion_are_refused_with_the_cure() -> None:
    histogram = counted(np.ones((2, 2)), np.zeros((2, 2)))
    for judge in (histogram.average_precision, histogram.best_dice_threshold):
        with pytest.raises(UserError, match=r"no pixel of any\. Judge volumes with a seg"):
            judge()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    maps = np.array([[1.0, bad, 2, 3]])
    for judge in (
        lambda: count_lesions(maps, MASK, 1.0),
        lambda: counted(maps, MASK.T.reshape(1, 4)),
    ):
        with pytest.raises(UserError, match="values of a heat map are not finite; did the"):
            judge()
