"""Whether a run registers its radiographs, decided on normal ones, and the template it keeps."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.atomic import write_json
from vaelab.data.build import map_blocks, thread_pool
from vaelab.data.index import Record
from vaelab.data.xray.thorax import IDENTITY, SIDE, Thorax, crop, learn_thorax, spread
from vaelab.errors import UserError

log = logging.getLogger(__name__)

FILE = "thorax.json"
LEARNED_FROM, JUDGED_ON = 120, 60  # normal images, at most
# Registration has to leave less than this share of what held-out normal images differ by. It left
# 0.45 to 0.52 of it on adults and 0.73 on children, whose films are collimated to the chest.
WORTH_IT = 2 / 3

Look = Callable[[Record], NDArray[np.float32]]
"""Reads an image whole, (64, 64)."""


class Registration:
    """The template of a run, in ``thorax.json`` beside its splits.

    Args:
        register: true, false, or "auto": if it brings held-out normal images closer together.
        folder: of the file.

    Raises:
        UserError: for any other value of ``register``.
    """

    def __init__(self, register: bool | str, folder: Path) -> None:
        if register not in (True, False, "auto"):
            raise UserError(f"dataset.register={register}: true, false or auto")
        self.register = register
        self.path = folder / FILE
        self._known: Thorax | None = None

    def prepare(self, train: Sequence[Record], val: Sequence[Record], look: Look) -> None:
        """Learn the template and decide, unless the run has done so.

        Args:
            train, val: normal images only.
            look: reads one of them.
        """
        if self.register is False or self.path.is_file():
            return
        draw = random.Random(0)
        learned_from, judged_on = (
            draw.sample(list(records), min(len(records), most))
            for records, most in ((train, LEARNED_FROM), (val, JUDGED_ON))
        )
        with thread_pool() as pool:
            images = np.stack(list(map_blocks(pool, look, [*learned_from, *judged_on])))
        log.info("registering: the mean thorax of %d normal images", len(learned_from))
        seen, unseen = np.split(images, [len(learned_from)])
        thorax = learn_thorax(seen)
        before, after = _spread(seen, unseen, None), _spread(seen, unseen, thorax)
        registered = self.register is True or after < WORTH_IT * before
        log.info(
            "dataset.register=%s: normal images differ by %.3g, registered by %.3g (%.0f %%): %s",
            *(self.register, before, after, 100 * after / before),
            "registered" if registered else "left as they are",
        )
        content: dict[str, Any] = {
            "registered": registered,
            "spread_before": before,
            "spread_after": after,
            "template": np.round(thorax.template, 5).tolist(),
        }
        write_json(self.path, content)

    @property
    def thorax(self) -> Thorax | None:
        """What images are fitted to; None where they are left as they are.

        Raises:
            UserError: when the file is needed and is not there or damaged.
        """
        if self.register is not False and self._known is None:
            self._known = read_thorax(self.path)
        return self._known


def read_thorax(path: Path) -> Thorax | None:
    """The template of a run that has one and registers its images.

    Raises:
        UserError: when the file is not there or damaged.
    """
    cure = "copy it from where the run was trained"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        template = np.array(content["template"], dtype=np.float32).reshape(SIDE, SIDE)
        return Thorax(template) if content["registered"] else None
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file, so images cannot be registered; {cure}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no template ({error}); {cure}") from error


def _spread(seen: NDArray[np.float32], unseen: NDArray[np.float32], thorax: Thorax | None) -> float:
    """Variance of unseen images about the mean of seen ones, each scaled to variance 1."""
    seen_crops, unseen_crops = (
        np.stack([_scaled(_shown(image, thorax)) for image in part]) for part in (seen, unseen)
    )
    return spread(unseen_crops, seen_crops.mean(0))


def _shown(image: NDArray[np.float32], thorax: Thorax | None) -> NDArray[np.float32]:
    return crop(image, IDENTITY if thorax is None else thorax.place(image), image.shape)


def _scaled(image: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (image - image.mean()) / max(float(image.std()), 1e-6)
    return scaled
