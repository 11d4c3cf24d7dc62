"""What editors, agents and the README are told is what the config files hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from vaelab.cli.reference import read_reference, with_tables
from vaelab.errors import UserError
from vaelab.run import CONF

from ..conftest import CLI


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix[:-1]: node}
    return {k: v for key in node for k, v in flat(node[key], f"{prefix}{key}.").items()}


def test_every_group_option_and_key_is_there_as_json(
    cli: CLI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("--help", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    for path in CONF.glob("*/*.yaml"):
        group = told["groups"][path.parent.name]
        option = group["options"][path.stem]
        assert option["description"], path
        keys = {key["key"]: key["default"] for key in option["keys"]}
        prefix = "" if path.parent.name == "experiment" else f"{path.parent.name}."
        own = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for key, value in flat(own).items():
            if key and "_target_" not in key and not key.startswith("defaults"):
                assert yaml.safe_load(keys[f"{prefix}{key}"]) == value, (path, key)
    assert told["groups"]["dataset"]["default"] == "phantom_mri"
    assert told["groups"]["experiment"]["default"] is None
    (lr,) = [key for key in told["keys"] if key["key"] == "train.lr_final"]
    assert lr["default"] == "1.0"
    assert lr["description"].startswith("share of lr that a half-cosine")


def test_an_option_has_the_keys_of_what_it_builds_on() -> None:
    (phantoms,) = [o for o in read_reference([CONF]).groups["dataset"] if o.name == "phantom_xray"]
    defaults = {key.key: key.default for key in phantoms.keys}
    assert defaults["dataset.root_dir"] == "outputs/phantoms"
    assert defaults["dataset.image_size"] == "[128, 128]"


def test_tables_are_written_between_their_markers_and_again() -> None:
    markers = "<!-- groups -->\nstale text\n<!-- /groups -->\n\n<!-- keys --><!-- /keys -->"
    page = f"# A\n\n{markers}\n\nend\n"
    reference = read_reference([CONF])
    written = with_tables(page, reference)
    assert "stale text" not in written
    assert written.startswith("# A\n\n<!-- groups -->\n\n| group ")
    assert written.endswith("<!-- /keys -->\n\nend\n")
    assert "\n| `annealing` | `linear`, `constant`, `cyclical` | `linear` |\n" in written
    assert "\n| `train` | `seed: 42`, `max_epochs: 200`, " in written
    assert with_tables(written, reference) == written


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(UserError, match="no <!-- groups -->"):
        with_tables("# A\n", read_reference([CONF]))
