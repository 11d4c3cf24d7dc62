"""Claims about what is found to be judged."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaelab.data.inputs import Input, find_inputs
from vaelab.data.xray import dicom
from vaelab.data.xray.index import SUFFIXES
from vaelab.data.xray.inputs import images_below
from vaelab.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(inputs: str | list[str], output: Path = Path("/nowhere")) -> list[Input]:
    return find_inputs(inputs, images_below, "images", output, SUFFIXES | dicom.SUFFIXES)


def names(inputs: str | list[str], output: Path = Path("/nowhere")) -> list[str]:
    return [one.name for one in found(inputs, output)]


# --- what is found


def test_a_folder_gives_its_images_at_every_depth_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/b.JPG", "a/c/d.dcm", "notes.txt", ".hidden.png", ".trash/e.png")
    assert names(str(tmp_path)) == ["b.png", "a/b.JPG", "a/c/d.dcm"]


def test_dicom_without_a_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("IM00001", "1.2.840.113619", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    touch(tmp_path, "README")
    assert names(str(tmp_path)) == ["1.2.840.113619", "IM00001"]


def test_one_file_is_called_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.png")
    assert names(str(tmp_path / "a" / "b.png")) == ["b.png"]


def test_several_inputs_are_named_from_what_they_have_in_common(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "y/z/1.png", "y/z/2.png")
    several = [str(tmp_path / "x"), str(tmp_path / "y" / "z" / "1.png")]
    assert names(several) == ["x/1.png", "y/z/1.png"]


def test_nothing_is_judged_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")  # a folder in itself
    assert names([str(tmp_path), str(tmp_path / "a" / "1.png")]) == ["a/1.png"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store")
    assert names(str(tmp_path / "in")) == ["linked/1.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "a/1.png\n\n  b/1.png\n"),
        ("list.csv", "age,file\n64,a/1.png\n7,b/1.png\n"),
        ("list.csv", "\ufeffpath\na/1.png\nb/1.png\n"),  # as Excel saves it
    ],
)
def test_a_list_names_files_from_where_it_lies(tmp_path: Path, name: str, content: str) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/2.png")
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert names(str(tmp_path / name)) == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_is_read_as_other_systems_write_it(tmp_path: Path, encoding: str, end: str) -> None:
    touch(tmp_path, "Köpfe/1.png", "Köpfe/2.png")
    (tmp_path / "a.txt").write_bytes(end.join(["Köpfe/1.png", "Köpfe/2.png", ""]).encode(encoding))
    (tmp_path / "a.csv").write_bytes(end.join(["file,age", "Köpfe/1.png,3", ""]).encode(encoding))
    assert names(str(tmp_path / "a.txt")) == ["1.png", "2.png"]
    assert names(str(tmp_path / "a.csv")) == ["1.png"]


_characters = st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\~")


@given(st.text(_characters, min_size=1, max_size=8), st.sampled_from(["utf-8", "utf-16"]))
def test_a_list_names_files_of_any_name(name: str, encoding: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "list.txt").write_bytes(f"{name}.png\r\n".encode(encoding))
        touch(Path(folder), f"{name}.png")
        assert names(str(Path(folder) / "list.txt")) == [f"{name}.png"]


def test_a_table_without_a_column_of_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,age\n")
    with pytest.raises(UserError, match=r"column 'file' or 'path'.*'name', 'age'"):
        found(str(tmp_path / "list.csv"))


def test_places_differ_whenever_inputs_do(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/1.jpg", "b/2.png", "b/A.png", "b/a.jpg")
    touch(tmp_path, "b/1.png.png")
    places = {one.name: one.place for one in found(str(tmp_path))}
    assert places["a/1.png"] == "a/1"
    assert places["b/2.png"] == "b/2"
    assert (places["b/1.png"], places["b/1.jpg"]) == ("b/1.png", "b/1.jpg")
    assert len({place.casefold() for place in places.values()}) == len(places) == 7


def test_results_of_an_earlier_time_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "out/1_heatmap.png")
    assert names(str(tmp_path), tmp_path / "out") == ["1.png"]


@pytest.mark.parametrize("output", ["in", "."])
def test_results_do_not_go_where_the_inputs_are(tmp_path: Path, output: str) -> None:
    touch(tmp_path, "in/1.png")
    with pytest.raises(UserError, match=r"task\.output_dir=.*choose another"):
        found(str(tmp_path / "in" / "1.png"), tmp_path / output)


def test_nothing_to_judge_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md")
    with pytest.raises(UserError, match=r"task\.inputs=.*nothing to judge; expected images"):
        found(str(tmp_path))
    with pytest.raises(UserError, match=r"task\.inputs=.*absent.*does not exist"):
        found(str(tmp_path / "absent"))


def test_one_that_is_missing_among_others_is_left_to_be_reported(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    assert names([str(tmp_path / "1.png"), str(tmp_path / "2.png")]) == ["1.png", "2.png"]
