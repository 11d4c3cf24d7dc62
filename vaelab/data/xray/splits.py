"""How the images of the Kaggle layout are shared out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from vaelab.data.index import Record, split_by_patient
from vaelab.data.xray.leaks import drop_seen_in_test
from vaelab.data.xray.looks import Look
from vaelab.errors import UserError


def split_chest_xray(
    records: Sequence[Record],
    val_split: float,
    seed: int,
    test_per_class: int | None = None,
    looks: Mapping[str, Look] | None = None,
) -> dict[str, list[Record]]:
    """Normal images for training and validation, as many sick as normal ones for testing.

    Args:
        records: as ``scan_chest_xray`` gives them.
        val_split: share of the patients of the training pool kept for validation, in (0, 1).
        seed: of both draws.
        test_per_class: images of each class in the test split; None takes all of the rarer class.
        looks: by id; with them images that were saved again are recognised.

    Returns:
        ``train``, ``val``, ``test`` and ``test_full``, all test images of both classes; the pool
        loses, with a warning, what test images show too.

    Raises:
        UserError: when ``test_per_class`` asks for more than there is.
    """
    pool = [r for r in records if r["part"] != "test" and r["label"] == 0]
    test = [r for r in records if r["part"] == "test"]
    pool = drop_seen_in_test(pool, [r for r in test if r["label"] == 0], looks)
    train, val = split_by_patient(pool, val_split, seed)
    balanced = _balanced(test, seed, test_per_class)
    return {"train": train, "val": val, "test": balanced, "test_full": test}


def _balanced(test: Sequence[Record], seed: int, per_class: int | None) -> list[Record]:
    """As many normal as sick test images, drawn by seed, in the order of the draw."""
    classes = [[r for r in test if r["label"] == label] for label in (0, 1)]
    available = min(len(members) for members in classes)
    if per_class is not None and not 0 < per_class <= available:
        raise UserError(
            f"dataset.test_per_class={per_class}: from 1 to {available} images of each class can "
            "be drawn; null takes all"
        )
    draw = random.Random(seed)
    chosen = [draw.sample(members, per_class or available) for members in classes]
    return [record for members in chosen for record in members]
