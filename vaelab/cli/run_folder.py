"""The folder of a new run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class NewFolder(Callback):
    """Hydra callback that gives runs of the same second the folders ``<name>``, ``<name>_2``."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the folder of a run that is named by the time, not one that the user chose."""
        raw = OmegaConf.to_container(config, resolve=False)
        assert isinstance(raw, dict)
        if raw["hydra"]["run"]["dir"] == "${run_dir}" and "${now:" in raw["run_dir"]:
            HydraConfig.instance().set_config(config)  # the name refers to Hydra's own
            with suppress(OSError):  # Hydra raises it again
                config.run_dir = str(new_folder(Path(config.run_dir)))


def new_folder(wanted: Path) -> Path:
    """Create a folder that did not exist, so that no other process uses it."""
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}_{number}")
        else:
            return folder
