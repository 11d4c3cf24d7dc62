"""Claims about splits by patient and the CSV files that remember them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from vaelab.data.index import (
    IGNORED,
    Record,
    check_root,
    data_names,
    enumerate_names,
    read_split,
    split_by_patient,
    walk_files,
    write_splits,
)
from vaelab.errors import UserError
from vaelab.text import printable


def cohort(patients: int, visits: int = 1) -> list[Record]:
    """Records named as BraTS names them: P003-000, P003-001 are two visits of P003."""
    return [
        {"id": f"P{patient:03d}-{visit:03d}", "patient": f"P{patient:03d}"}
        for patient in range(patients)
        for visit in range(visits)
    ]


def names(records: list[Record], key: str = "id") -> list[str]:
    return [record[key] for record in records]


# --- splits


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("val_split", [0.01, 0.1, 0.5, 0.99])
def test_time_points_of_one_patient_never_part(seed: int, val_split: float) -> None:
    records = cohort(patients=7, visits=3)
    train, val = split_by_patient(records, val_split, seed)
    assert not set(names(train, "patient")) & set(names(val, "patient"))
    assert sorted(names(train) + names(val)) == sorted(names(records))


def test_the_split_is_a_function_of_the_seed() -> None:
    records = cohort(patients=20)
    assert split_by_patient(records, 0.3, seed=1) == split_by_patient(records, 0.3, seed=1)
    # 20 choose 6 = 38760 validation sets: ten seeds do not draw one and the same
    assert len({tuple(names(split_by_patient(records, 0.3, seed)[1])) for seed in range(10)}) > 1


def test_the_order_of_the_records_does_not_matter() -> None:
    records = cohort(patients=10, visits=2)
    shuffled = random.Random(0).sample(records, len(records))
    assert shuffled != records
    assert split_by_patient(shuffled, 0.3, seed=1) == split_by_patient(records, 0.3, seed=1)


def test_a_second_visit_of_a_known_patient_does_not_change_who_is_where() -> None:
    once, twice = cohort(patients=10, visits=1), cohort(patients=10, visits=2)
    before, after = (split_by_patient(records, 0.3, seed=1)[1] for records in (once, twice))
    assert set(names(before, "patient")) == set(names(after, "patient"))


def test_records_come_ordered_by_id() -> None:
    train, val = split_by_patient(cohort(patients=10, visits=2)[::-1], 0.3, seed=1)
    assert names(train) == sorted(names(train))
    assert names(val) == sorted(names(val))


@pytest.mark.parametrize(
    ("patients", "val_split", "expected"),
    [
        (10, 0.1, 1),
        (10, 0.3, 3),
        (10, 0.5, 5),
        (10, 0.001, 1),  # at least one is held out
        (10, 0.999, 9),  # and one is left to learn from
        (2, 0.5, 1),
    ],
)
def test_the_share_is_counted_in_patients(patients: int, val_split: float, expected: int) -> None:
    train, val = split_by_patient(cohort(patients, visits=2), val_split, seed=0)
    assert len(set(names(val, "patient"))) == expected
    assert len(set(names(train, "patient"))) == patients - expected


@pytest.mark.parametrize("val_split", [0, 1, -1, 1.5, float("nan")])
def test_a_share_of_nobody_or_everybody_is_refused(val_split: float) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.val_split={val_split}: .* try 0\.1$"):
        split_by_patient(cohort(patients=10), val_split, seed=0)


@pytest.mark.parametrize("patients", [0, 1])
def test_fewer_than_two_patients_cannot_be_split(patients: int) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.val_split=0\.1: .* found {patients};"):
        split_by_patient(cohort(patients, visits=3), 0.1, seed=0)


# --- files


def test_any_name_survives_the_file(tmp_path: Path) -> None:
    odd = [
        *("plain", "with, comma", 'with "quotes"', "two\nlines", "dos\r\nlines", " spaces "),
        *("Müller-東京-é", "e\u0301 is not é", os.fsdecode(b"no utf-8: \xff")),
    ]
    records: list[Record] = [{"id": name, "patient": name, "path": f"/{name}"} for name in odd]
    write_splits(tmp_path / "splits", {"train": records, "val": records[:1]})
    assert read_split(tmp_path / "splits", "train", records) == records
    assert read_split(tmp_path / "splits", "val", records) == records[:1]


def test_the_file_is_plain_csv_with_a_column_for_all_that_a_record_holds(tmp_path: Path) -> None:
    record = {"id": "P1-000", "patient": "P1", "t1c": "/data/P1-000-t1c.nii.gz"}
    write_splits(tmp_path, {"train": [record]})
    assert (tmp_path / "train.csv").read_text().splitlines() == [
        "id,patient,t1c",
        "P1-000,P1,/data/P1-000-t1c.nii.gz",
    ]


def test_a_split_is_read_in_its_own_order(tmp_path: Path) -> None:
    records = cohort(patients=10)
    drawn = random.Random(0).sample(records, 6)
    write_splits(tmp_path, {"test": drawn})
    assert read_split(tmp_path, "test", records) == drawn


def test_a_split_is_read_as_the_records_are_now(tmp_path: Path) -> None:
    before = [{"id": "P1-000", "patient": "P1", "t1c": "/old/disk"}]
    now = [{"id": "P1-000", "patient": "P1", "t1c": "/new/disk"}]
    write_splits(tmp_path, {"train": before})
    assert read_split(tmp_path, "train", now) == now


def test_every_missing_id_is_listed(tmp_path: Path) -> None:
    records = cohort(patients=5)
    write_splits(tmp_path, {"train": records})
    with pytest.raises(UserError, match=r"2 of its 5 ids .*dataset\.root_dir") as caught:
        read_split(tmp_path, "train", records[:3])
    lines = str(caught.value).splitlines()
    assert str(tmp_path / "train.csv") in lines[0]
    assert [line.split(".")[0].strip() for line in lines[1:]] == ["- P003-000", "- P004-000"]


def test_train_is_written_last_so_that_it_stands_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    replace = os.replace

    def spy(source: Path, target: Path) -> None:
        written.append(target.name)
        replace(source, target)

    monkeypatch.setattr("os.replace", spy)
    records = cohort(patients=3)
    write_splits(tmp_path, {"train": records[:1], "val": records[1:2], "test": records[2:]})
    assert written == ["test.csv", "val.csv", "train.csv"]


# --- root


def test_a_root_that_is_not_set_missing_or_a_file_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^dataset\.root_dir is not set: what is needed$"):
        check_root(None, "what is needed")
    with pytest.raises(UserError, match=r"^dataset\.root_dir=.*/absent: does not exist; what"):
        check_root(tmp_path / "absent", "what is needed")
    with pytest.raises(UserError, match=r"^dataset\.root_dir=.*/file: is a file, not a folder"):
        check_root(tmp_path / "file", "what is needed")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    assert check_root("~/data", "") == tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("Köpfe 頭.nii.gz", "Köpfe 頭.nii.gz"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\udcff.png", r"\udcff.png"),  # a byte that is not UTF-8
        ("\x1b[31mred", r"\x1b[31mred"),  # colours of a console
    ],
)
def test_a_name_is_shown_on_one_line_and_can_be_written(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert enumerate_names([name]) == f"\n  - {shown}"
    printable(name).encode("utf-8")


def test_a_walk_follows_links_ends_in_a_loop_and_sees_nothing_hidden(tmp_path: Path) -> None:
    for name in ("a/2", "a/1", "a/.hidden", ".git/3", "far/4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "far")
    found = [(folder.name, names) for folder, names in walk_files(tmp_path / "a")]
    assert found == [("a", ["1", "2"]), ("link", ["4"])]


# --- what systems leave among data


def test_what_systems_leave_among_data_is_no_data(tmp_path: Path) -> None:
    left = [*IGNORED, "@eaDir", "__MACOSX", ".DS_Store", "._a.png", "Thumbs.db", "lost+found"]
    left += [".ipynb_checkpoints", "#recycle"]
    assert data_names([*left, "b.png", "a.png"]) == ["a.png", "b.png"]
    for name in ("@eaDir", "__MACOSX", "lost+found", ".ipynb_checkpoints"):
        (tmp_path / "in" / name / "a.png").mkdir(parents=True)
        (tmp_path / "in" / name / "a.png" / "SYNOPHOTO_THUMB_XL.jpg").touch()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "in" / "Thumbs.db").touch()
    assert list(walk_files(tmp_path)) == [(tmp_path, []), (tmp_path / "in", ["a.png"])]
