"""The report page: a single file, inert names, numbers and cases."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from vaelab.errors import UserError
from vaelab.report.canvas import save_figure
from vaelab.report.cases import AnyCase, VolumeCase
from vaelab.report.gallery import four_digits
from vaelab.report.report_page import Headline, MetricRow, ReportTable
from vaelab.report.score_figures import roc_curve_figure
from vaelab.report.viewer import MOST_VOXELS, packed, packed_volume

from .pages import HOSTILE, Page, make_case, make_volume_case, write

# ---------------------------------------------------------------- one file


def test_the_file_asks_for_nothing_outside_itself(tmp_path):
    figure = save_figure(roc_curve_figure([0, 1], [0, 1], 0.5), tmp_path / "roc.png")
    path = write(tmp_path, [make_case(), make_volume_case()], figures={"ROC": figure.read_bytes()})
    page = Page(path)
    assert page.addresses()
    assert all(address.startswith("data:") for address in page.addresses())
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:;")


def test_a_hundred_images_stay_below_five_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.random((3, 128, 128))  # compresses worse than any radiograph
    cases = [make_case(f"{n}.png", float(n), image=noise[0]) for n in range(100)]
    cases = [dataclasses.replace(c, reconstruction=noise[1], heatmap=noise[2]) for c in cases]
    noisy = write(tmp_path, cases).stat().st_size
    smooth = np.linspace(0, 1, 128)[:, None] * np.ones(128) + 0.05 * noise[0]
    cases = [
        dataclasses.replace(c, image=smooth, reconstruction=smooth, heatmap=smooth) for c in cases
    ]
    size = write(tmp_path, cases).stat().st_size
    assert size < 5e6
    assert size < noisy < 12e6


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    path = write(tmp_path, [make_case()])
    before = path.read_bytes()
    with pytest.raises(UserError):
        write(tmp_path, [make_case(score=float("nan"))])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_the_same_report_is_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / n, [make_case(), make_volume_case()]) for n in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_the_header_names_model_and_data(tmp_path):
    text = " ".join(" ".join(Page(write(tmp_path, [make_case()])).texts).split())
    for part in (
        "conv2d_vae on chest_xray",
        "2025-01-02",
        "Samples train 1,208 · val 134",
        "torch 2.8",
    ):
        assert part in text
    assert "lr: 1e-3" in text
    assert "AUROC 0.8000 0.7500 – 0.8500 bootstrap" in text
    assert "Samples 624 –" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.8, "0.8000"), (0.0041234, "0.004123"), (12.0, "12.00"), (0.0, "0.000")),
        *((93, "93"), (1234567, "1,234,567"), (154213.4, "154,213"), (-3.2e9, "-3.200e+09")),
    ],
)
def test_numbers_have_four_digits_and_large_ones_all(value, shown):
    assert four_digits(value) == shown


def test_a_dark_page_turns_charts_dark_but_no_pictures_of_patients(tmp_path):
    png = {}
    for name, colour in (("chart", "white"), ("card", "#101216")):
        file = io.BytesIO()
        Image.new("RGB", (8, 4), colour).save(file, "PNG")
        png[name] = file.getvalue()
    figures = Page(write(tmp_path, [], figures=png)).all("figure")
    assert [figure["class"] for figure in figures] == ["panel chart", "panel"]
    assert {figure["style"] for figure in figures} == {"--width: 4px"}  # 8 at 150 DPI, 80 on a page


def test_a_figure_has_an_alternative_text(tmp_path):
    figure = save_figure(roc_curve_figure([0, 1], [0, 1], 0.5), tmp_path / "roc.png")
    (image,) = Page(write(tmp_path, [], figures={"ROC": figure.read_bytes()})).all("img")
    assert image["alt"] == (
        "ROC: area under the curve 0.500. "
        "true positive rate (sensitivity) over false positive rate (1 − specificity)"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "1,624 samples are reconstructed with a mean squared error of 0.0123."),
        (
            {"active_units": 40, "tumour_ratio": 3.2},
            "The squared error on tumour voxels is 3.20 times that of the other voxels; 1,624 "
            "samples are reconstructed with a mean squared error of 0.0123, 40 of 64 latent units "
            "active.",
        ),
        (
            {
                "auroc": MetricRow("AUROC", 0.871, 0.84, 0.9),
                "sensitivity": 0.62,
                "false_alarm_rate": 0.07,
            },
            "SquaredError tells sick from normal samples with an AUROC of 0.87 (95 % interval "
            "0.84 to 0.90); 62% of the sick and 7% of the normal samples are flagged.",
        ),
    ],
    ids=["nothing judged", "tumours", "detection"],
)
def test_the_page_begins_with_the_result_of_the_run(tmp_path, changes, sentence):
    headline = Headline("SquaredError", 1624, 0.0123, units=64, **changes)
    texts = [text.strip() for text in Page(write(tmp_path, [], headline=headline)).texts]
    assert sentence in texts
    assert texts.index(sentence) < texts.index("Model")


# ---------------------------------------------------------------- names are text


def test_a_table_has_its_sentence_and_a_remark_stands_before_all_numbers(tmp_path):
    table = ReportTable("Maps", "The centre wins.", ["Map", "AP"], [["own", "0.1"], ["<i>", "0.2"]])
    path = write(tmp_path, [], tables=[table], remarks=["P-values do not hold."])
    page = path.read_text(encoding="utf-8")
    assert ">The centre wins.</p>" in page
    assert '<th scope="row">own</th><td class="number"><b>0.1</b></td>' in page  # the run's own
    assert '<th scope="row">&lt;i&gt;</th><td class="number">0.2</td>' in page
    assert page.index("P-values do not hold.") < page.index("AUROC")


def test_markup_in_any_text_is_inert(tmp_path):
    figure = save_figure(roc_curve_figure([0, 1], [0, 1], 0.5), tmp_path / "roc.png").read_bytes()
    hostile = {HOSTILE: HOSTILE}
    volume = make_volume_case(id=HOSTILE, modalities={HOSTILE: np.ones((4, 4, 4))})
    volume = dataclasses.replace(
        volume,
        reconstructions={HOSTILE: np.ones((4, 4, 4))},
        heatmap=np.ones((4, 4, 4)),
        seg=None,
    )
    path = write(
        tmp_path,
        [make_case(HOSTILE, group=HOSTILE), volume],
        title=HOSTILE,
        summary=hostile,
        metrics=[MetricRow(HOSTILE, 1.0, note=HOSTILE)],
        figures={HOSTILE: figure},
        scale_source=HOSTILE,
        config_yaml=HOSTILE,
        versions=hostile,
        splits={HOSTILE: 3},
    )
    page = Page(path)
    assert len(page.all("script")) == 3  # a volume, the viewer's settings, the page's own
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert {row["data-id"] for row in page.rows()} == {HOSTILE}  # whole, entities undone
    assert "{{7*7}}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Größe_肺炎.png", "a\u202eb.png", "\x00\x07.png", " "])
def test_any_name_is_kept(tmp_path, name):
    assert Page(write(tmp_path, [make_case(name)])).rows()[0]["data-id"] == name


def test_an_undecodable_name_is_written_with_a_question_mark(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    assert Page(write(tmp_path, [make_case(name)])).rows()[0]["data-id"] == "caf?.png"


# ---------------------------------------------------------------- cases


def test_rows_begin_with_the_most_abnormal(tmp_path):
    cases = [make_case(f"{s}", s) for s in (0.5, 3.0, -1.0)]
    rows = Page(write(tmp_path, cases)).rows()
    assert [row["data-id"] for row in rows] == ["3.0", "0.5", "-1.0"]
    assert [row["data-number"] for row in rows] == ["0", "1", "2"]


def test_hard_cases_are_the_lowest_sick_and_the_highest_normal(tmp_path):
    cases = [make_case(f"sick {n}", n) for n in range(6)]
    cases += [make_case(f"normal {n}", n + 0.5, "normal") for n in range(6)]
    text = write(tmp_path, cases).read_text(encoding="utf-8")
    section = text.split('id="hard-cases"')[1].split("</section>")[0]
    assert re.findall(r"<bdi>(.*?)</bdi>", section) == [
        *(f"sick {n}" for n in range(4)),
        *(f"normal {n}" for n in (5, 4, 3, 2)),
    ]


def test_columns_and_sections_without_content_are_left_out(tmp_path):
    full = write(tmp_path, [make_case()]).read_text(encoding="utf-8")
    bare_case = make_case(truth="", p_value=None, flagged=None, group="")
    bare = write(tmp_path, [bare_case]).read_text(encoding="utf-8")
    for key in ("truth", "p", "flagged", "group"):
        assert f'data-key="{key}"' in full
        assert f'data-key="{key}"' not in bare
    assert 'id="hard-cases"' in full
    assert 'id="hard-cases"' not in bare


def test_a_report_may_have_no_cases(tmp_path):
    page = Page(write(tmp_path, [], metrics=[], summary={}, versions={}, splits={}))
    assert "This report has no cases." in " ".join(page.texts)
    assert not page.rows()


@pytest.mark.parametrize(
    ("cases", "changes", "complaint"),
    [
        ([make_case(score=float("nan"))], {}, "score=nan"),
        ([make_case(score=float("inf"))], {}, "score=inf"),
        ([make_case(p_value=float("nan"))], {}, "p_value=nan"),
        ([make_case(p_value=1.5)], {}, "p_value=1.5"),
        ([], {"heat_scale": 0.0}, "heat_scale=0.0"),
        ([], {"metrics": [MetricRow("AUROC", float("nan"))]}, "'AUROC'"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(tmp_path, cases, changes, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        write(tmp_path, cases, **changes)
    assert not list(tmp_path.iterdir())


def test_a_diverged_reconstruction_is_shown_black_under_full_heat(tmp_path):
    nothing = np.full((32, 32), np.nan)
    case = make_case(image=np.zeros((32, 32)), reconstruction=nothing, heatmap=nothing)
    page = Page(write(tmp_path, [case]))
    reconstruction, heat = (
        next(_pixels(image) for image in page.all("img") if image["alt"] == kind)
        for kind in ("reconstruction", "heat map")
    )
    assert reconstruction.max() == 0
    assert heat[..., 0].min() > 100


def _pixels(image: dict[str, str | None]) -> np.ndarray:
    encoded = str(image["src"]).split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


# ---------------------------------------------------------------- volumes


def _unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.cumsum(steps, dtype=np.uint64).astype(np.uint8).reshape(shape)


def test_packing_loses_nothing():
    volume = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    np.testing.assert_array_equal(_unpacked(packed(volume), volume.shape), volume)


def test_a_small_volume_is_embedded_voxel_by_voxel():
    case = make_volume_case()
    embedded = packed_volume(case, heat_scale=0.5)
    assert embedded["shape"] == embedded["original"] == (8, 10, 12)
    heat = _unpacked(embedded["heat"], (8, 10, 12))
    np.testing.assert_array_equal(heat, np.rint(255 * np.clip(case.heatmap / 0.5, 0, 1)))
    seg = _unpacked(embedded["seg"], (8, 10, 12))
    np.testing.assert_array_equal(seg, case.seg > 0)
    assert embedded["start"] == [2, 5, 6]  # the first slices with most tumour


def test_a_large_volume_is_reduced_and_keeps_its_proportions():
    side = MOST_VOXELS + 32
    ramp = np.broadcast_to(np.linspace(0, 1, side)[:, None, None], (side, 64, 32))
    seg = np.zeros(ramp.shape, int)
    seg[100:110, 30:50, 5:9] = 1
    case = VolumeCase("a", "", 0.0, None, None, "", {"t1c": ramp}, {"t1c": ramp}, ramp, seg)
    embedded = packed_volume(case, heat_scale=1.0)
    assert embedded["shape"] == (96, 48, 24)
    assert embedded["original"] == (128, 64, 32)
    x_hat = _unpacked(embedded["modalities"][0]["reconstruction"], (96, 48, 24))
    expected = 255 * (np.arange(96) + 0.5) / 96
    np.testing.assert_allclose(x_hat[:, 20, 10], expected, atol=2)
    small = _unpacked(embedded["seg"], (96, 48, 24))
    assert set(np.unique(small)) == {0, 1}
    assert small.mean() == pytest.approx((seg > 0).mean(), rel=0.25)


def test_only_the_first_volumes_can_be_leafed_through(tmp_path):
    cases: list[AnyCase] = [make_volume_case(id=f"{n}", score=n) for n in range(4)]
    page = Page(write(tmp_path, cases, max_volumes=2))
    assert len([s for s in page.all("script") if s.get("class") == "volume"]) == 2
    assert len([b for b in page.all("button") if "data-volume" in b]) == 2
    assert len(page.rows()) == 4
