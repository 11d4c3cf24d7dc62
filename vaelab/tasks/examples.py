"""``task=examples``: a few small pictures of what vaelab makes, each with its command."""

from __future__ import annotations

import io
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing, write_bytes
from vaelab.errors import UserError
from vaelab.report.canvas import DESCRIPTION
from vaelab.report.markdown import literal
from vaelab.runs.launch import run_apart
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

LONGEST = 1400
"""Pixels of a picture's longer side, before all have to fit."""
COLOURS = 256


@dataclass(frozen=True)
class Step:
    """One command line, and the pictures to keep of what it writes."""

    folder: str
    """Name of its run folder, for which ``{name}`` stands in any command."""
    command: str
    pictures: tuple[str, ...] = ()
    """Patterns within the folder; the last file that matches is kept."""
    trains: bool = True


STEPS = (
    Step(
        "mri",
        "experiment=demo run_dir={mri}",
        ("report_card.png", "recon/epoch_*/00_*.png", "figures/latent_pca.png"),
    ),
    Step(
        "xray",
        "experiment=med_anomaly dataset=phantom_xray run_dir={xray}",
        ("report_card.png", "recon/epoch_*/00_*.png", "figures/latent_pca.png"),
    ),
    Step("mri", "task=stability run_dir={mri} task.seeds=[1]", ("figures/stability.png",), False),
    Step("beta_0.25", "experiment=demo train.kl_beta=0.25 ~task.then run_dir={beta_0.25}"),
    Step("beta_4", "experiment=demo train.kl_beta=4 ~task.then run_dir={beta_4}"),
    Step("beta_16", "experiment=demo train.kl_beta=16 ~task.then run_dir={beta_16}"),
    Step(
        "betas",
        "task=compare task.runs=[{beta_0.25},{mri},{beta_4},{beta_16}] run_dir={betas}",
        ("rate_distortion.png",),
        False,
    ),
)


@dataclass(frozen=True)
class Picture:
    """One that is kept."""

    name: str
    source: Path
    commands: tuple[str, ...]
    """Those that made it, as a user would type them."""


class Examples(Task):
    """Writes PNG files and a ``README.md`` that names the command behind each.

    Args:
        output_dir: where to.
        max_kilobytes: of all pictures together.
        further: arguments added to every training.

    Raises:
        UserError: for a size that nothing fits into.
    """

    parts = ()
    needs_trained_run = False

    def __init__(
        self,
        output_dir: PathText = "outputs/examples",
        max_kilobytes: int = 1000,
        further: Sequence[str] = (),
    ) -> None:
        if max_kilobytes < 50:
            raise UserError(f"task.max_kilobytes={max_kilobytes}: at least 50 are needed; try 1000")
        self.output_dir = output_dir
        self.max_bytes = 1000 * max_kilobytes
        self.further = list(further)

    def __call__(self, run: Run) -> None:
        """Run what has not been run, then keep the pictures.

        Raises:
            UserError: when a command fails, naming it.
        """
        work = run.folder.path
        pictures: list[Picture] = []
        for step in STEPS:
            self._run(step, work)
            pictures += [_picture(step, pattern, work) for pattern in step.pictures]
        output_dir = Path(self.output_dir).expanduser()
        for picture, content in zip(pictures, shrunk(pictures, self.max_bytes), strict=True):
            write_bytes(output_dir / f"{picture.name}.png", content)
        with replacing(output_dir / "README.md") as unfinished:
            unfinished.write_text(_page(pictures, self.further), encoding="utf-8")
        log.info("%d pictures in %s", len(pictures), output_dir)

    def _run(self, step: Step, work: Path) -> None:
        done = work / f"{step.folder}-{STEPS.index(step)}.done"
        if done.is_file():
            return
        places = {each.folder: str(work / each.folder) for each in STEPS}
        arguments = [_filled(word, places) for word in step.command.split()]
        folder = work / step.folder
        if step.trains and (folder / "config_resolved.yaml").is_file():
            arguments = [f"resume={folder}"]  # it was cut off
        log.info("python -m vaelab.run %s", shlex.join(arguments))
        status = run_apart(
            folder, [*arguments, *(self.further if step.trains else [])], work / "console.log"
        )
        if status.state != "done":
            raise UserError(f"{step.command}: {status.error}; see {work / 'console.log'}")
        done.touch()


def _filled(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(f"{{{name}}}", place)
    return word


def _picture(step: Step, pattern: str, work: Path) -> Picture:
    # Shorter names first: epoch_5 comes before epoch_20.
    found = sorted((work / step.folder).glob(pattern), key=lambda path: (len(str(path)), path))
    if not found:
        raise UserError(f"{work / step.folder}: no {pattern}; {step.command} should have made it")
    names = {each.folder: f"outputs/{each.folder}" for each in STEPS}
    needed = [each for each in STEPS[: STEPS.index(step)] if f"{{{each.folder}}}" in step.command]
    commands = [f"python -m vaelab.run {_filled(s.command, names)}" for s in (*needed, step)]
    kind = pattern.split("/")[0] if "*" in pattern else Path(pattern).stem
    kind = kind.replace("recon", "reconstruction")
    name = kind if step.folder == "betas" else f"{step.folder}_{kind}"
    return Picture(name, found[-1], tuple(dict.fromkeys(commands)))


def shrunk(pictures: Sequence[Picture], max_bytes: int) -> list[bytes]:
    """The pictures as PNG files with a palette, all made smaller until they fit together."""
    longest = float(LONGEST)
    while True:
        files = [_small(picture.source, round(longest)) for picture in pictures]
        if sum(map(len, files)) <= max_bytes:
            return files
        longest *= 0.85


def _small(path: Path, longest: int) -> bytes:
    with Image.open(path) as image:
        words = image.info.get(DESCRIPTION, "")
        small = image.convert("RGB")
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    text = PngInfo()
    text.add_itxt(DESCRIPTION, words)
    file = io.BytesIO()
    small.quantize(COLOURS).save(file, "PNG", optimize=True, pnginfo=text)
    return file.getvalue()


def _page(pictures: Sequence[Picture], further: Sequence[str]) -> str:
    parts = ["# Examples", "Made by `python -m vaelab.run task=examples`, on phantoms."]
    if further:
        parts.append(f"Each training with {literal(shlex.join(further))} besides.")
    for picture in pictures:
        with Image.open(picture.source) as image:
            words = str(image.info.get(DESCRIPTION, ""))
        title = picture.name.replace("_", " ")
        lines = "\n".join(picture.commands)
        alternative = literal(words or title)
        parts.append(f"## {title}\n\n![{alternative}]({picture.name}.png)\n\n```\n{lines}\n```")
    return "\n\n".join(parts) + "\n"
