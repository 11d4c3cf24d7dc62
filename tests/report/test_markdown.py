"""Tables that read as Markdown and as text, and names that mean nothing to Markdown."""

from __future__ import annotations

import pytest

from vaelab.report.markdown import literal, table


def test_columns_are_padded_and_those_of_numbers_are_aligned_to_the_right():
    assert table(["run", "AUROC", "state"], [["a", "0.5", "done"], ["bcde", "–", ""]]) == (
        "| run  | AUROC | state |\n"
        "|------|------:|-------|\n"
        "| a    |   0.5 | done  |\n"
        "| bcde |     – |       |"
    )


def test_a_table_without_rows_has_its_head():
    assert table(["severity"], []) == "| severity |\n|----------|"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("two\nlines", "two lines"),
        ("tumour_volume_mm3", "tumour_volume_mm3"),
        ("__init__", r"\_\_init\_\_"),
        ("back\\slash `code` *", r"back\\slash \`code\` \*"),
        ("\udcff", r"\\udcff"),
    ],
)
def test_a_name_is_shown_as_it_is(name: str, shown: str):
    assert literal(name) == shown
