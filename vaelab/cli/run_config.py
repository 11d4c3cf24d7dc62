"""The config of a run: compose or load, resolve, save, build.

Hydra composes the config of a new run from the command line. A task in an existing run folder, and
a resumed run, start from that run's ``config_resolved.yaml`` instead; only the keys on the command
line are changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vaelab.atomic import replacing
from vaelab.cli.declarations import needed_parts, task_class
from vaelab.cli.parts import build, check_parts, resolve
from vaelab.errors import UserError
from vaelab.runs.differences import deciding, differences, rerooted
from vaelab.runs.folder import CONFIG, RunFolder
from vaelab.runs.status import Refused

if TYPE_CHECKING:
    from vaelab.assembly import Run, Task


@dataclass(frozen=True)
class RunConfig:
    """The resolved config of one run."""

    values: DictConfig
    owner: bool
    """Whether the task creates the run, rather than working on an existing one; see ``owns``."""

    @staticmethod
    def of(cfg: DictConfig) -> RunConfig:
        """Resolve the config that Hydra composed, for the run folder that Hydra created.

        A job of a sweep that has begun before is resumed.

        Raises:
            Refused: when the folder holds a run that would be overwritten, or the folder of a job
                holds a run of another config.
        """
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        cfg.run_dir = str(run_dir)
        saved = run_dir / CONFIG
        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if in_sweep:
            _share_cache(cfg)
        task = task_class(cfg.task)
        if task.needs_trained_run and not saved.is_file():
            name = HydraConfig.get().runtime.choices["task"]
            raise UserError(
                f"task={name}: works in the folder of a trained run; name a trained run with "
                "run_dir=outputs/<run>"
            )
        if cfg.resume and not task.resumable:
            raise UserError(f"resume={cfg.resume}: {task.__name__} cannot be resumed")
        owner = owns(cfg, run_dir)
        resolved = resolve(cfg, complete=in_sweep or not saved.is_file())
        _note_origin(resolved)
        if saved.is_file() and in_sweep:
            _refuse_another(OmegaConf.load(saved), resolved)
            resolved.resume = str(run_dir) if task.resumable else None
        elif saved.is_file() and task.resumable and not cfg.resume:
            raise Refused(
                f"run_dir={run_dir}: already holds a run; go on with resume={run_dir}, or choose "
                "another folder"
            )
        elif saved.is_file():
            overrides = list(HydraConfig.get().overrides.task)
            resolved = _with_overrides(_as_moved(saved), cfg, resolved, overrides)
            resolved.run_dir = str(run_dir)
            resolved.resume = cfg.resume
            resolved.config_dirs = _config_dirs()
        return RunConfig(resolved, owner)

    @staticmethod
    def load(run_dir: Path) -> RunConfig:
        """Load the saved config of a run, with the paths in its folder where that is now."""
        return RunConfig(_as_moved(run_dir.absolute() / CONFIG), owner=False)

    def save(self) -> None:
        """Write ``config_resolved.yaml``, unless the run belongs to another task."""
        if self.owner:
            with replacing(Path(self.values.run_dir) / CONFIG) as partial:
                partial.write_text(OmegaConf.to_yaml(self.values), encoding="utf-8")

    def build(self) -> tuple[Task, Run]:
        """Build the task, and a run with the parts that it needs.

        Raises:
            UserError: of a constructor.
        """
        check_parts(self.values)
        run = self._assembled(needed_parts(self.values.task))
        return build("task", self.values.task), run

    def assemble(self, names: Sequence[str]) -> Run:
        """A run with some of its parts, and no task.

        Raises:
            UserError: the one that a constructor raised.
        """
        check_parts(self.values, names)
        return self._assembled(names)

    def _assembled(self, names: Sequence[str]) -> Run:
        from vaelab.assembly import Run

        parts = {name: build(name, self.values[name]) for name in names}
        for several in ("logger", "callbacks"):
            if several in parts:
                parts[several] = list(_objects(parts[several]))
        return Run(
            RunFolder(Path(self.values.run_dir)),
            parts,
            map_sigma=float(self.values.map_sigma),
            resume=bool(self.values.resume),
        )


def _objects(node: Any) -> Iterator[Any]:
    """All objects of a group that takes several options, however deeply nested."""
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _objects(value)
    elif node is not None:
        yield node


def owns(cfg: DictConfig, run_dir: Path) -> bool:
    """Whether the task creates the run in ``run_dir``, rather than working on an existing one."""
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    return task_class(cfg.task).resumable or in_sweep or not (run_dir / CONFIG).is_file()


def _note_origin(values: DictConfig) -> None:
    """Add to a config what only Hydra knows: options chosen as lists, folders of config files."""
    values.config_dirs = _config_dirs()
    unnamed = [group for group, option in values.choices.items() if option is None]
    if unnamed:
        hydra_config = HydraConfig.get()
        overrides = [*hydra_config.overrides.hydra, *hydra_config.overrides.task]
        loader = GlobalHydra.instance().config_loader()
        name = hydra_config.job.config_name
        chosen = loader.compute_defaults_list(name, overrides, RunMode.RUN).overrides
        for group in unnamed:  # logger=[csv,mlflow]: not among hydra.runtime.choices
            values.choices[group] = chosen.override_choices.get(group)


def _config_dirs() -> list[str]:
    """Folders and packages of config files other than vaelab's own."""
    sources = HydraConfig.get().runtime.config_sources
    return [
        source.path if source.schema == "file" else f"{source.schema}://{source.path}"
        for source in sources
        if source.provider not in ("hydra", "main", "schema")
    ]


def _share_cache(cfg: DictConfig) -> None:
    """Let the jobs of a sweep share ``<sweep>/cache``, unless the user has chosen a folder."""
    raw = OmegaConf.to_container(cfg.dataset, resolve=False)
    assert isinstance(raw, dict)
    if raw.get("cache_dir") == "${run_dir}/cache":
        cfg.dataset.cache_dir = str(Path(cfg.run_dir).parent / "cache")


def _refuse_another(saved: Any, resolved: DictConfig) -> None:
    """Raise ``Refused`` if the saved run of a job differs in keys that the sweep does not vary."""

    def portable(config: Any) -> dict[str, Any]:
        values = OmegaConf.to_container(config, resolve=True)
        assert isinstance(values, dict)
        return deciding(rerooted(values, str(values["run_dir"]), "<run>"))

    changed = differences(portable(saved), portable(resolved))
    if changed:
        raise Refused(
            f"{resolved.run_dir}: holds a run of another config: {changed}. Put the config back, "
            "or delete the folder to run the job anew"
        )


def _as_moved(saved: Path) -> DictConfig:
    """A saved config, its paths within the run folder adapted to the folder's present place."""
    values = OmegaConf.to_container(OmegaConf.load(saved), resolve=True)
    assert isinstance(values, dict)
    moved = OmegaConf.create(rerooted(values, str(values["run_dir"]), str(saved.parent)))
    assert isinstance(moved, DictConfig)
    return moved


def _with_overrides(
    saved: Any, composed: DictConfig, resolved: DictConfig, overrides: Sequence[str]
) -> DictConfig:
    """A saved config with the keys of the command line, and the keys that refer to them, set."""
    assert isinstance(saved, DictConfig)
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0].rpartition("@")[2]
        if key in ("run_dir", "resume"):
            continue
        if key in saved.choices and saved.choices[key] == resolved.choices[key]:
            continue  # the run's own choice: keep the saved values
        for changed in [key, *_followers(composed, key)]:
            value = OmegaConf.select(resolved, changed)
            OmegaConf.update(saved, changed, value, merge=False, force_add=True)
        if key in saved.choices:
            saved.choices[key] = resolved.choices[key]
    return saved


def _followers(cfg: DictConfig, key: str) -> Iterator[str]:
    """Keys elsewhere whose value is an interpolation of ``key``."""
    for path, node, leaf in _leaves(cfg):
        if OmegaConf.is_interpolation(node, leaf):
            raw = OmegaConf.to_container(node, resolve=False)
            assert isinstance(raw, dict)
            if "${" + key + "}" in str(raw[leaf]):
                yield path


def _leaves(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted path, node and key of all values; the path is ambiguous where a key contains dots."""
    for key in cfg:
        path = f"{prefix}{key}"
        leaf = OmegaConf.is_interpolation(cfg, key) or OmegaConf.is_missing(cfg, key)
        if leaf or not isinstance(cfg[key], DictConfig):
            yield path, cfg, key
        else:
            yield from _leaves(cfg[key], f"{path}.")
