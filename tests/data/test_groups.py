"""Claims about the table of what is known of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaelab.data.groups import read_groups
from vaelab.errors import UserError


def test_columns_are_read_by_id_or_file_of_the_records_that_there_are(tmp_path: Path):
    table = tmp_path / "images.csv"
    for key in ("id", "file"):
        table.write_text(f"{key},view,age\na.png,PA,40\nb.png, ,50\nother.png,AP,3\n")
        found = read_groups(table, ["view", "age"], {"a.png", "b.png", "c.png"})
        assert found == {
            "view": {"a.png": "PA", "b.png": ""},
            "age": {"a.png": "40", "b.png": "50"},
        }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; name the table with dataset.groups_table"),
        ("id,sex\na.png,F\n", "has no column view"),
        ("name,view\na.png,PA\n", "has no column id or file"),
        ("id,view\nz.png,PA\n", "no 'id' of .* is an id such as a.png"),
    ],
)
def test_a_table_that_cannot_tell_is_refused(tmp_path: Path, content: str | None, message: str):
    table = tmp_path / "images.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(UserError, match=message):
        read_groups(table, ["view"], {"a.png"})
