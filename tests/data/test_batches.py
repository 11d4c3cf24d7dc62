"""Batches of several processes are every sample once, as one process would have taken them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaelab.data.batches import (
    FILLER,
    EpochBatches,
    EpochOrder,
    Filler,
    Rows,
    Share,
    WithFillers,
)


def batches(size: int, batch_size: int, rank: int, world_size: int, seed: int | None = 0) -> Any:
    return EpochBatches(EpochOrder(size, seed), batch_size, Share(rank, world_size))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_all_processes_together_take_the_steps_of_one(
    size: int, batch_size: int, world_size: int, epoch: int
) -> None:
    shares = [batches(size, batch_size, rank, world_size) for rank in range(world_size)]
    for share in shares:
        share.sampler.set_epoch(epoch)
    alone = batches(size, batch_size * world_size, 0, 1)
    alone.sampler.set_epoch(epoch)
    steps = list(zip(*shares, strict=True))  # strict: every process makes as many steps
    assert len(steps) == len(alone)
    for together, whole in zip(steps, alone, strict=True):
        samples = [i for own in together for i in own if not isinstance(i, Filler)]
        assert samples == whole


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_a_process_knows_which_rows_of_a_step_are_its_own(
    size: int, batch_size: int, world_size: int
) -> None:
    for rank in range(world_size):
        share = batches(size, batch_size, rank, world_size, seed=None)
        for step, own in enumerate(share):
            rows = share.rows(step)
            if rows.own:
                assert own == list(range(share.first_row(step), share.first_row(step) + rows.own))
            else:
                assert [type(index) for index in own] == [Filler]


def test_three_samples_for_two_processes_with_batches_of_one() -> None:
    first, second = (batches(3, 1, rank, 2, seed=None) for rank in (0, 1))
    assert list(first) == [[0], [2]]
    assert list(second) == [[1], [Filler(0)]]
    assert second.rows(1) == Rows(before=1, own=0, total=1)


def test_a_filler_is_marked_and_a_sample_is_not() -> None:
    dataset = WithFillers([{"image": 1.0}, {"image": 2.0}])
    assert dataset[1] == {"image": 2.0}
    assert dataset[Filler(0)] == {"image": 1.0, FILLER: True}
    assert len(dataset) == 2


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_order_is_a_function_of_seed_and_epoch(epoch: int) -> None:
    one, other = EpochOrder(20, 3), EpochOrder(20, 3, epoch)
    one.set_epoch(epoch)
    assert list(one) == list(other)
    assert sorted(one) == list(range(20))
    assert list(EpochOrder(20, 3, epoch + 1)) != list(one)
