"""Claims about the odds of a lesion: brighter than it should be, unlike the other lung, and where
opacities lie.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from vaelab.anomaly.lesion_odds import ByRegistration, LesionOdds
from vaelab.anomaly.scores import SquaredError
from vaelab.errors import UserError

SIDE = 64


class Said(NamedTuple):
    """What a VAE says of images: that they are grey."""

    x_hat: Tensor
    mu: Tensor
    logvar: Tensor


Batch = tuple[Tensor, Any]


def normals(count: int = 40, seed: int = 0) -> Tensor:
    """Noise about grey, (count, 1, 64, 64)."""
    noise = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return 0.5 + 0.05 * noise


def said_of(x: Tensor) -> Any:
    return Said(torch.full_like(x, 0.5), torch.zeros(len(x), 2), torch.zeros(len(x), 2))


def fitted(count: int = 40, **arguments: Any) -> LesionOdds:
    score = LesionOdds(**arguments)

    def seen() -> Iterator[Batch]:
        raise AssertionError("the images that the network has learned from are not asked for")

    def held_out() -> Iterator[Batch]:
        for x in normals(count).split(16):
            yield x, said_of(x)

    score.fit(seen, held_out)
    return score


def with_spot(x: Tensor, row: int, column: int, height: float) -> Tensor:
    """Each image with 8 × 8 pixels brighter by ``height``."""
    changed = x.clone()
    changed[:, :, row : row + 8, column : column + 8] += height
    return changed


def mean_score(score: LesionOdds, x: Tensor) -> float:
    return float(score(x, said_of(x)).mean())


def test_what_is_brighter_counts_where_opacities_lie_and_hardly_elsewhere() -> None:
    score, x = fitted(), normals(8, seed=1)
    lung, corner = (with_spot(x, *place, 0.15) for place in ((41, 43), (2, 2)))
    assert mean_score(score, lung) > mean_score(score, x) + 0.05
    assert mean_score(score, corner) == pytest.approx(mean_score(score, x), abs=0.02)


def test_darker_is_no_opacity_but_makes_the_other_lung_suspect() -> None:
    score, x = fitted(), normals(8, seed=1)
    darker = with_spot(x, 41, 43, -0.15)
    change = (score.map(darker, said_of(darker)) - score.map(x, said_of(x))).mean(0)
    assert change[41:49, 43:51].mean() < 0
    assert change[41:49, 13:21].mean() > 0  # columns 43 to 50 mirrored in 64


def test_the_map_lights_up_at_the_lesion_and_adds_up_to_the_score() -> None:
    score, x = fitted(), with_spot(normals(8, seed=1), 41, 43, 0.15)
    evidence = score.map(x, said_of(x))
    assert evidence.shape == (8, SIDE, SIDE)
    for heat in evidence:
        row, column = divmod(int(heat.argmax()), SIDE)
        assert 41 <= row < 49
        assert 43 <= column < 51
    torch.testing.assert_close(evidence.sum((1, 2)).log(), score(x, said_of(x)))


def test_a_pixel_as_normal_images_have_it_on_average_has_the_odds_of_its_place() -> None:
    """z = 0 everywhere: exp(0) times the prior, whose sum is 1 and its logarithm 0."""
    score = fitted(structure=0)  # nothing goes together with a grey image
    score.normal = {
        name: (torch.zeros_like(mean), deviation)
        for name, (mean, deviation) in score.normal.items()
    }
    grey = torch.full((1, 1, SIDE, SIDE), 0.5)
    torch.testing.assert_close(score.map(grey, said_of(grey))[0], score.prior((SIDE, SIDE)))
    assert float(score(grey, said_of(grey))) == pytest.approx(0, abs=1e-5)


def test_contrast_and_brightness_of_a_film_do_not_count() -> None:
    """c(x) has no unit: of an image and its copy at 0.6 of the contrast it is the same."""
    score = fitted()
    x = torch.linspace(0, 1, SIDE).expand(1, 1, SIDE, SIDE).clone()
    x += 0.3 * torch.sin(torch.arange(SIDE) / 3.0)[:, None]
    said = Said(x.flip(2), torch.zeros(1, 2), torch.zeros(1, 2))
    other = said._replace(x_hat=0.2 + 0.6 * said.x_hat)
    first, second = score(x, said), score(0.2 + 0.6 * x, other)  # type: ignore[arg-type]
    torch.testing.assert_close(first, second, atol=0.02, rtol=0)


def test_one_pixel_cannot_decide() -> None:
    """Evidence is cut at 6 deviations for each of 2.5: at most exp(0.2 · 15) of the prior."""
    score, x = fitted(), with_spot(normals(1, seed=1), 41, 43, 1e3)
    assert float(score(x, said_of(x))) <= 0.2 * 15
    assert math.isfinite(float(score(x, said_of(x))))


def test_too_few_normal_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"9 held-out normal images .* raise dataset\.val_split"):
        fitted(9)


@pytest.mark.parametrize("key", ["local", "sigma", "slope"])
def test_a_value_that_is_not_positive_is_named(key: str) -> None:
    with pytest.raises(UserError, match=rf"score\.{key}=0: must be above 0"):
        LesionOdds(**{key: 0})


# --- which score follows from registration


@pytest.mark.parametrize("registered", [True, False])
def test_the_score_follows_what_the_run_decided(tmp_path: Path, registered: bool) -> None:
    content = {"registered": registered, "template": np.zeros((64, 64)).tolist()}
    (tmp_path / "thorax.json").write_text(json.dumps(content))
    odds, other = LesionOdds(), SquaredError()
    score = ByRegistration({"registered": odds, "otherwise": other}, str(tmp_path / "thorax.json"))
    x = normals(16)
    score.fit(lambda: iter([]), lambda: iter([(x, said_of(x))]))
    used = odds if registered else other
    torch.testing.assert_close(score(x, said_of(x)), used(x, said_of(x)))
    torch.testing.assert_close(score.map(x, said_of(x)), used.map(x, said_of(x)))
    assert bool(odds.normal) is registered


def test_what_is_hidden_counts_though_it_is_no_brighter() -> None:
    """The network rebuilds stripes. Where an image of the same mean and contrast has others, their
    local correlation is gone; without its weight, only the residual is left.
    """
    stripes = 0.5 + 0.2 * torch.sin(torch.arange(SIDE) * 0.8).expand(1, 1, SIDE, SIDE)
    usual = stripes + 0.3 * (normals() - 0.5)
    hidden = stripes + 0.3 * (normals(1, seed=1) - 0.5)
    shown = (slice(None), slice(None), slice(36, 54), slice(38, 56))
    hidden[shown] = hidden.transpose(2, 3)[shown]
    maps = {}
    for weight in (0.0, 2.0):
        score = LesionOdds(structure=weight)
        said = Said(stripes.expand(40, -1, -1, -1), torch.zeros(40, 2), torch.zeros(40, 2))
        score.fit(lambda: iter([]), lambda said=said: iter([(usual, said)]))  # type: ignore[misc]
        one = Said(stripes, torch.zeros(1, 2), torch.zeros(1, 2))
        heat = score.map(hidden, one) / score.prior((SIDE, SIDE))  # type: ignore[arg-type]
        maps[weight] = float(heat[0, 42:48, 44:50].mean() / heat[0, 42:48, 8:14].mean())
    assert maps[2.0] > 1.5 * maps[0.0]
