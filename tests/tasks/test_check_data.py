"""Claims about examining a whole dataset before anyone trains on it."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from vaelab.data.findings import Examination, Finding
from vaelab.data.index import Record
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder
from vaelab.tasks.check_data import CheckData, Summary, grouped

from ..conftest import CLI, TINY_MRI, TINY_XRAY
from ..data.test_bad_input import (
    BAD_HEADERS,
    BAD_IMAGES,
    BAD_VOXELS,
    FINE_IMAGES,
    FINE_VOLUMES,
    ODD_IMAGES,
    ODD_VOLUMES,
    VOLUMES,
    XRAYS,
    chest_tree,
    series,
    subject,
)


def examined(cli: CLI, *arguments: str) -> tuple[int, list[dict[str, str]], dict[str, Any]]:
    """The exit status, all findings and the summary."""
    kept = [argument for argument in arguments if argument != "~task.then"]
    status = cli(*kept, "task=check_data")
    (folder,) = Path("outputs").iterdir()
    with (folder / "check_data.csv").open(newline="", encoding="utf-8") as file:
        findings = list(csv.DictReader(file))
    summary = json.loads((folder / "check_data.json").read_text(encoding="utf-8"))
    page = (folder / "check_data.md").read_text(encoding="utf-8")
    assert all(finding["what"].split("<")[0][:20] in page for finding in findings)
    return status, findings, summary


def said_of(findings: Sequence[Mapping[str, str]], name: str) -> str:
    """All that is said of one subject or image."""
    return " ".join(
        f"{one['severity']}: {one['what']} ({one['detail']})"
        for one in findings
        if f"/{name}/" in one["file"] or f"/{one['file']}".endswith(f"/{name}")
    )


def test_every_bad_and_odd_volume_is_found_in_one_go_and_none_that_is_fine(
    cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, odd = BAD_HEADERS | BAD_VOXELS, ODD_VOLUMES
    root = tmp_path / "data"
    for name, (spoil, _) in (bad | odd).items():
        spoil(subject(root, name))
    for name, spoil in FINE_VOLUMES.items():
        spoil(subject(root, name))
    series(subject(root, "incomplete")).unlink()
    shutil.copy(series(root / "sound"), root / "sound" / "again-t2w.nii.gz")
    (root / "gone").symlink_to("annex")
    status, findings, summary = examined(cli, *VOLUMES, f"dataset.root_dir={root}")
    assert status == 1
    shown = capfd.readouterr().out
    assert "Traceback" not in shown
    for name, (_, what) in (bad | odd).items():
        told = said_of(findings, name)
        assert what in told, name
        assert ("error" in told) == (name in bad), told
    for name in set(FINE_VOLUMES) - {"sound"}:
        assert said_of(findings, name) == ""
    assert "no t2w" in said_of(findings, "incomplete")
    assert "more than one file for t2w" in said_of(findings, "sound")
    assert "leads nowhere" in said_of(findings, "gone")
    assert summary["records"] == len(bad | odd | FINE_VOLUMES) + 1
    assert summary["errors"] == sum(one["severity"] == "error" for one in findings)
    problems = [problem["severity"] for problem in summary["problems"]]
    assert problems == sorted(problems)  # errors first
    assert f"{summary['errors']} errors and {summary['warnings']} warnings" in shown


def test_every_bad_and_odd_image_is_found_in_one_go_and_none_that_is_fine(
    cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fine = {name: FINE_IMAGES[name] for name in FINE_IMAGES if name != "sound.jpeg"}
    root = chest_tree(tmp_path / "data", BAD_IMAGES | ODD_IMAGES | fine, also_test=True)
    status, findings, summary = examined(cli, *XRAYS, f"dataset.root_dir={root}")
    assert status == 1
    assert "Traceback" not in capfd.readouterr().out
    for name, (_, what) in (BAD_IMAGES | ODD_IMAGES).items():
        told = said_of(findings, f"train/NORMAL/{name}")
        assert what in told, name
        assert ("error" in told) == (name in BAD_IMAGES), told
    assert "neither JPEG nor PNG" in said_of(findings, "test/PNEUMONIA/late.jpeg")
    for name in fine:
        assert "error" not in said_of(findings, f"train/NORMAL/{name}")
    groups = summary["values"]["group"]
    assert groups["test/NORMAL"] == 3
    assert groups["train/NORMAL"] == 3 + len(BAD_IMAGES | ODD_IMAGES) + len(fine)


def test_leaks_and_copies_are_told(cli: CLI, tmp_path: Path) -> None:
    root = chest_tree(tmp_path / "data", {}, also_test=False)
    normal, test = root / "train" / "NORMAL", root / "test"
    shutil.copy(test / "PNEUMONIA" / "c0.png", normal / "sick.png")
    shutil.copy(test / "NORMAL" / "b0.png", normal / "seen.png")
    shutil.copy(normal / "a0.png", normal / "copy.png")
    Image.fromarray(np.eye(40, dtype=np.uint8) * 200).save(normal / "b1.png")
    status, findings, _ = examined(cli, *XRAYS, f"dataset.root_dir={root}")
    assert status == 1
    assert "error: a sick image" in said_of(findings, "train/NORMAL/sick.png")
    assert "the same file as test/NORMAL/b0.png" in said_of(findings, "train/NORMAL/seen.png")
    assert "another patient's" in said_of(findings, "train/NORMAL/copy.png")
    assert "patient b1.png is in test" in said_of(findings, "train/NORMAL/b1.png")
    assert said_of(findings, "train/NORMAL/a2.png") == ""


def test_a_volume_under_two_patients_names_is_told(cli: CLI, tmp_path: Path) -> None:
    root = tmp_path / "data"
    one, other = subject(root, "P-1-000"), subject(root, "P-2-000")
    subject(root, "P-2-001")
    image = nibabel.load(series(one))
    nibabel.save(image, series(other))  # its bytes differ by the time in the gzip header
    status, findings, summary = examined(cli, *VOLUMES, f"dataset.root_dir={root}")
    assert status == 0  # a warning
    told = said_of(findings, "P-2-000")
    assert told == "warning: the same content as another patient's (as P-1-000)"
    assert (summary["records"], summary["patients"]) == (3, 2)
    assert summary["patients_by_number_of_records"] == {"1": 1, "2": 1}


@pytest.mark.parametrize("kind", [TINY_MRI, TINY_XRAY], ids=["mri", "xray"])
def test_phantoms_are_made_and_found_free_of_errors(
    cli: CLI, kind: tuple[str, ...], phantoms: str
) -> None:
    status, findings, summary = examined(cli, *kind, phantoms)
    assert status == 0
    assert [one for one in findings if one["severity"] == "error"] == []
    if kind is TINY_MRI:
        # The third of four patients is stored unlike the others; the first was seen twice.
        assert summary["values"]["spacing [mm]"] == {"6×6×6": 4, "4.5×4.5×12": 1}
        assert summary["values"]["orientation"] == {"RAS": 4, "LPS": 1}
        assert summary["ranges"]["label 3 [mL]"]["count"] == summary["records"]
        assert summary["ranges"]["label 3 [mL]"]["minimum"] > 0


def test_a_tree_of_another_shape_is_a_finding(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    status, findings, _ = examined(cli, *VOLUMES, f"dataset.root_dir={tmp_path / 'data'}")
    assert status == 1
    assert "no t1c, t2w, seg" in said_of(findings, "inner")


class OtherData(SplitDataModule):
    """A dataset of somebody else, who gives no check or one of his own."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            *(str(root), str(root / "splits"), str(root / "cache")),
            *(r"^(.)", 0.5, 0, 1, 0, 0.0, None),
        )
        self.threads: set[str] = set()

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        paths = sorted(Path(str(root_dir)).glob("*.txt"))
        return [{"id": p.name, "patient": p.name[0], "path": str(p)} for p in paths]


class CheckedData(OtherData):
    def examine(self, record: Record) -> Examination:
        self.threads.add(threading.current_thread().name)
        text = Path(record["path"]).read_text()
        odd = [Finding("warning", record["id"], "an odd number", "add 1")] if int(text) % 2 else []
        return Examination(odd, {"parity": "odd" if odd else "even", "value": float(text)})


class Stage:
    """As much of a run as the task needs."""

    def __init__(self, data: SplitDataModule, run_dir: Path) -> None:
        self.data, self.folder = data, RunFolder(run_dir)
        self.logging = type("Quiet", (), {"progress_bar": False})


def test_a_new_dataset_brings_its_own_checks_or_has_those_of_files(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(str(number))
    data = CheckedData(tmp_path)
    CheckData(num_workers=3)(Stage(data, tmp_path / "run"))  # type: ignore[arg-type]
    summary = json.loads((tmp_path / "run" / "check_data.json").read_text())
    assert (summary["errors"], summary["warnings"]) == (0, 4)
    assert summary["values"]["parity"] == {"even": 5, "odd": 4}
    middle = summary["ranges"]["value"]
    assert (middle["minimum"], middle["median"], middle["maximum"]) == (0, 4, 8)
    assert all(name.startswith("ThreadPoolExecutor") for name in data.threads)
    (tmp_path / "4.txt").write_text("")
    with pytest.raises(UserError, match="1 errors and 0 warnings in 9 records"):
        CheckData()(Stage(OtherData(tmp_path), tmp_path / "plain"))  # type: ignore[arg-type]
    assert "4.txt,an empty file" in (tmp_path / "plain" / "check_data.csv").read_text()


def test_groups_come_worst_first_and_then_by_number() -> None:
    kinds = ["warning"] * 5 + ["error"] + ["error"] * 3
    whats = ["w"] * 5 + ["rare"] + ["often"] * 3
    found = [Finding(k, str(n), w, "") for n, (k, w) in enumerate(zip(kinds, whats, strict=True))]  # type: ignore[arg-type]
    order = [(what, len(members)) for (_, what), members in grouped(found).items()]
    assert order == [("often", 3), ("rare", 1), ("w", 5)]


def test_a_summary_keeps_no_more_than_its_facts() -> None:
    summary = Summary([{"id": str(n), "patient": str(n // 2)} for n in range(4)])
    for value in (1.0, 2.0, 9.0):
        summary.add(Examination(facts={"size": value, "kind": "a"}))
    assert summary.content()["ranges"]["size"]["count"] == 3
    assert Counter(summary.content()["values"]["kind"]) == {"a": 3}
    assert "4 records of 2 patients, 2 with several" in summary.lines()[0]


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_threads_that_cannot_be_is_named(number: int) -> None:
    with pytest.raises(UserError, match=rf"task\.num_workers={number}: "):
        CheckData(number)
