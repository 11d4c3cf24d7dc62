"""``task=export``: a trained run as files that need neither vaelab nor, for ONNX, PyTorch."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from vaelab.anomaly.calibration import ConformalCalibration, check_alpha
from vaelab.anomaly.exporting import (
    ONNX,
    TORCH,
    CannotExport,
    Graph,
    check_installed,
    run_archive,
    run_onnx,
    versions,
    write_graph,
)
from vaelab.anomaly.graph import Decoder, Detector, Encoder, Network, Verdict
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing, write_json
from vaelab.data.contract import Original
from vaelab.errors import UserError
from vaelab.evaluation.calibrating import Calibrated, calibration_in_use
from vaelab.evaluation.judge import judge_of
from vaelab.evaluation.kept import describe_score
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

SCORE_TOLERANCE, MAP_TOLERANCE = 1e-5, 1e-4
"""Largest difference from the run, in units of the larger of 1 and the run's own value."""
NUM_COMPARED = 3
SCRIPT = '''"""What detector.onnx says of .npy files: python run_onnx.py scan.npy ..."""
import json, pathlib, sys
import numpy, onnxruntime

here = pathlib.Path(__file__).parent
session = onnxruntime.InferenceSession(here / "detector.onnx")
for path in sys.argv[1:]:
    batch = numpy.load(path).astype(numpy.float32)[None]  # see "input" in export.json
    names = [output.name for output in session.get_outputs()]
    said = dict(zip(names, session.run(names, {session.get_inputs()[0].name: batch})))
    numpy.save(pathlib.Path(path).with_suffix(".map.npy"), said.pop("map")[0])
    print(json.dumps({"file": path, **{name: value[0].item() for name, value in said.items()}}))
'''


class Export(Task):
    """Writes ``export/`` into the run folder.

    - ``encoder``: samples → mu, logvar; ``decoder``: z → x_hat; ``network``: samples → x_hat, mu,
      logvar and what else the model says, z being mu.
    - ``detector``: of X-rays, decoded grey images of any size → score, map of that size and, where
      the run has a calibration, p-value and flag; of volumes, samples → the same.

    Each as ``.onnx`` and ``.pt2``, for any number of samples at once. Beside them
    ``weights.safetensors``; ``export.json``, with inputs, units, thresholds, versions, what was
    measured against the run and what could not be exported; and ``run_onnx.py``. Parts of somebody
    else may do what a graph cannot hold, and a score that asks for gradients does: that graph is
    left out, and the file says why.

    Args:
        output_dir: where to write; None is ``export`` in the run folder.
        alpha: tolerated share of healthy images flagged, in (0, 1).

    Raises:
        UserError: for an ``alpha`` out of range, or without the packages of the extra ``export``.
    """

    parts = ("dataset", "model", "hardware", "score", "train", "logging")

    def __init__(self, output_dir: PathText | None = None, alpha: float = 0.05) -> None:
        check_alpha(alpha)
        check_installed()
        self.output_dir = output_dir
        self.alpha = alpha

    def __call__(self, run: Run) -> None:
        """Write, then compare with the run on the CPU.

        Raises:
            UserError: when nothing can be exported, or what was written differs from the run.
        """
        run = run.replacing(hardware=replace(run.hardware, accelerator="cpu"))
        folder = Path(self.output_dir or run.folder.export).expanduser()
        run.data.setup("test")
        for name in ("export.json", "run_onnx.py", *_graph_files()):
            (folder / name).unlink(missing_ok=True)  # of an export before
        judge = judge_of(run)
        examples = _examples(run)
        samples = torch.stack([example.sample for example in examples])
        calibrated = calibration_in_use(run)
        calibration = calibrated.calibration if calibrated else None
        graphs: dict[str, Graph] = {}
        worst: dict[str, float] = {}
        missing: dict[str, str] = {}
        for name, graph in _network_graphs(run, samples).items():
            try:
                write_graph(graph, folder / name)
            except CannotExport as error:
                missing[name] = str(error)
                continue
            graphs[name] = graph
            worst[name] = _compare(folder / name, graph.example.numpy(), _outputs(graph))
        try:
            detector = self._detector_graph(run, examples, calibration)
            write_graph(detector, folder / "detector")
        except CannotExport as error:
            missing["detector"] = str(error)
        else:
            graphs["detector"] = detector
            worst["detector"] = max(
                _compare(
                    folder / "detector",
                    _stacked(example).numpy(),
                    _verdict(run, example, calibration, self.alpha),
                )
                for example in examples
            )
            with replacing(folder / "run_onnx.py") as unfinished:
                unfinished.write_text(SCRIPT, encoding="utf-8")
        if run.data.originals_in_graph() is None:
            missing["preparation"] = (
                "samples come in as this run's dataset prepares them, see sample in export.json"
            )
        for reason in missing.values():
            log.warning("not exported: %s", reason)
        if not graphs:
            raise UserError(f"nothing of this run can be exported: {next(iter(missing.values()))}")
        with replacing(folder / "weights.safetensors") as unfinished:
            state = judge.model.state_dict()
            save_file({key: value.contiguous() for key, value in state.items()}, unfinished)
        about = _about(run, graphs, worst, missing, calibrated, self.alpha)
        write_json(folder / "export.json", about)
        log.info("exported %s: %s", ", ".join(graphs), folder)

    def _detector_graph(
        self, run: Run, examples: Sequence[Original], calibration: ConformalCalibration | None
    ) -> Graph:
        score, judge = run.score, judge_of(run)
        if getattr(score, "needs_gradients", False):
            raise CannotExport(
                f"detector: {type(score).__name__} needs gradients, which a graph does not have; "
                "choose another with score="
            )
        originals = run.data.originals_in_graph()
        detector = Detector(
            judge.model, score, run.map_sigma, originals, calibration, self.alpha
        ).eval()
        example = _stacked(examples[0])
        free = ["batch"] if originals is None else ["batch", "height", "width"]
        names = Verdict._fields if calibration else Verdict._fields[:2]
        return Graph(detector, torch.cat([example, example]), free, "image", names)


def _graph_files() -> list[str]:
    names = ("encoder", "decoder", "network", "detector")
    return [f"{name}{suffix}" for name in names for suffix in (ONNX, TORCH)]


def _examples(run: Run) -> list[Original]:
    """A few held-out records; where originals have no graph, the samples stand for them."""
    records = run.data.splits["val"][:NUM_COMPARED]
    originals = run.data.originals_in_graph()
    if originals is not None:
        return list(originals.examples(records))
    dataset = run.data.samples(records)
    samples = [dataset[place]["image"] for place in range(len(records))]
    return [Original(x.numpy(), torch.as_tensor(x), lambda heatmap: heatmap) for x in samples]


def _stacked(example: Original) -> torch.Tensor:
    """A batch of one original."""
    return torch.from_numpy(np.array(example.pixels, dtype=np.float32))[None]


def _network_graphs(run: Run, samples: torch.Tensor) -> dict[str, Graph]:
    model = judge_of(run).model
    output = judge_of(run).detector.reconstruct(samples)
    # At least two: an exporter takes a batch of one for a constant.
    x = torch.cat([samples, samples])[: max(2, len(samples))]
    z = torch.cat([output.mu, output.mu])[: len(x)]
    free = ["batch"]
    return {
        "encoder": Graph(Encoder(model).eval(), x, free, "x", ["mu", "logvar"]),
        "decoder": Graph(Decoder(model).eval(), z, free, "z", ["x_hat"]),
        "network": Graph(Network(model).eval(), x, free, "x", list(output._fields)),
    }


@torch.no_grad()
def _outputs(graph: Graph) -> dict[str, NDArray[Any]]:
    """What the run's own network says of a graph's example."""
    said = graph.module(graph.example)
    several = (said,) if isinstance(said, torch.Tensor) else said
    return dict(zip(graph.outputs, (value.numpy() for value in several), strict=True))


def _verdict(
    run: Run, example: Original, calibration: ConformalCalibration | None, alpha: float
) -> dict[str, NDArray[Any]]:
    """What the run itself says of an original."""
    prediction = judge_of(run).detector(example.sample[None])
    heatmap = example.restored(prediction.heatmap[0].numpy())[None]
    verdict = {"score": prediction.score.numpy(), "map": heatmap}
    if calibration:
        p_value = np.atleast_1d(calibration.p_value(prediction.score.numpy()))
        verdict |= {"p_value": p_value, "flag": (p_value <= alpha).astype(np.int64)}
    return verdict


def _compare(stem: Path, x: NDArray[np.float32], expected: Mapping[str, NDArray[Any]]) -> float:
    """Largest difference of both written forms from the run.

    Raises:
        UserError: when it is beyond what is tolerated.
    """
    written = {
        ONNX: run_onnx(stem.with_suffix(ONNX), x),
        TORCH: dict(zip(expected, run_archive(stem.with_suffix(TORCH), x), strict=True)),
    }
    worst = 0.0
    for suffix, outputs in written.items():
        for name in [name for name in expected if name not in ("p_value", "flag")]:
            scale = max(1.0, float(np.abs(expected[name]).max()))
            difference = float(np.abs(outputs[name] - expected[name]).max()) / scale
            limit = SCORE_TOLERANCE if name == "score" else MAP_TOLERANCE
            if not difference <= limit:
                raise UserError(
                    f"{stem.with_suffix(suffix)}: {name} differs from the run's own by "
                    f"{difference:.2g}, more than {limit:g}; do not use this export"
                )
            worst = max(worst, difference)
    return worst


def _about(
    run: Run,
    graphs: Mapping[str, Graph],
    worst: Mapping[str, float],
    missing: Mapping[str, str],
    calibrated: Calibrated | None,
    alpha: float,
) -> dict[str, Any]:
    """Content of ``export.json``."""
    originals, unit = run.data.originals_in_graph(), run.data.sample_unit
    threshold = calibrated.calibration.threshold(alpha) if calibrated else math.inf
    return {
        "run": run.folder.name,
        "input": unit if originals is None else originals.unit,
        "sample": {
            "unit": unit,
            "channels": list(run.data.channel_names),
            "spacing_mm": run.data.spacing,
            "preparation": run.data.sample_settings(),
        },
        "graphs": {
            name: {
                "input": {
                    graph.input_name: [
                        *graph.input_axes,
                        *graph.example.shape[len(graph.input_axes) :],
                    ]
                },
                "outputs": list(graph.outputs),
                "largest_difference_from_the_run": worst[name],
            }
            for name, graph in graphs.items()
        },
        "not_exported": dict(missing),
        "score": describe_score(run.score) | {"map_sigma": run.map_sigma},
        "calibration": None
        if calibrated is None
        else calibrated.to_json()
        | {
            "alpha": alpha,
            "flagged_above": threshold if math.isfinite(threshold) else None,
            "scores": calibrated.calibration.scores.tolist(),
        },
        "weights_sha256": judge_of(run).weights_digest,
        "versions": versions(),
        "not_a_medical_device": True,
    }
