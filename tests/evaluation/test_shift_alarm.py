"""Claims about the alarm that says when p-values do not hold."""

from __future__ import annotations

import numpy as np
import pytest

from vaelab.errors import UserError
from vaelab.evaluation.shift_alarm import LEVEL, Seen, compare


def seen(count: int, seed: int, score: float = 0.0, mu: float = 0.0, grey: float = 0.0) -> Seen:
    draw = np.random.default_rng(seed)
    return Seen(
        draw.normal(score, 1, count),
        draw.normal(mu, 1, (count, 4)),
        draw.normal(grey, 1, (count, 8)),
    )


@pytest.mark.parametrize(
    ("moved", "view"), [("score", "scores"), ("mu", "latents"), ("grey", "intensity")]
)
def test_an_alarm_names_what_has_moved(moved: str, view: str):
    found = compare(seen(60, 1), "60 normal images of here", seen(50, 2, **{moved: 2.0}))
    assert found.alarm
    assert [name for name, p in found.p_values.items() if p <= LEVEL] == [view]
    sentence = found.sentence()
    assert "p-values do not hold" in sentence
    assert "60 normal images of here" in sentence
    assert f"({view}; level 0.01)" in sentence


def test_the_unit_of_scores_and_intensities_does_not_matter():
    reference, new = seen(60, 1), seen(50, 2, score=0.5, grey=0.5)
    first = compare(reference, "", new)
    scaled = [
        Seen(np.exp(s.scores), s.latents, s.intensity * np.arange(1, 9) + 7)
        for s in (reference, new)
    ]
    assert compare(scaled[0], "", scaled[1]).p_values == first.p_values


def test_like_images_raise_no_alarm_more_often_than_stated():
    alarms = sum(compare(seen(30, s), "", seen(20, 1000 + s)).alarm for s in range(100))
    assert alarms <= 5  # of 100 at level 0.01: more have a probability of 0.0005


@pytest.mark.parametrize(("count", "enough"), [(1, False), (2, False), (3, True)])
def test_few_images_cannot_tell_and_that_is_said(count: int, enough: bool):
    found = compare(seen(20, 1), "20 images", seen(count, 2, score=99, mu=99, grey=99))
    # Of 20 + 2 rows 231 pairs could be the new ones: 3/231 is more than 0.01.
    assert found.enough_images is enough
    assert found.alarm is enough
    assert found.verdict == ("no" if enough else "unknown")
    assert ("too few to tell" in found.sentence()) is not enough


def test_what_was_seen_is_kept_to_six_digits():
    images = seen(5, 1)
    again = Seen.from_json(images.scores, images.to_json(), "file")
    np.testing.assert_allclose(again.latents, images.latents, rtol=1e-5)
    np.testing.assert_allclose(again.intensity, images.intensity, rtol=1e-5)


@pytest.mark.parametrize("content", [{}, {"latents": [[1.0]], "intensity": [[1.0], [2.0]]}, 3])
def test_a_damaged_table_is_named(content: object):
    with pytest.raises(UserError, match=r"calibration\.json.*'seen'"):
        Seen.from_json(np.zeros(1), content, "calibration.json")
