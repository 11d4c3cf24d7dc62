"""What tasks may ask of a dataset beyond its splits and loaders.

Tasks ask here instead of asking which class a dataset is. Every answer has a default: what holds
of most datasets, or one sentence that says what to implement. ``SplitDataModule`` has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaelab.data.groups import Groups
from vaelab.data.index import Record
from vaelab.data.inputs import Input
from vaelab.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

SEGMENTED = "segmented_mm3"
"""Covariate: volume of all labels of a segmentation within what the network sees."""
LABEL = "label"
"""Covariate: 0 normal, 1 sick."""

Covariate = Callable[[Mapping[str, Any]], float]
"""What a sample itself tells of its record."""

Paint = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.uint8]]
"""(grey image in [0, 1], heat), both (H, W) → the heat over the image, RGB of (H, W, 3)."""


@dataclass(frozen=True)
class InputSample:
    """An input as the network sees it, and where in the original that lies."""

    image: Tensor
    """(C, ...), as in training."""
    original: Path
    """The file in whose own space a map is saved."""
    affine: NDArray[np.float64] | None = None
    """Of a volume: voxel indices of ``image`` → mm of the scanner's space, (4, 4)."""
    placement: NDArray[np.float64] | None = None
    """Of an image, (2, 3): (x, y, 1) of ``image`` ↦ (x, y) of the original, both from -1 at the
    left or upper border to 1 at the other."""


class ShiftableImages(Protocol):
    """Reads the images of records in two steps, between which another machine is simulated."""

    def original(self, record: Record) -> Image.Image:
        """Mode "L", at least twice as large as the network sees it."""
        ...

    def prepared(self, image: Image.Image) -> Tensor:
        """What the network sees of a grey image, (1, H, W), as in training."""
        ...


class Original(NamedTuple):
    """A record as a file holds it, and as the run's own code prepares it."""

    pixels: NDArray[np.float32]
    """Without a batch axis."""
    sample: Tensor
    """(C, ...)."""
    restored: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """A map of the sample → the same in the place and the size of ``pixels``."""


class OriginalsInGraph(Protocol):
    """How originals become samples, in operations that can be exported.

    A graph has a batch of originals of one size, whatever that is.
    """

    @property
    def unit(self) -> str:
        """What an original is, in words, and what has been done to it before."""
        ...

    def prepared(self, original: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (B, C, ...), and the part of the original that each shows."""
        ...

    def restored(self, heatmap: Tensor, box: Tensor, original: Tensor) -> Tensor:
        """Maps of samples → of the shape of ``original``.

        Args:
            heatmap: (B, ...).
            box: the second of ``prepared``.
            original: what was prepared.
        """
        ...

    def examples(self, records: Sequence[Record]) -> Iterator[Original]:
        """Records as the run's own code prepares them, to compare with."""
        ...


class DatasetContract:
    """What a task may ask of any dataset."""

    channel_names: Sequence[str]
    """What the channels of ``image`` are, in order."""
    ids_carry_time_points: ClassVar[bool] = False
    """Whether the last number of an id after its patient is the order of the patient's visits."""
    keeps_samples_in_memory: ClassVar[bool] = False
    """Whether a dataset reads its cache once, and epochs after the first read memory."""
    sample_unit: ClassVar[str] = "as the run's dataset prepares it"
    """Of ``image``, in words."""
    paints_maps: ClassVar[bool] = False
    """Whether ``save_map`` makes pictures, whose colours need a scale; else it writes values."""

    def sample_settings(self) -> dict[str, Any]:
        """All that a sample depends on besides its files, as JSON can hold it."""
        return {}

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Size in mm along each axis of a sample; None for images, which have no size."""
        return None

    def affine(self, shape: Sequence[int]) -> NDArray[np.float64] | None:
        """Voxel indices of a sample → mm, its centre at 0: (4, 4); None for images.

        Args:
            shape: (D, H, W).
        """
        return None

    @property
    def covariates(self) -> Mapping[str, Covariate]:
        """Name → what a sample itself tells of its record; of the run's own records alone."""
        return {}

    def factors(self) -> Path | None:
        """A CSV file of known factors, with a column ``id``; None where there is none."""
        return None

    def groups(self) -> Groups:
        """What is known of records and may be mistaken for disease: column → id → value."""
        return {}

    # ------------------------------------------------------------- files from elsewhere

    def find_inputs(self, inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
        """Everything that the user asked to judge, each once, in the order given.

        Args:
            inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these.
            output_dir: where results go; what lies below it is no input.

        Raises:
            UserError: when there is none, or the dataset has no reader of new files.
        """
        self._cannot("task.inputs", "read files from elsewhere", "find_inputs and read_input")

    def read_input(self, path: Path) -> InputSample:
        """One input, read as training reads its own.

        Raises:
            UserError: for a file that cannot be read; others may be.
        """
        self._cannot("task.inputs", "read files from elsewhere", "find_inputs and read_input")

    def save_map(self, heatmap: Tensor, sample: InputSample, stem: Path, paint: Paint) -> None:
        """Write the anomaly map of an input in the original's own space.

        Args:
            heatmap: of the spatial shape of ``sample.image``.
            sample: the input.
            stem: what the file to be written begins with, the input's own place below a folder of
                results.
            paint: lays heat over a grey image, for those that make pictures.
        """
        self._cannot("task.save_maps=true", "save maps", "save_map, or use false")

    def originals_in_graph(self) -> OriginalsInGraph | None:
        """How originals become samples, for ``task=export``; None where that cannot be exported."""
        return None

    # ------------------------------------------------------------- robustness, growth, benchmark

    def shiftable_images(self) -> ShiftableImages:
        """A reader of records' images for ``task=robustness``.

        Raises:
            UserError: for a dataset of something else than grey images.
        """
        self._cannot(
            "task=robustness",
            "show its images as another machine would",
            "shiftable_images, or name a run on chest_xray or phantom_xray with run_dir",
        )

    def with_patients(self, count: int) -> Self:
        """A copy, not set up, with as many synthetic patients of one small record each.

        Raises:
            UserError: for data that are not synthetic.
        """
        self._cannot(
            "task=growth",
            "be made as large as asked",
            "with_patients and with_side; of vaelab's own only dataset=phantom_mri can",
        )

    def with_side(self, side: int) -> Self:
        """A copy whose samples are cubes of ``side`` voxels, of the same field of view."""
        self._cannot("task=growth", "change the size of its samples", "with_side")

    def plain_pipeline(self) -> Callable[[dict[str, Any]], Any] | None:
        """Record → sample as one would write it with MONAI alone, for ``task=benchmark`` to compare
        with; None: there is nothing to compare with.
        """
        return None

    def _cannot(self, key: str, what: str, methods: str) -> NoReturn:
        raise UserError(f"{key}: a {type(self).__name__} cannot {what}; implement {methods}")
