"""Claims about which patient a name tells, and about what is said where that is doubtful."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaelab.data.patients import OWN, check_pattern, doubts, patient_of, patients_of
from vaelab.errors import UserError

BRATS = r"^(.+)-\d+$"


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("BraTS-MEN-00004-000", "BraTS-MEN-00004"),
        ("BraTS-MEN-00004-001", "BraTS-MEN-00004"),
        ("subject", "subject"),  # does not match: a patient of its own
    ],
)
def test_the_patient_is_the_group_of_the_pattern_or_else_the_name(name: str, patient: str) -> None:
    assert patient_of(name, BRATS) == patient


@pytest.mark.parametrize("pattern", [r"^(P\d+)?", r"^(P\d*|)"])
def test_an_empty_group_makes_a_patient_of_its_own(pattern: str) -> None:
    assert patient_of("P1-a", pattern) == "P1"
    assert patient_of("other", pattern) == "other"


def test_a_pattern_that_the_name_does_not_fit_is_tried_on_the_folders() -> None:
    assert patient_of("p07/a.png", r"^(p\d+)/") == "p07"
    assert patient_of("p07/p08_1.png", r"^(p\d+)") == "p08"


@pytest.mark.parametrize("pattern", [r"^(.+-\d+$", r"^.+$", r"^(.+)-(\d+)$"])
def test_a_bad_pattern_is_named(pattern: str) -> None:
    with pytest.raises(UserError, match=r"^dataset\.patient_pattern=") as caught:
        check_pattern(pattern)
    assert repr(pattern) in str(caught.value)


def test_a_good_pattern_passes() -> None:
    check_pattern(BRATS)
    check_pattern(r"^(person\d+|(?:NORMAL2-)?IM-\d+)")  # (?:…) is no group
    check_pattern(None)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person12_bacteria_34.jpeg", "person12"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0491-0001-0002.jpeg", "IM-0491"),
        ("NORMAL2-IM-1423-0001.jpeg", "NORMAL2-IM-1423"),
        ("NORMAL-1003233-0001.jpeg", "1003233"),
        ("BACTERIA-1003233-0002.jpeg", "1003233"),
        ("VIRUS-28613-0001.jpeg", "28613"),
        ("00000013_005.png", "00000013"),
        ("patient00005/study1/view1_frontal.jpg", "patient00005"),
        ("p10/p10000032/s50414267/02aa804e-bde0afdd.jpg", "p10000032"),
        ("sub-S03044_ses-E06145_run-1_bp-chest_vp-pa_dx.png", "sub-S03044"),
        ("sub-001", "sub-001"),
        ("sub-001_ses-02", "sub-001"),
        ("BraTS-GLI-00000-001", "BraTS-GLI-00000"),
        ("BraTS-MEN-RT-0002-1", "BraTS-MEN-RT-0002"),
        ("BraTS2021_00002", "BraTS2021_00002"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("Brats18_TCIA02_117_1", "Brats18_TCIA02_117"),
        ("BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB"),
        ("TCGA-02-0006", "TCGA-02-0006"),
        ("TCGA-02-0006_1996.08.23", "TCGA-02-0006"),
        ("UCSF-PDGM-0004_nifti", "UCSF-PDGM-0004"),
        ("UCSF-PDGM-0431_FU001d", "UCSF-PDGM-0431"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("IXI002-Guys-0828", "IXI002"),
        ("OAS1_0001_MR1", "OAS1_0001"),
        ("002_S_0295_2006", "002_S_0295"),
    ],
)
def test_names_of_known_releases_tell_the_patient_by_themselves(name: str, patient: str) -> None:
    assert patients_of([name]) == [patient]
    assert doubts([name, "sub-x"]) == []


def test_a_patient_and_a_number_are_taken_for_visits_and_that_is_said() -> None:
    names = ["P01-0", "P01-1", "P02-0", "P03-0"]
    assert patients_of(names) == ["P01", "P01", "P02", "P03"]
    (doubt,) = doubts(names)
    assert doubt.severity == "warning"
    assert doubt.detail == "P01-0, P01-1"
    assert repr(r"^(.+)[-_]\d+(?:\.[A-Za-z]+)*$") in doubt.cure


def test_views_of_a_patient_stay_together() -> None:
    names = [f"{number}_{view}.png" for number in (17, 23, 42) for view in ("pa", "lat")]
    assert patients_of(names) == ["17", "17", "23", "23", "42", "42"]


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{number}.png" for number in range(40)],  # a counter, no patients
        [f"{kind}_{number}.png" for kind in ("normal", "sick") for number in range(6)],
        [f"CHNCXR_{number:04d}_{number % 2}.png" for number in range(40)],  # the last is the class
        ["Anna", "Bert", "C3"],
        ["a0.png", "a1.png", "b0.png"],
        [],
    ],
)
def test_numbers_that_are_no_visits_are_left_alone(names: list[str]) -> None:
    assert patients_of(names) == names
    assert doubts(names) == []


def test_words_that_repeat_may_be_patients_so_it_is_said() -> None:
    names = [f"{who}-{n}" for who in ("anna", "bert", "carl", "dora", "emil") for n in (1, 2)]
    assert patients_of(names) == names
    (doubt,) = doubts(names)
    assert "each a patient of its own though they repeat" in doubt.what
    assert "'^(.+)[-_]" in doubt.cure


@pytest.mark.parametrize(
    ("names", "pattern", "severity", "what", "cure"),
    [
        (["P1_a", "P1_b", "P2_a"], r"^(X\d+)", "error", "matches none of 3 names", "^([^-_/]+)"),
        (["sub-001", "sub-002"], BRATS, "error", "puts all 2 records into one", "null, which"),
        (["x1", "x2"], r"^(x)", "error", "into one patient, x", "so that group 1 is the patient"),
        (["P1-1", "P2-1", "odd"], BRATS, "warning", "1 of 3: odd", "so that group 1"),
        (["P1_1", "P1_2", "P2_1"], r"^(P\d_\d)$", "warning", "though names repeat", "^(.+)[-_]"),
        (
            ["VIRUS-1-0001.jpeg", "NORMAL-1-0001.jpeg", "NORMAL-22-0001.jpeg"],
            r"^(person\d+)",
            "error",
            "matches none",
            "null, which knows",
        ),
    ],
)
def test_a_pattern_that_tells_no_patients_is_named_with_one_that_would_do(
    names: list[str], pattern: str, severity: str, what: str, cure: str
) -> None:
    (doubt,) = doubts(names, pattern)
    assert doubt.severity == severity
    assert what in str(doubt)
    assert cure in doubt.cure
    assert names[0] in str(doubt) or names[-1] in str(doubt)


def test_who_says_that_each_is_a_patient_is_believed() -> None:
    assert doubts(["P1_1", "P1_2", "P2_1"], OWN) == []
    assert doubts(["P1_1", "P1_2", "P2_1"], r"^(P\d)") == []


@given(st.lists(st.text(max_size=12), max_size=12), st.sampled_from([None, BRATS, OWN]))
def test_any_names_have_patients_whatever_their_order(
    names: list[str], pattern: str | None
) -> None:
    patients = patients_of(names, pattern)
    assert len(patients) == len(names)
    assert patients_of(names[::-1], pattern) == patients[::-1]
    for doubt in doubts(names, pattern):
        assert doubt.cure


@given(st.integers(1, 99999), st.integers(0, 999), st.integers(0, 999))
def test_two_visits_are_one_patient_in_every_numbering(
    number: int, first: int, second: int
) -> None:
    for name in ("BraTS-MEN-{:05d}-{:03d}", "person{}_bacteria_{}.jpeg", "NORMAL-{}-{:04d}.jpeg"):
        one, other = patients_of([name.format(number, first), name.format(number, second)])
        assert one == other
        assert patients_of([name.format(number + 1, first)]) != [one]
