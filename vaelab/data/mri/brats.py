"""BraTS-MEN: folders of four co-registered MRI series and a tumour segmentation.

LaBella et al. 2023 (arXiv:2305.07642). Layout: ``<root>/<record>/<record>-t1c.nii.gz`` and so on,
where ``BraTS-MEN-00004-000`` and ``-001`` are two time points of patient ``BraTS-MEN-00004``.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaelab.data.volumes.module import VolumeDataModule
from vaelab.data.volumes.settings import VolumeSettings


@dataclass(frozen=True)
class BraTSSettings(VolumeSettings):
    """Settings of volumes with the labels of BraTS 2023."""

    labels = frozenset(range(4))  # background, necrosis, oedema, enhancing tumour


class BraTSDataModule(VolumeDataModule):
    """Loaders of ``{"image", "seg", "id"}`` batches of BraTS-MEN, see ``VolumeDataModule``."""

    settings_type = BraTSSettings
    usual_modalities = ("t1c", "t1n", "t2f", "t2w")
    sample_unit = "standard deviations of each series, 0 its mean"
