"""Optimisers as the config names them."""

from __future__ import annotations

import pytest
import torch

from vaelab.errors import UserError
from vaelab.training.optimizer import AdamW


def weight(value: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([value]))


def test_weight_decay_shrinks_a_weight_by_its_share_of_the_learning_rate() -> None:
    at_rest = weight(2.0)
    optimizer = AdamW(lr=0.1, weight_decay=0.5)([at_rest], epochs=1).optimizer
    at_rest.grad = torch.zeros(1)
    optimizer.step()
    assert at_rest.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def test_without_a_final_share_there_is_no_schedule() -> None:
    assert AdamW(lr=0.1)([weight(1.0)], epochs=3).schedule is None
    assert AdamW(lr=0.1, lr_final=0.5)([weight(1.0)], epochs=3).schedule is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, r"train\.lr=0\.0: must be above 0"),
        ({"lr": float("nan")}, r"train\.lr=nan"),
        ({"lr": 0.1, "lr_final": 2.0}, r"train\.lr_final=2\.0"),
        ({"lr": 0.1, "weight_decay": -1.0}, r"optimizer\.weight_decay=-1\.0"),
        ({"lr": 0.1, "betas": (0.9, 1.0)}, r"optimizer\.betas=\[0\.9, 1\.0\]"),
    ],
)
def test_a_value_that_cannot_work_is_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdamW(**settings)  # type: ignore[arg-type]
