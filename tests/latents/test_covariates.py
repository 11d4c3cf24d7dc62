"""Claims about tables of covariates: numbers, times, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaelab.errors import UserError
from vaelab.latents.covariates import Covariates, joined, read_covariates

from .conftest import latents


def table(folder: Path, text: str) -> Path:
    path = folder / "visits.csv"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> Covariates:
    return read_covariates(table(folder, text))


def times(folder: Path, text: str) -> dict[str, float]:
    found = joined(latents(), read(folder, text))
    return dict(zip(found.ids, found.time_days.tolist(), strict=True))


def test_columns_of_numbers_are_read_and_words_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, "id,size,word,age\na,1.5,x,\nb, 2 ,y,70\nc,NA,z,n/a\n")
    assert found.numbers == {"size": {"a": 1.5, "b": 2.0}, "age": {"b": 70.0}}
    assert found.names == ["size", "age"]


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffid,size\na,1\n").numbers == {"size": {"a": 1}}


def test_days_are_taken_as_they_are(tmp_path: Path) -> None:
    found = times(tmp_path, "id,days\nA-000,-30\nA-002,12.5\nB-001,7\n")
    assert found["A-000"] == -30
    assert found["A-002"] == 12.5
    assert np.isnan(found["A-010"])
    assert np.isnan(found["C-000"])


def test_dates_count_from_the_patients_first_and_know_leap_years(tmp_path: Path) -> None:
    rows = "A-010,2020-03-01\nA-000,2020-02-28\nB-001,1999-12-31\nA-002,2020-02-29T12:00\n"
    found = times(tmp_path, "id,date\n" + rows)
    assert (found["A-000"], found["A-002"], found["A-010"]) == (0, 1.5, 2)
    assert found["B-001"] == 0
    assert np.isnan(found["C-000"])


def test_columns_of_the_table_of_latents_are_not_replaced(tmp_path: Path) -> None:
    before = latents()
    after = joined(before, read(tmp_path, "id,time_point,mu_0,age\nA-000,99,99,70\n"))
    assert after.mu.tobytes() == before.mu.tobytes()
    assert set(after.covariates) == {"size", "age"}
    assert after.covariates["age"][0] == 70


def test_a_table_replaces_a_covariate_that_was_there(tmp_path: Path) -> None:
    after = joined(latents(), read(tmp_path, "id,size\nA-000,5\n"))
    np.testing.assert_array_equal(after.covariates["size"], [5, *[np.nan] * 5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,date\na,2021-02-30\n", r"visits\.csv, row 2, column date: '2021-02-30' is no date; "
         r"write it as year-month-day, such as 2021-03-31, or leave the cell empty"),
        ("id,date\na,\nb,31.3.2021\n", r"row 3, column date: '31\.3\.2021' is no date"),
        ("id,days\na,1\nb,soon\n", r"visits\.csv, row 3, column days: 'soon' is no number; write "
         r"one such as 120 or 12\.5, or leave the cell empty"),
        ("id,days\na,inf\n", "row 2, column days: 'inf' is no number"),
        ("id,days,date\na,1,2021-03-31\n", "has columns days and date; leave one of them out"),
        ("id,age\na,1\nb,2\na,3\n", "row 4, column id: 'a' is in row 2 too; keep one"),
        ("id,age\n,1\n", "row 2: no id"),
        ("id,age\na,1,2\n", "row 2: more cells than there are columns"),
        ("name,age\na,1\n", r"no column id among \['name', 'age'\]; the first row holds the names"),
        ("", r"no column id among \[\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_place_and_the_cure(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_one_word_in_a_column_of_numbers_is_named_and_costs_that_column_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, "id,age,size\na,70,1\nb,64 y,2\n")
    assert list(found.numbers) == ["size"]
    (record,) = caplog.records
    assert "visits.csv, row 3, column age: '64 y' is no number" in record.getMessage()
    assert record.getMessage().endswith("the column is not used")


def test_a_table_of_other_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"visits\.csv: none of its ids .* it has x, they are cal"):
        joined(latents(), read(tmp_path, "id,age\nx,1\n"))


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"covariates=.*none\.csv: no such file"):
        read_covariates(tmp_path / "none.csv")
    assert read_covariates(None) == Covariates()
