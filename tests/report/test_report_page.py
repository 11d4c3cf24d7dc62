"""What a report promises: one file, inert names, and controls that work in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import io
import json
import os
import re
import select
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaelab.errors import UserError
from vaelab.report.canvas import save_figure
from vaelab.report.cases import AnyCase, Case, VolumeCase
from vaelab.report.gallery import four_digits
from vaelab.report.report_page import Headline, MetricRow, ReportTable, write_report
from vaelab.report.score_figures import roc_curve_figure
from vaelab.report.viewer import MOST_VOXELS, packed, packed_volume

HOSTILE = "<script>window.hacked = 1</script>\"'><img src=x onerror='window.hacked=1'>&amp;{{7*7}}"


def _case(name: str = "a.png", score: float = 1.0, truth: str = "sick", **changes: Any) -> Case:
    image, reconstruction, heatmap = np.random.default_rng(0).random((3, 32, 32))
    case = Case(name, truth, score, 0.04, True, "virus", image, reconstruction, heatmap)
    return dataclasses.replace(case, **changes)


def _volume_case(shape: tuple[int, int, int] = (8, 10, 12), **changes: Any) -> VolumeCase:
    rng = np.random.default_rng(0)
    t1c, flair, heatmap = rng.random((3, *shape))
    seg = np.zeros(shape, np.int16)
    seg[2:4, 5:8, 6:9] = 3
    case = VolumeCase(
        id="BraTS-MEN-00001-000",
        truth="sick",
        score=2.0,
        p_value=None,
        flagged=None,
        group="",
        modalities={"t1c": t1c, "t2f": flair},
        reconstructions={"t1c": t1c / 2, "t2f": flair / 2},
        heatmap=heatmap,
        seg=seg,
    )
    return dataclasses.replace(case, **changes)


def _write(folder: Path, cases: list[Any], **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "title": "conv2d_vae on chest_xray",
        "headline": Headline("SquaredError", 624, 0.0123, units=64),
        "summary": {"Model": "conv2d_vae", "Score": "SquaredError"},
        "metrics": [MetricRow("AUROC", 0.8, 0.75, 0.85, "bootstrap"), MetricRow("Samples", 624)],
        "figures": {},
        "cases": cases,
        "heat_scale": 0.8,
        "scale_source": "99.5th percentile of healthy images",
        "config_yaml": "train:\n  lr: 1e-3\n",
        "versions": {"torch": "2.8"},
        "splits": {"train": 1208, "val": 134},
        "date": dt.date(2025, 1, 2),
    }
    return write_report(folder / "report.html", **(arguments | changes))


class _Page(HTMLParser):
    """Elements of a page, in order, with the text directly after each start tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def rows(self) -> list[dict[str, str | None]]:
        return [row for row in self.all("tr") if "data-id" in row]


# ---------------------------------------------------------------- one file


def test_the_file_asks_for_nothing_outside_itself(tmp_path):
    figure = save_figure(roc_curve_figure([0, 1], [0, 1], 0.5), tmp_path / "roc.png")
    path = _write(tmp_path, [_case(), _volume_case()], figures={"ROC": figure.read_bytes()})
    page = _Page(path)
    addresses = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "action", "poster", "data")
    ]
    assert addresses
    assert all(value is not None and value.startswith("data:") for value in addresses)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:;")


def test_a_hundred_images_stay_below_five_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.random((3, 128, 128))  # compresses worse than any radiograph
    cases = [_case(f"{n}.png", float(n), image=noise[0]) for n in range(100)]
    cases = [dataclasses.replace(c, reconstruction=noise[1], heatmap=noise[2]) for c in cases]
    noisy = _write(tmp_path, cases).stat().st_size
    smooth = np.linspace(0, 1, 128)[:, None] * np.ones(128) + 0.05 * noise[0]
    cases = [
        dataclasses.replace(c, image=smooth, reconstruction=smooth, heatmap=smooth) for c in cases
    ]
    size = _write(tmp_path, cases).stat().st_size
    assert size < 5e6
    assert size < noisy < 12e6


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    path = _write(tmp_path, [_case()])
    before = path.read_bytes()
    with pytest.raises(UserError):
        _write(tmp_path, [_case(score=float("nan"))])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_the_same_report_is_the_same_bytes(tmp_path):
    one, two = (_write(tmp_path / n, [_case(), _volume_case()]) for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_the_header_says_what_was_trained_on_what(tmp_path):
    text = " ".join(" ".join(_Page(_write(tmp_path, [_case()])).texts).split())
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
    figures = _Page(_write(tmp_path, [], figures=png)).all("figure")
    assert [figure["class"] for figure in figures] == ["panel chart", "panel"]
    assert {figure["style"] for figure in figures} == {"--width: 4px"}  # 8 at 150 DPI, 80 on a page


def test_a_figure_says_in_words_what_it_shows(tmp_path):
    figure = save_figure(roc_curve_figure([0, 1], [0, 1], 0.5), tmp_path / "roc.png")
    (image,) = _Page(_write(tmp_path, [], figures={"ROC": figure.read_bytes()})).all("img")
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
def test_the_page_begins_with_what_the_run_is_worth(tmp_path, changes, sentence):
    headline = Headline("SquaredError", 1624, 0.0123, units=64, **changes)
    texts = [text.strip() for text in _Page(_write(tmp_path, [], headline=headline)).texts]
    assert sentence in texts
    assert texts.index(sentence) < texts.index("Model")


# ---------------------------------------------------------------- names are text


def test_a_table_has_its_sentence_and_a_remark_stands_before_all_numbers(tmp_path):
    table = ReportTable("Maps", "The centre wins.", ["Map", "AP"], [["own", "0.1"], ["<i>", "0.2"]])
    path = _write(tmp_path, [], tables=[table], remarks=["P-values do not hold."])
    page = path.read_text(encoding="utf-8")
    assert "<p>The centre wins.</p>" in page
    assert '<th scope="row">own</th><td class="number"><b>0.1</b></td>' in page  # the run's own
    assert '<th scope="row">&lt;i&gt;</th><td class="number">0.2</td>' in page
    assert page.index("P-values do not hold.") < page.index("AUROC")


def test_markup_in_any_text_is_inert(tmp_path):
    figure = save_figure(roc_curve_figure([0, 1], [0, 1], 0.5), tmp_path / "roc.png").read_bytes()
    hostile = {HOSTILE: HOSTILE}
    volume = _volume_case(id=HOSTILE, modalities={HOSTILE: np.ones((4, 4, 4))})
    volume = dataclasses.replace(
        volume,
        reconstructions={HOSTILE: np.ones((4, 4, 4))},
        heatmap=np.ones((4, 4, 4)),
        seg=None,
    )
    path = _write(
        tmp_path,
        [_case(HOSTILE, group=HOSTILE), volume],
        title=HOSTILE,
        summary=hostile,
        metrics=[MetricRow(HOSTILE, 1.0, note=HOSTILE)],
        figures={HOSTILE: figure},
        scale_source=HOSTILE,
        config_yaml=HOSTILE,
        versions=hostile,
        splits={HOSTILE: 3},
    )
    page = _Page(path)
    assert len(page.all("script")) == 3  # a volume, the viewer's settings, the page's own
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert {row["data-id"] for row in page.rows()} == {HOSTILE}  # whole, entities undone
    assert "{{7*7}}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Größe_肺炎.png", "a\u202eb.png", "\x00\x07.png", " "])
def test_any_name_is_kept(tmp_path, name):
    assert _Page(_write(tmp_path, [_case(name)])).rows()[0]["data-id"] == name


def test_an_undecodable_name_is_written_with_a_question_mark(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    assert _Page(_write(tmp_path, [_case(name)])).rows()[0]["data-id"] == "caf?.png"


# ---------------------------------------------------------------- cases


def test_rows_begin_with_the_most_abnormal(tmp_path):
    cases = [_case(f"{s}", s) for s in (0.5, 3.0, -1.0)]
    rows = _Page(_write(tmp_path, cases)).rows()
    assert [row["data-id"] for row in rows] == ["3.0", "0.5", "-1.0"]
    assert [row["data-number"] for row in rows] == ["0", "1", "2"]


def test_hard_cases_are_the_lowest_sick_and_the_highest_normal(tmp_path):
    cases = [_case(f"sick {n}", n) for n in range(6)]
    cases += [_case(f"normal {n}", n + 0.5, "normal") for n in range(6)]
    text = _write(tmp_path, cases).read_text(encoding="utf-8")
    section = text.split('id="hard-cases"')[1].split("</section>")[0]
    assert re.findall(r"<bdi>(.*?)</bdi>", section) == [
        *(f"sick {n}" for n in range(4)),
        *(f"normal {n}" for n in (5, 4, 3, 2)),
    ]


def test_columns_and_sections_without_content_are_left_out(tmp_path):
    full = _write(tmp_path, [_case()]).read_text(encoding="utf-8")
    bare_case = _case(truth="", p_value=None, flagged=None, group="")
    bare = _write(tmp_path, [bare_case]).read_text(encoding="utf-8")
    for key in ("truth", "p", "flagged", "group"):
        assert f'data-key="{key}"' in full
        assert f'data-key="{key}"' not in bare
    assert 'id="hard-cases"' in full
    assert 'id="hard-cases"' not in bare


def test_a_report_may_have_no_cases(tmp_path):
    page = _Page(_write(tmp_path, [], metrics=[], summary={}, versions={}, splits={}))
    assert "This report has no cases." in " ".join(page.texts)
    assert not page.rows()


@pytest.mark.parametrize(
    ("cases", "changes", "complaint"),
    [
        ([_case(score=float("nan"))], {}, "score=nan"),
        ([_case(score=float("inf"))], {}, "score=inf"),
        ([_case(p_value=float("nan"))], {}, "p_value=nan"),
        ([_case(p_value=1.5)], {}, "p_value=1.5"),
        ([], {"heat_scale": 0.0}, "heat_scale=0.0"),
        ([], {"metrics": [MetricRow("AUROC", float("nan"))]}, "'AUROC'"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(tmp_path, cases, changes, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        _write(tmp_path, cases, **changes)
    assert not list(tmp_path.iterdir())


def test_a_diverged_reconstruction_is_shown_black_under_full_heat(tmp_path):
    nothing = np.full((32, 32), np.nan)
    case = _case(image=np.zeros((32, 32)), reconstruction=nothing, heatmap=nothing)
    page = _Page(_write(tmp_path, [case]))
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
    case = _volume_case()
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
    cases: list[AnyCase] = [_volume_case(id=f"{n}", score=n) for n in range(4)]
    page = _Page(_write(tmp_path, cases, max_volumes=2))
    assert len([s for s in page.all("script") if s.get("class") == "volume"]) == 2
    assert len([b for b in page.all("button") if "data-volume" in b]) == 2
    assert len(page.rows()) == 4


# ---------------------------------------------------------------- in a browser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update --disable-dev-shm-usage"
    " --remote-debugging-pipe --window-size=1400,1000"
)
# Chromium listens to file descriptor 3 and answers on 4.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """Chromium, driven over a pipe by the DevTools protocol; no package needed."""

    def __init__(self, executable: str, profile: Path) -> None:
        hears, self._commands = os.pipe()
        self._answers, speaks = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", LAUNCH, str(hears), str(speaks)),
                *(executable, *QUIET.split(), f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(hears, speaks),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(hears)
        os.close(speaks)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.getTargets")["targetInfos"][0]["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], 60)
            assert ready, "the browser has been silent for a minute"
            received = os.read(self._answers, 1 << 16)
            assert received, "the browser closed its pipe"
            self._buffer += received
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.run("if (document.readyState !== 'complete') await new Promise(r => onload = r)")

    def run(self, script: str) -> Any:
        """What the body of an async function returns in the page."""
        answer = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def complaints(self) -> list[dict[str, Any]]:
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self.process.wait(timeout=20)
        os.close(self._commands)
        os.close(self._answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or os.name != "posix":
        reason = "needs chromium on the PATH, and pipes as POSIX has them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    chromium = Browser(CHROMIUM, tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cases: list[AnyCase] = [
        _case("Größe 2.png", 0.1, "normal", group="", p_value=None, flagged=False),
        _case("Größe 10.png", 3.0, "sick", p_value=0.01),
        _case(HOSTILE, 2.5, "normal", p_value=0.2, group="bacteria"),
        _volume_case(),
        _volume_case(id="no tumour", score=-2.0, seg=None, truth="normal"),
    ]
    return _write(tmp_path_factory.mktemp("report"), cases, title=HOSTILE)


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
    case = _volume_case(
        modalities={"t1c": marked},
        reconstructions={"t1c": marked},
        heatmap=np.zeros(shape),
        seg=None,
    )
    browser.open(_write(tmp_path, [case]))
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
