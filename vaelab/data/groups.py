"""A table of what is known of images beside them, such as view, sex and age."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vaelab.data.index import ENCODING
from vaelab.errors import UserError

ID_COLUMNS = ("id", "file")
"""Either holds the id of a record."""

Groups = Mapping[str, Mapping[str, str]]
"""Column → id of a record → value, empty where it is not known."""


def read_groups(path: Path, columns: Sequence[str], ids: Collection[str]) -> Groups:
    """Some columns of a CSV file.

    Args:
        path: with a column ``id`` or ``file``, the latter below the folder of the data.
        columns: to read.
        ids: of the records that there are.

    Raises:
        UserError: when the file, a column or every id is missing.
    """
    if not path.is_file():
        raise UserError(
            f"dataset.groups={list(columns)}: {path} does not exist; name the table with "
            "dataset.groups_table, or use dataset.groups=[]"
        )
    with path.open(newline="", **(ENCODING | {"encoding": "utf-8-sig"})) as file:
        table = csv.DictReader(file)
        known = list(table.fieldnames or [])
        key = next((name for name in ID_COLUMNS if name in known), None)
        missing = [name for name in columns if name not in known]
        if key is None or missing:
            lacking = ", ".join(missing) if missing else "id or file"
            raise UserError(f"dataset.groups: {path} has no column {lacking}, only {known}")
        rows = {row[key]: row for row in table if row[key] in ids}
    if not rows:
        raise UserError(
            f"dataset.groups: no '{key}' of {path} is an id such as {min(ids, default='')}"
        )
    return {
        name: {identifier: row[name].strip() for identifier, row in rows.items()}
        for name in columns
    }
