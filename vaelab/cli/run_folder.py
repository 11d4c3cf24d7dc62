"""The folder of a new run."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class NewFolder(Callback):
    """Hydra callback: two runs begun in one second get two folders, ``<name>`` and ``<name>_2``."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder of a run that is named by the time; others are the user's choice."""
        raw = OmegaConf.to_container(config, resolve=False)
        assert isinstance(raw, dict)
        if raw["hydra"]["run"]["dir"] == "${run_dir}" and "${now:" in raw["run_dir"]:
            HydraConfig.instance().set_config(config)  # the name refers to Hydra's own
            with suppress(OSError):  # Hydra meets it again, and ends with it
                config.run_dir = str(new_folder(Path(config.run_dir)))


def new_folder(wanted: Path) -> Path:
    """Make a folder that was not there, and so is this process's own."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() does not end")
