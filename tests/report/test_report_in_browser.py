"""The controls of a report page work in a browser, and the page asks for nothing."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from vaelab.report.cases import AnyCase

from .pages import HOSTILE, make_case, make_volume_case, write


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cases: list[AnyCase] = [
        make_case("Größe 2.png", 0.1, "normal", group="", p_value=None, flagged=False),
        make_case("Größe 10.png", 3.0, "sick", p_value=0.01),
        make_case(HOSTILE, 2.5, "normal", p_value=0.2, group="bacteria"),
        make_volume_case(),
        make_volume_case(id="no tumour", score=-2.0, seg=None, truth="normal"),
    ]
    return write(tmp_path_factory.mktemp("report"), cases, title=HOSTILE)


SHOWN = "return [...document.querySelectorAll('#cases tbody tr')].filter(r => !r.hidden)"
NUMBERS = SHOWN + ".map(r => r.dataset.number).join('')"  # rows are numbered by falling score
READY = """
    const viewer = document.getElementById("viewer");
    const until = async (condition) => {
      for (let n = 0; !condition(); n++) {
        if (n > 1000) throw new Error("waited in vain for " + condition);
        await new Promise(r => setTimeout(r, 10));
      }
    };
    await until(() => viewer.dataset.shows !== undefined);
    const canvas = (plane, kind = "input") =>
      viewer.querySelector(`[data-plane=${plane}] canvas[data-kind=${kind}]`);
    const shown = () => [...viewer.querySelectorAll("canvas")].map(c => c.toDataURL());
    const changed = (change) => {
      const before = shown();
      change();
      return shown().map((after, n) => after !== before[n]);
    };
"""


def test_the_page_opens_without_complaint_and_without_the_network(browser, report):
    browser.open(report)
    browser.run(READY)
    assert browser.complaints() == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests())
    assert browser.run("return window.hacked === undefined")
    assert browser.run("return document.title") == HOSTILE


def test_the_policy_blocks_what_asks_for_the_network(browser, report):
    browser.open(report)
    refused = "return await fetch('http://localhost:9/').then(() => false, () => true)"
    assert browser.run(refused)
    assert any("Content Security Policy" in json.dumps(event) for event in browser.complaints())


def test_a_click_sorts_and_a_second_click_turns_round(browser, report):
    browser.open(report)
    click = "document.querySelector('[data-key={}]').click();"
    state = "document.querySelector('[data-key={}]').parentElement.ariaSort"
    assert browser.run(NUMBERS) == "01234"
    assert browser.run(click.format("score") + NUMBERS) == "43210"
    assert browser.run("return " + state.format("score")) == "ascending"
    # p-values: 0 has 0.01, 1 has 0.2, the rest none, which come last either way.
    assert browser.run(click.format("p") + NUMBERS) == "01432"
    assert browser.run("return " + state.format("score")) is None
    assert browser.run(click.format("p") + NUMBERS) == "10432"
    # 2 before 10, as people count.
    names = SHOWN + ".map(r => r.dataset.id)"
    ordered = browser.run(click.format("id") + names)
    assert ordered.index("Größe 2.png") < ordered.index("Größe 10.png")


def test_the_keyboard_sorts(browser, report):
    browser.open(report)
    browser.run("document.querySelector('[data-key=score]').focus()")
    browser.press("Enter", 13)
    assert browser.run(NUMBERS) == "43210"


def test_truth_and_text_filter_together(browser, report):
    browser.open(report)
    choose = "truth.value = '{}'; truth.dispatchEvent(new Event('change'));"
    write = "search.value = '{}'; search.dispatchEvent(new Event('input'));"
    assert browser.run(choose.format("normal") + NUMBERS) == "134"
    assert browser.run("return count.textContent") == "3 of 5 cases"
    # Decomposed, as macOS stores names; the page has it composed.
    assert browser.run(write.format("GRO\u0308SSE") + NUMBERS) == ""
    assert browser.run(write.format("GRO\u0308\u00df") + NUMBERS) == "3"
    assert browser.run(choose.format("*") + NUMBERS) == "03"
    assert browser.run(write.format("bacteria") + NUMBERS) == "1"
    assert browser.run(write.format("") + NUMBERS) == "01234"


def test_a_case_is_enlarged_and_arrows_go_through_the_visible_ones(browser, report):
    browser.open(report)
    browser.run("document.querySelector('#cases [data-opens=\"0\"]').click()")
    title = "return document.getElementById('large-title').textContent"
    assert browser.run(title) == "Größe 10.png"
    browser.press("ArrowRight", 39)
    assert browser.run(title) == HOSTILE
    assert browser.run(
        "return [...document.querySelectorAll('dialog img')].every(i => i.naturalWidth)"
    )
    browser.press("Escape", 27)
    assert not browser.run("return document.querySelector('dialog').open")
    assert browser.complaints() == []


def test_the_viewer_redraws_for_each_control(browser, report):
    def redrawn(change: str) -> list[bool]:
        """Of input and reconstruction of the axial, coronal and sagittal plane, in this order."""
        browser.open(report)
        without_lines = "crosshair.click();"  # they would move in every plane
        result: list[bool] = browser.run(
            READY + without_lines + "return changed(() => {" + change + "})"
        )
        return result

    slider = "const slider = viewer.querySelector('[data-plane=axial] input');"
    move = slider + "slider.value = 1; slider.dispatchEvent(new Event('input'))"
    assert redrawn(move) == [True, True, False, False, False, False]
    assert redrawn("overlay.click()") == [True, False] * 3
    assert redrawn("outline.click()") == [True] * 6
    assert redrawn("modality.value = 1; modality.dispatchEvent(new Event('change'))") == [True] * 6
    assert redrawn("") == [False] * 6
    assert browser.complaints() == []


def test_the_viewer_hangs_slices_like_the_figures_do(browser, tmp_path):
    shape = (6, 8, 10)
    marked = np.zeros(shape)
    marked[0, 0, 0] = 1.0  # left, posterior, inferior
    marked[5, 7, 9] = 0.5  # right, anterior, superior
    case = make_volume_case(
        modalities={"t1c": marked},
        reconstructions={"t1c": marked},
        heatmap=np.zeros(shape),
        seg=None,
    )
    browser.open(write(tmp_path, [case]))
    grey = (
        READY
        + """
        const pixel = (plane, column, row) => {
          const c = canvas(plane, "reconstruction");
          return c.getContext("2d").getImageData(column * 4 + 2, row * 4 + 2, 1, 1).data[0];
        };
        crosshair.checked = false;
        const cut = (plane, n) => {
          const s = viewer.querySelector(`[data-plane=${plane}] input`);
          s.value = n;
          s.dispatchEvent(new Event("input"));
        };
        ["sagittal", "coronal", "axial"].forEach(plane => cut(plane, HERE));
        return [pixel("axial", AXIAL), pixel("coronal", CORONAL), pixel("sagittal", SAGITTAL)];
    """
    )

    def at(here: str, *places: str) -> list[int]:
        script = grey.replace("HERE", here)
        for name, place in zip(("AXIAL", "CORONAL", "SAGITTAL"), places, strict=True):
            script = script.replace(name, place)
        values: list[int] = browser.run(script)
        return values

    # The first voxel lies at the bottom right of each plane, the last one at the top left.
    assert min(at("0", "5, 7", "5, 9", "7, 9")) > 150
    assert min(at("99", "0, 0", "0, 0", "0, 0")) > 70
    assert max(at("0", "0, 0", "0, 0", "0, 0")) == 0


def test_a_click_moves_the_other_planes(browser, report):
    browser.open(report)
    places = """
        const [x, y, z] = ["sagittal", "coronal", "axial"].map(
          plane => Number(viewer.querySelector(`[data-plane=${plane}] input`).value));
        return [x, y, z];
    """
    assert browser.run(READY + places) == [2, 5, 6]
    click = """
        const box = canvas("axial").getBoundingClientRect();
        canvas("axial").dispatchEvent(new MouseEvent("click",
          { clientX: box.left + 1, clientY: box.bottom - 1 }));
    """
    assert browser.run(READY + click + places) == [7, 0, 6]  # right, posterior, same height


def test_another_volume_can_be_chosen(browser, report):
    browser.open(report)
    other = (
        READY
        + """
        document.querySelector('[data-volume="1"]').click();
        await until(() => viewer.dataset.shows === "1");
        return [document.getElementById("outline-label").hidden, size.textContent];
    """
    )
    assert browser.run(other) == [True, "8 × 10 × 12 voxels, 8 bits."]
    assert browser.complaints() == []


def test_the_keyboard_moves_through_a_volume(browser, report):
    browser.open(report)
    places = """
        return ["sagittal", "coronal", "axial"].map(
          plane => Number(viewer.querySelector(`[data-plane=${plane}] input`).value));
    """
    browser.run(READY + "canvas('axial').focus()")
    assert browser.run(READY + places) == [2, 5, 6]
    for key, code, place in (
        ("ArrowLeft", 37, [3, 5, 6]),  # the patient's right is on the left: x grows
        ("ArrowUp", 38, [3, 6, 6]),  # to the front
        ("PageUp", 33, [3, 6, 7]),  # the next slice
        ("End", 35, [3, 6, 11]),
        ("PageUp", 33, [3, 6, 11]),  # there is no further one
        ("Home", 36, [3, 6, 0]),
        ("ArrowRight", 39, [2, 6, 0]),
        ("ArrowDown", 40, [2, 5, 0]),
    ):
        browser.press(key, code)
        assert browser.run(READY + places) == place, key
    assert browser.complaints() == []


def test_printed_from_a_dark_screen_it_is_black_on_white_without_controls(browser, report):
    browser.open(report)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=dark)
    try:
        look = """
            const style = (chosen) => getComputedStyle(document.querySelector(chosen));
            return [style("body").backgroundColor, style("body").color, style("th").color,
              style(".tools").display];
        """
        assert browser.run(look) == [
            "rgb(255, 255, 255)",
            "rgb(0, 0, 0)",
            "rgb(68, 68, 68)",
            "none",
        ]
        pages = browser.call("Page.printToPDF", printBackground=True)["data"]
        assert base64.b64decode(pages).startswith(b"%PDF")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="", features=[])
