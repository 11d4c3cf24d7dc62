"""Claims about the threshold that is chosen in one place and judged in another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vaelab.anomaly.detector import Prediction
from vaelab.errors import UserError
from vaelab.evaluation.baselines import Baselines
from vaelab.evaluation.localisation import (
    MAX_RECORDS,
    ChosenThreshold,
    Localisation,
    LocalisedLesions,
    Part,
    choose_parts,
)
from vaelab.metrics.bootstrap import Estimate

MASKS = np.zeros((2, 10, 10), np.uint8)  # two images, of which
MASKS[0, 2:4, 2:7] = 1  # the first has a lesion of 10 pixels of its 100,
MASKS[1, 6:8, 1:6] = 1  # and the second one as large
SHARE = 20 / 200


Images = list[tuple[np.ndarray, np.ndarray]]
"""Batches of maps and masks."""


def judge(choosing: Images, judging: Images) -> Localisation | None:
    patients = {name: name for name in map(str, range(100))}
    names = iter(patients)

    def heard(listener: ChosenThreshold | LocalisedLesions, images: Images) -> None:
        for maps, masks in images:
            heat = torch.tensor(maps, dtype=torch.float32)
            prediction = Prediction(heat, heat, heat, None, shows_score=True)
            batch = {"mask": torch.tensor(masks)[:, None], "image": heat[:, None]}
            listener.add(batch | {"id": [next(names) for _ in maps]}, prediction)

    baselines = Baselines(patients, ["x-ray"])
    chosen = ChosenThreshold(Part("test_full", [0, 1], "half"), baselines)
    lesions = LocalisedLesions(Part("test_full", [2, 3], "the other half"), chosen, patients)
    heard(chosen, choosing)
    heard(lesions, judging)
    return lesions.result("evidence", num_resamples=10, seed=0)


def judged(choosing: np.ndarray, maps: np.ndarray) -> Localisation:
    found = judge([(choosing, MASKS)], [(maps, MASKS)])
    assert found is not None
    return found


def test_a_perfect_map_scores_one():
    found = judged(MASKS, MASKS)
    assert (found.average_precision, found.average_precision_bracket) == (1, (1, 1))
    assert (found.dice, found.dice_where_chosen) == (1, 1)
    assert (found.detection_rate, found.false_positives_per_image) == (1, 0)
    assert found.average_precision_per_image == found.pointing_game == Estimate(1, 1, 1)
    assert (found.unit, found.map, found.threshold_from) == ("pixel", "evidence", "half")


def test_a_blind_map_scores_the_share_of_lesion_pixels():
    blind = np.full(MASKS.shape, 0.25)
    found = judged(blind, blind)
    assert found.average_precision == found.lesion_share == SHARE
    assert found.flagged_share == 1  # so every lesion is found, and that says nothing
    assert found.dice == pytest.approx(2 * SHARE / (1 + SHARE))
    assert found.average_precision_per_image.value == pytest.approx(SHARE)
    assert found.pointing_game.value == pytest.approx(SHARE)  # of all largest pixels, so many hit
    assert found.baselines["blind"] == found.own


def test_a_backwards_map_is_no_better_than_a_blind_one():
    backwards = 1.0 - MASKS
    found = judged(backwards, backwards)
    assert found.average_precision <= SHARE
    assert found.dice <= 2 * SHARE / (1 + SHARE)


def test_the_threshold_knows_nothing_of_the_judged_images():
    found = judged(MASKS, 0.5 * MASKS)  # ranked perfectly, but all below the threshold of 1
    assert found.threshold == 1
    assert found.average_precision == 1
    assert (found.dice, found.lesions_found) == (0, 0)


def test_one_of_two_lesions_and_one_false_alarm_in_two_images():
    maps = MASKS.astype(np.float32)
    maps[1] = 0  # missed: 10 pixels
    maps[0, 9, 5:10] = 1  # false: 5 pixels
    found = judged(MASKS, maps)
    assert found.dice == 2 * 10 / (2 * 10 + 5 + 10)
    assert found.flagged_share == (10 + 5) / 200
    assert (found.lesions, found.lesions_found, found.detection_rate) == (2, 1, 0.5)
    assert found.false_positives_per_image == 1 / 2


def test_batches_add_up():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((6, 9, 9)), (rng.random((6, 9, 9)) < 0.2).astype(np.uint8)
    parts = [(maps[:2], masks[:2]), (maps[2:3], masks[2:3]), (maps[3:], masks[3:])]
    whole = [(maps, masks)]
    assert judge(parts, parts) == judge(whole, whole)


def test_without_a_lesion_on_either_side_there_is_nothing_to_say():
    lesions, none = [(MASKS * 1.0, MASKS)], [(MASKS * 1.0, MASKS * 0)]
    assert judge(none, lesions) is None
    assert judge(lesions, none) is None
    assert judge([], lesions) is None


def test_a_map_of_zeros_is_judged_and_one_that_is_not_finite_is_refused():
    zeros = np.zeros(MASKS.shape)
    assert judged(zeros, zeros).average_precision == SHARE
    with pytest.raises(UserError, match="not finite"):
        judged(zeros + np.nan, zeros)


# --- what it is chosen on


def images(label: int, patients: int, views: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{label}-{number}-{view}", "patient": f"{label}-{number}", "label": label}
        for number in range(patients)
        for view in range(views)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_test_patients_are_halved_within_sick_and_healthy(seed: int):
    records = [*images(1, 10, 2), *images(0, 4, 3)]
    parts = choose_parts({"train": [], "val": [], "test": [], "test_full": records}, seed)
    assert [part.split for part in parts] == ["test_full", "test_full"]
    one, two = ([records[place] for place in part.places] for part in parts)
    assert len(one) + len(two) == len(records)
    assert not {r["patient"] for r in one} & {r["patient"] for r in two}
    assert sum(r["label"] for r in one) == sum(r["label"] for r in two) == 5 * 2
    assert len(one) == len(two) == 5 * 2 + 2 * 3


def test_the_halves_change_with_the_seed_alone():
    splits = {"test_full": images(1, 10, 1)}
    assert choose_parts(splits, 0) == choose_parts(splits, 0)
    assert choose_parts(splits, 0) != choose_parts(splits, 1)


@pytest.mark.parametrize(("subjects", "chosen"), [(3, 3), (200, MAX_RECORDS)])
def test_volumes_are_judged_by_a_threshold_from_the_train_split(subjects: int, chosen: int):
    parts = choose_parts({"train": images(0, subjects, 1), "val": images(0, 4, 1)}, 0)
    assert [part.name for part in parts] == ["train split", "val split"]
    assert len(set(parts[0].places)) == chosen
    assert max(parts[0].places) < subjects
    assert parts[1].places == [0, 1, 2, 3]
