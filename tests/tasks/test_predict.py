"""Claims about judging new images with a trained run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from vaelab.errors import UserError
from vaelab.tasks.predict import Predict

from ..conftest import CLI


def predict(cli: CLI, run_dir: Path, inputs: object, *arguments: str) -> int:
    return cli("task=predict", f"run_dir={run_dir}", f"task.inputs={inputs}", *arguments)


def rows(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Path → (width, height) of each picture below a folder."""
    result = {}
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            result[path.relative_to(folder).as_posix()] = image.size
    return result


PIXELS = np.random.default_rng(0).integers(0, 256, (45, 70), np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six readable files, two of one name, and two that are not readable."""
    folder = tmp_path / "new images"
    for part in ("A", "B/deep"):
        (folder / part).mkdir(parents=True)
    Image.fromarray(PIXELS).save(folder / "A" / "1.png")
    Image.fromarray(PIXELS[::-1].copy()).save(folder / "B" / "1.png")
    Image.fromarray(np.stack([PIXELS] * 3, -1)).save(folder / "A" / "colour.png")
    Image.fromarray(PIXELS.astype(np.uint16) * 256).save(folder / "B" / "deep" / "16bit.png")
    Image.fromarray(np.kron(PIXELS, np.ones((20, 20), np.uint8))).save(folder / "A" / "large.jpeg")
    Image.fromarray(PIXELS[:, :1].copy()).save(folder / "A" / "line.png")
    whole = (folder / "A" / "1.png").read_bytes()
    (folder / "A" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "B" / "text.jpg").write_text("no image")
    return folder


def test_every_image_gets_a_row_and_a_heat_map_and_the_unreadable_a_reason(
    cli: CLI, run_2d: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert predict(cli, run_2d, f"'{pictures}'") == 1
    shown = capfd.readouterr().out
    assert "2 of 8 inputs could not be read" in shown
    assert "there are no p-values" in shown
    assert "Traceback" not in shown
    output = run_2d / "predictions"
    table = rows(output / "predictions.csv")
    bad = {"A/cut.png", "B/text.jpg"}
    good = {"A/1.png", "A/colour.png", "A/large.jpeg", "A/line.png"}
    good |= {"B/1.png", "B/deep/16bit.png"}
    assert set(table) == good | bad
    for name, row in table.items():
        assert (row["p_value"], row["flag"]) == ("", "")
        assert (float(row["score"]) > 0, row["error"]) == (True, "") if name in good else True
        assert (row["score"], "not a readable" in row["error"]) == ("", True) or name in good
    # One picture in three files is one score; another picture of the same name is another.
    score = {name: float(table[name]["score"]) for name in good}
    assert score["A/colour.png"] == score["A/1.png"]
    assert score["B/deep/16bit.png"] == pytest.approx(score["A/1.png"], rel=1e-5)
    assert score["B/1.png"] != score["A/1.png"]
    assert sizes(output) == {
        "A/1_heatmap.png": (70, 45),
        "A/colour_heatmap.png": (70, 45),
        "A/large_heatmap.png": (1400, 900),
        "A/line_heatmap.png": (1, 45),
        "B/1_heatmap.png": (70, 45),
        "B/deep/16bit_heatmap.png": (70, 45),
    }


def test_a_score_is_the_one_that_evaluation_gives(cli: CLI, run_2d: Path) -> None:
    assert cli("task=evaluate", f"run_dir={run_2d}") == 0
    with (run_2d / "scores.csv").open(newline="") as file:
        evaluated = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    with (run_2d / "splits" / "test.csv").open(newline="") as file:
        paths = {row["id"]: row["path"] for row in csv.DictReader(file)}
    listed = run_2d / "test.txt"
    listed.write_text("\n".join(paths.values()))
    assert predict(cli, run_2d, listed, "task.save_maps=false") == 0
    judged = rows(run_2d / "predictions" / "predictions.csv")
    assert len(judged) == len(paths) == 12
    for name, row in judged.items():
        (identifier,) = [key for key in evaluated if key.endswith(name)]
        assert float(row["score"]) == pytest.approx(evaluated[identifier], rel=1e-5)
        assert 0 < float(row["p_value"]) <= 1  # evaluation has calibrated the run
        assert row["flag"] in ("0", "1")


def test_a_calibrated_run_gives_p_values_and_flags(
    cli: CLI, run_2d: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = pictures / "A" / "1.png"
    calibration = run_2d / "calibration.json"
    # Nine healthy images, all below or all above: p is 1/10 or 10/10.
    for level, p_value, flag in ((-1.0, 0.1, "1"), (1e12, 1.0, "0")):
        calibration.write_text(json.dumps({"count": 9, "scores": [level] * 9}))
        more = ("task.alpha=0.1", "task.save_maps=false")
        assert predict(cli, run_2d, f"'{image}'", *more) == 0
        (row,) = rows(run_2d / "predictions" / "predictions.csv").values()
        assert (float(row["p_value"]), row["flag"]) == (p_value, flag)
    assert predict(cli, run_2d, f"'{image}'", "task.save_maps=false") == 0
    assert "task.alpha=0.05: nothing can be flagged" in capfd.readouterr().out
    # Scores of another kind say nothing of these.
    calibration.write_text(json.dumps({"count": 1, "scores": [0.0], "score": "KL"}))
    assert predict(cli, run_2d, f"'{image}'", "task.save_maps=false", "score=squared_error") == 0
    (row,) = rows(run_2d / "predictions" / "predictions.csv").values()
    assert row["p_value"] == ""


def test_the_training_data_are_needed_for_heat_maps_only(
    cli: CLI, run_2d: Path, xray_run: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = f"'{pictures / 'A' / '1.png'}'"
    saved = OmegaConf.load(run_2d / "config_resolved.yaml")
    del saved.dataset["phantoms"]
    saved.dataset.root_dir = "absent"
    OmegaConf.save(saved, run_2d / "config_resolved.yaml")
    assert predict(cli, run_2d, image) == 1
    assert "task.save_maps=false" in capfd.readouterr().out
    assert not (run_2d / "predictions" / "predictions.csv").exists()
    assert predict(cli, run_2d, image, "task.save_maps=false") == 0
    assert len(rows(run_2d / "predictions" / "predictions.csv")) == 1
    assert sizes(run_2d / "predictions") == {}
    # Once measured, the colour scale is the run's own.
    kept = run_2d / "config_resolved.yaml"
    absent = kept.read_text()
    with_data = (xray_run / "config_resolved.yaml").read_text()
    kept.write_text(with_data.replace(str(xray_run), str(run_2d)))
    assert predict(cli, run_2d, image) == 0
    kept.write_text(absent)
    assert predict(cli, run_2d, image) == 0
    assert len(sizes(run_2d / "predictions")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "task.inputs is not set"),
        (["task.inputs=empty"], "nothing to judge"),
        (["task.inputs=absent"], "does not exist"),
        (["task.inputs=empty", "task.alpha=1"], "task.alpha=1"),
    ],
)
def test_without_anything_to_judge_nothing_is_done(
    cli: CLI,
    run_2d: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    Path("empty").mkdir()
    assert cli("task=predict", f"run_dir={run_2d}", *arguments) == 1
    assert message in capfd.readouterr().out
    assert not (run_2d / "predictions").exists()


def test_a_subject_gets_a_map_that_lies_on_its_own_files(
    cli: CLI, run_3d: Path, tmp_path: Path, phantoms: str
) -> None:
    (tree,) = Path(phantoms.split("=", 1)[1]).glob("phantom_mri*-4patients-1followups-6.0mm-seed0")
    new = tmp_path / "new"
    whole = ["BraTS-MEN-00001-000", "BraTS-MEN-00003-000"]  # the latter is stored otherwise
    for name, folder in zip(whole, (new, new / "more"), strict=True):
        shutil.copytree(tree / name, folder / name, ignore=shutil.ignore_patterns("*-seg*"))
    for name, missing in (("S-1", None), ("S-2", "t2w")):
        (new / name).mkdir()
        for key in ("t1c", "t1n", "t2f", "t2w"):
            if key != missing:
                source = tree / whole[0] / f"{whole[0]}-{key}.nii.gz"
                content = source.read_bytes()
                cut = len(content) // 2 if missing is None else len(content)
                (new / name / f"{name}-{key}.nii.gz").write_bytes(content[:cut])
    output = tmp_path / "out"
    assert predict(cli, run_3d, new, f"task.output_dir={output}") == 1
    table = rows(output / "predictions.csv")
    assert set(table) == {whole[0], f"more/{whole[1]}", "S-1", "S-2"}
    assert "readable" in table["S-1"]["error"]
    assert "no t2w" in table["S-2"]["error"]
    assert len(list(output.rglob("*.nii.gz"))) == 2
    for place, name in ((whole[0], whole[0]), (f"more/{whole[1]}", whole[1])):
        assert float(table[place]["score"]) > 0
        found = nibabel.load(output / place / f"{name}_anomaly.nii.gz")
        original = nibabel.load(new / place / f"{name}-t1c.nii.gz")
        assert found.shape == original.shape
        assert np.array_equal(found.affine, original.affine)
        values = found.get_fdata()
        assert values.min() >= 0
        # The residual is largest where there is tissue: the map lies on the head, not beside it.
        head = original.get_fdata() > 0
        assert values[head].mean() > 1.5 * values[~head].mean()


@pytest.mark.parametrize(
    ("score", "shown"),
    [("squared_error", "evidence of SquaredError"), ("kl", "|x − x̂|, since KL has no place")],
)
def test_what_maps_show_is_said(
    cli: CLI, run_2d: Path, pictures: Path, score: str, shown: str
) -> None:
    assert predict(cli, run_2d, f"'{pictures / 'A' / '1.png'}'", f"score={score}") == 0
    said = json.loads((run_2d / "predictions" / "predictions.json").read_text())
    assert said["maps_show"] == shown


def test_a_task_without_inputs_is_not_built() -> None:
    for inputs in (None, "", []):
        with pytest.raises(UserError, match=r"task\.inputs is not set"):
            Predict(inputs)
