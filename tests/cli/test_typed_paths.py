"""Paths on the command line arrive as they were typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import example, given
from hypothesis import strategies as st

from vaelab.cli.arguments import arguments_for
from vaelab.cli.config_files import CONF
from vaelab.cli.typed_paths import as_typed, typed_path
from vaelab.errors import UserError
from vaelab.runs.overrides import unquoted

from ..conftest import CLI

ODD = "( ) , = ~ # & ' [ ] { }"
PARTS = st.text(
    st.one_of(
        st.sampled_from(ODD + '"\\:;äöü中文%@!?*|$0123456789'),
        st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"),
    ),
    min_size=1,
    max_size=10,
)
# What is in quotes, or has an interpolation in it, is not a path as typed; see typed_paths.
PATHS = (
    st.lists(PARTS, min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: unquoted(path) is None and "${" not in path)
    .filter(lambda path: path[0] not in "~[" and path != "null")
)
KEYS = (
    "dataset.root_dir", "dataset.cache_dir", "dataset.splits_dir", "task.output_dir", "task.inputs",
    "task.runs", "task.covariates", "task.with_runs", "run_dir", "resume", "hydra.sweep.dir",
    "logger.csv.folder", "logger.tensorboard.save_dir",
)  # fmt: skip


def parse(argument: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([argument])
    return override


def typed(argument: str, sweep: bool = False) -> Override:
    """The override that an argument becomes."""
    (ready,) = as_typed([argument], [CONF], sweep)
    # A sweep's jobs take the arguments as they have become.
    assert as_typed([ready], [CONF], sweep) == [ready]
    return parse(ready)


@given(st.sampled_from(KEYS), PATHS, st.booleans())
@example("dataset.root_dir", "Chest X-Ray Images (Pneumonia)", False)
@example("run_dir", "annealing=linear,train.kl_beta=0.5", False)
@example("dataset.root_dir", "2024", False)
@example("resume", "it's", False)
@example("dataset.root_dir", "'a' and 'b'", False)
@example("dataset.root_dir", "choice(a)", False)
@example("dataset.root_dir", " a ", False)
def test_any_path_is_read_as_typed(key: str, path: str, sweep: bool):
    override = typed(f"{key}={path}", sweep)
    number = path.replace(".", "").replace("/", "").isdigit()
    if not (number and key.startswith("task.")):  # refused when the task checks its arguments
        assert override.value() == path
    assert override.key_or_group == key
    assert typed_path(as_typed([f"{key}={path}"], [CONF])[0].partition("=")[2]) == path


@pytest.mark.parametrize("prefix", ["+", "++"])
def test_an_added_key_is_a_path_too(prefix: str):
    assert typed(f"{prefix}dataset.root_dir=a, b").value() == "a, b"


def test_the_home_directory_is_found_as_in_a_shell(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/a b")
    assert typed("dataset.root_dir=~/x, y").value() == "/home/a b/x, y"
    assert typed("dataset.root_dir=/x/~").value() == "/x/~"


@pytest.mark.parametrize(
    ("value", "meant"),
    [("'a, b'", "a, b"), ('"a (1)"', "a (1)"), ("null", None), ("", ""), ("'it\\'s'", "it's")],
)
def test_what_is_quoted_for_hydra_stays_as_it_is(value: str, meant: Any):
    assert as_typed([f"dataset.root_dir={value}"], [CONF]) == [f"dataset.root_dir={value}"]
    assert typed(f"dataset.root_dir={value}").value() == meant


def test_an_interpolation_is_kept():
    assert typed("dataset.cache_dir=${run_dir}/a (1)").value() == "${run_dir}/a (1)"


def test_brackets_are_a_list_where_several_paths_are_taken():
    assert typed("task.inputs=[a,'b (1)']").value() == ["a", "b (1)"]
    assert typed("task.inputs=[a] (1)").value() == "[a] (1)"
    assert typed("dataset.root_dir=[a,b]").value() == "[a,b]"


def test_a_sweep_over_paths_is_written_in_hydras_grammar(tmp_path: Path):
    for swept in ("choice(/a,'/b (1)')", "'/a', \"/b (1)\""):
        override = typed(f"dataset.root_dir={swept}", sweep=True)
        jobs = [parse(f"key={value}").value() for value in override.sweep_string_iterator()]
        assert jobs == ["/a", "/b (1)"]
    assert not typed("dataset.root_dir=/a,/b", sweep=True).is_sweep_override()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        UserError, match=r'to sweep over several, write "dataset\.root_dir=choice\('
    ):
        as_typed([f"dataset.root_dir={tmp_path}/a,{tmp_path}/b"], [CONF], sweep=True)


@pytest.mark.parametrize(
    "argument", ["train.kl_beta=0.5,1", "model.z_dim=8", "name=a(b", "task.path=linear,spherical"]
)
def test_other_keys_are_left_to_hydra(argument: str):
    assert as_typed([argument], [CONF]) == [argument]


@given(PATHS)
def test_a_run_is_found_again_and_its_arguments_can_be_read_twice(path: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaelab.runs.folder.RunFolder.is_run", True)
        patch.setattr(
            "vaelab.cli.arguments.read_config",
            lambda run: {"choices": {"logger": ["csv", "tensorboard"], "dataset": "brats_men"}},
        )
        arguments = arguments_for([f"resume={path}", "train.lr=1"])
        assert arguments_for(arguments) == arguments
    values = {o.key_or_group: o.value() for o in map(parse, arguments)}
    assert values == {
        "logger": ["csv", "tensorboard"], "dataset": "brats_men", "resume": path, "run_dir": path,
        "train.lr": 1,
    }  # fmt: skip


def test_a_run_works_in_folders_with_odd_names(
    cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    odd = f"{ODD} äö 中文"
    checked = ("task=check_data", "dataset=phantom_xray", "model=conv2d_vae")
    small = [f"dataset.phantoms.{key}=4" for key in ("num_train", "num_test")]
    arguments = [f"{key}={odd}/{key}" for key in ("dataset.root_dir", "dataset.cache_dir")]
    assert cli(*checked, *small, *arguments, f"run_dir={odd}/run") == 0, capfd.readouterr().out
    assert (tmp_path / odd / "run" / "config_resolved.yaml").is_file()
    assert (tmp_path / odd / "dataset.root_dir").is_dir()


def test_a_folder_that_is_named_by_a_number(
    cli: CLI, run_2d: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "2024").mkdir()
    assert cli("task=predict", f"run_dir={run_2d}", "task.inputs=2024") == 1
    assert "task.inputs=2024: is read as a number" in capfd.readouterr().out
    assert cli("task=predict", f"run_dir={run_2d}", "task.inputs=./2024") == 1
    shown = capfd.readouterr().out
    assert "2024" in shown  # there is nothing in it
    assert "is read as a number" not in shown


@pytest.mark.parametrize("quoting", ["double", "none"])
def test_a_variable_that_the_shell_did_not_replace_is_named(
    quoting: str, cli: CLI, capfd: pytest.CaptureFixture[str]
):
    value = "${HOME}/data" if quoting == "none" else '"${HOME}/data"'
    assert cli("dataset=brats_men", f"dataset.root_dir={value}") == 1
    shown = capfd.readouterr().out
    assert "dataset.root_dir=${HOME}/data: there is no key HOME" in shown
    for cure in ("~", "double quotes", "${oc.env:HOME}"):
        assert cure in shown
