"""Drawn chest X-rays in the Kaggle Pneumonia layout: the real loader runs without the real data.

A radiograph is drawn the way it comes about (``thorax``): thicknesses of soft tissue and bone add
up, air in the lungs is taken away, and the sum attenuates the beam. Pneumonia is air replaced by
fluid, nothing else: sick and normal images share every other distribution, so a detector can only
find the opacity itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from vaelab.atomic import write_folder_once
from vaelab.data.phantoms.film import collimation, expose, print_marker
from vaelab.data.phantoms.thorax import (
    consolidation,
    coordinates,
    draw_anatomy,
    interstitial_haze,
    lungs,
    other_bones,
    ribs,
    smooth_noise,
    soft_tissue,
)
from vaelab.errors import UserError
from vaelab.progress import progress

GENERATOR_VERSION = 1  # raise it with any change of the pixels: old folders are then not reused
NUM_FEW = 8  # images of each small folder (train/PNEUMONIA, val/*), as in Kaggle's val
PARTS = ("train", "val", "test")
MASK_THRESHOLD = 0.05  # thickness of fluid from which a pixel counts as sick
MASK_MARGIN = 0.06  # share of the image's height within which fainter haze ends around a mask

Disease = Literal["normal", "bacteria", "virus"]


@dataclass(frozen=True)
class PhantomXray:
    """A cohort of drawn chest X-rays, written on first use and found again afterwards.

    Below the folder that ``prepare`` returns: ``{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`` as
    Kaggle has it, and ``masks/<part>/PNEUMONIA/<stem>.png`` (0 or 255), the truth of every opacity.
    An image depends on ``seed``, ``image_size`` and its place in its folder alone, so cohorts of
    any size share their first images.
    """

    num_train: int = 200  # normal images in train
    num_test: int = 40  # images per class in test
    image_size: int = 160  # pixels; geometric mean of an image's width and height
    seed: int = 0

    def __post_init__(self) -> None:
        for key, smallest, usual in (
            ("num_train", 2, 200),
            ("num_test", 2, 40),
            ("image_size", 48, 160),
            ("seed", 0, 0),
        ):
            value = getattr(self, key)
            if value < smallest:
                need = (
                    "must not be negative" if key == "seed" else f"at least {smallest} are needed"
                )
                raise UserError(f"dataset.phantoms.{key}={value}: {need}; try {usual}")

    def prepare(self, root_dir: str | os.PathLike[str], progress_bar: bool = False) -> Path:
        """Return the cohort's folder below ``root_dir``, writing it whole on first use."""
        name = (
            f"phantom_xray-v{GENERATOR_VERSION}-{self.num_train}train-{self.num_test}test"
            f"-{self.image_size}px-seed{self.seed}"
        )
        return write_folder_once(
            Path(root_dir) / name, lambda folder: self._write(folder, progress_bar)
        )

    def _write(self, folder: Path, progress_bar: bool) -> None:
        for entry in progress(
            self._images(), "writing X-ray phantoms", shown=progress_bar, unit="image"
        ):
            write_image(entry, folder, self.image_size)

    def _images(self) -> list[ImageFile]:
        counts = {  # normal, sick
            "train": (self.num_train, NUM_FEW),
            "val": (NUM_FEW, NUM_FEW),
            "test": (self.num_test, self.num_test),
        }
        return [
            entry
            for part, per_class in counts.items()
            for sick, count in zip((False, True), per_class, strict=True)
            for entry in islice(list_images(self.seed, part, sick), count)
        ]


@dataclass(frozen=True)
class Patient:
    """One patient; ``number`` is unique within normals and within sick, over all parts."""

    seed: int
    number: int
    disease: Disease

    def stream(self, purpose: int, view: int = 0) -> np.random.Generator:
        """Own random stream per purpose, so that an opacity moves nothing else in the image."""
        sick = int(self.disease != "normal")
        return np.random.default_rng(
            np.random.SeedSequence((self.seed, sick, self.number, purpose, view))
        )


class ImageFile(NamedTuple):
    """One file of the tree; ``stem`` is the Kaggle name without its ending."""

    part: str
    stem: str
    patient: Patient
    view: int

    @property
    def folder(self) -> str:
        """Kaggle's folder of the image, relative to the root."""
        return f"{self.part}/{'NORMAL' if self.patient.disease == 'normal' else 'PNEUMONIA'}"


def list_images(seed: int, part: str, sick: bool) -> Iterator[ImageFile]:
    """Files of one class folder in order, without end; a longer list starts as a shorter one.

    Patient numbers of the three parts are interleaved, so no patient can be in two of them.
    Every fourth sick and every eighth normal patient was X-rayed twice.
    """
    index = 0
    while True:
        number = len(PARTS) * index + PARTS.index(part)
        index += 1
        if sick:
            disease: Disease = "virus" if index % 3 == 0 else "bacteria"
            for view in range(2 if index % 4 == 2 else 1):
                stem = f"person{number + 1}_{disease}_{2 * number + view + 1}"
                yield ImageFile(part, stem, Patient(seed, number, disease), view)
        else:
            series = "NORMAL2-IM" if index % 2 == 0 else "IM"
            stem = f"{series}-{115 + number:04d}-0001"
            twice = index % 8 == 3
            for view in range(2 if twice else 1):
                yield ImageFile(
                    part,
                    f"{stem}-{view + 1:04d}" if twice else stem,
                    Patient(seed, number, "normal"),
                    view,
                )


def write_image(entry: ImageFile, root: Path, image_size: int) -> None:
    """One JPEG below ``root``, and the mask of a sick one."""
    image, mask = radiograph(entry.patient, entry.view, image_size)
    # As in Kaggle, a few files are RGB; here in both classes, or colour would give sick away.
    mode = "RGB" if entry.patient.number % 7 == 3 else "L"
    path = root / entry.folder / f"{entry.stem}.jpeg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert(mode).save(path, quality=92)
    if entry.patient.disease != "normal":
        path = root / "masks" / entry.folder / f"{entry.stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)


class Film(NamedTuple):
    """A drawn film and where its opacities lie."""

    image: NDArray[np.uint8]  # (H, W) grey
    mask: NDArray[np.bool_]  # (H, W) opacities


def radiograph(patient: Patient, view: int, image_size: int, with_opacity: bool = True) -> Film:
    """Image ``view`` of a patient; without the opacity, the same image had they been healthy."""
    anatomy = draw_anatomy(patient.stream(0))
    positioning, exposure = patient.stream(1, view), patient.stream(2, view)
    x, y = coordinates(positioning, image_size)
    lung = lungs(patient.stream(3), anatomy, x, y)
    filled = soft_tissue(anatomy, x, y) + ribs(patient.stream(4), anatomy, x, y)
    filled = filled + other_bones(anatomy, x, y)
    filled = filled + 0.02 * smooth_noise(positioning, x.shape, 0.04 * x.shape[0])
    share = np.zeros_like(x)
    if with_opacity and patient.disease != "normal":
        draw = consolidation if patient.disease == "bacteria" else interstitial_haze
        share = draw(patient.stream(5, view), lung, x, y)
        outside = distance_transform_edt(share * lung.air <= MASK_THRESHOLD) / x.shape[0]
        share = share * np.clip(2 - outside / (0.5 * MASK_MARGIN), 0, 1)
    healthy = filled - lung.air
    fluid = share * lung.air  # vessels are no air: they drown in it and are seen no more
    visible = collimation(positioning, x.shape)
    film = expose(exposure, healthy + fluid, healthy, visible)
    return Film(print_marker(positioning, film), fluid * visible > MASK_THRESHOLD)
