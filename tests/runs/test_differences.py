"""What two configs differ in, and paths within a run folder that was moved."""

from __future__ import annotations

from vaelab.runs.differences import deciding, differences, rerooted


def test_paths_within_a_folder_move_with_it_at_any_depth() -> None:
    config = {
        "run_dir": "/runs/a",
        "logger": {"csv": {"folder": "/runs/a/logs"}},
        "task": {"runs": ["/runs/a/seeds/1", 5, None]},
    }
    assert rerooted(config, "/runs/a", "/else/b") == {
        "run_dir": "/else/b",
        "logger": {"csv": {"folder": "/else/b/logs"}},
        "task": {"runs": ["/else/b/seeds/1", 5, None]},
    }


def test_neighbours_of_a_folder_and_words_that_hold_its_name_stay() -> None:
    config = {"cache_dir": "/runs/ab/cache", "root_dir": "/data/runs/a", "name": "not /runs/a"}
    assert rerooted(config, "/runs/a", "/runs/c") == config


def test_runs_that_differ_in_their_place_alone_do_not_differ() -> None:
    def config(run_dir: str) -> dict[str, object]:
        return {"run_dir": run_dir, "logger": {"folder": f"{run_dir}/logs"}, "lr": 0.1}

    one, other = (
        deciding(rerooted(config(run), run, "<run>")) for run in ("/runs/a", "/runs/a_second")
    )
    assert differences(one, other) == ""
    assert differences(one, other | {"lr": 0.2}) == "lr (was 0.1, is 0.2)"
