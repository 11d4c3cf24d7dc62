"""Weights on disk: complete or absent, and data alone."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.training.checkpoint import load_checkpoint, load_weights, save_weights, weights_in


def tiny_vae(z_dim: int = 2, seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    decoder = nn.Sequential(nn.Linear(z_dim, 4), nn.Unflatten(1, (1, 2, 2)))
    return VAE(encoder=nn.Flatten(), decoder=decoder, features=4, z_dim=z_dim)


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


class Command:
    """Runs a shell command when it is unpickled: what a hostile checkpoint does."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


# --- writing


def test_weights_come_back_as_they_were_in_evaluation_mode(tmp_path: Path) -> None:
    path, x = tmp_path / "deep" / "vae.pth", torch.ones(1, 1, 2, 2)
    original = tiny_vae(seed=0)
    save_weights(original.state_dict(), path)
    loaded = load_weights(tiny_vae(seed=1).train(), path)
    assert not loaded.training
    assert_same(loaded.state_dict(), original.state_dict())
    assert torch.equal(loaded(x).x_hat, original.eval()(x).x_hat)


def test_the_file_is_a_plain_state_dict(tmp_path: Path) -> None:
    save_weights(tiny_vae().state_dict(), tmp_path / "vae.pth")
    assert_same(torch.load(tmp_path / "vae.pth", weights_only=True), tiny_vae().state_dict())


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vae.pth"
    save_weights(tiny_vae(seed=0).state_dict(), path)

    def disk_full(_content: object, file: str | Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(tiny_vae(seed=1).state_dict(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["vae.pth"]
    assert_same(load_checkpoint(path), tiny_vae(seed=0).state_dict())  # type: ignore[arg-type]


def test_a_second_write_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "vae.pth"
    for seed in (0, 1):
        save_weights(tiny_vae(seed=seed).state_dict(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["vae.pth"]
    assert_same(load_checkpoint(path), tiny_vae(seed=1).state_dict())  # type: ignore[arg-type]


# --- a Lightning checkpoint


def test_the_network_is_taken_out_of_a_lightning_checkpoint() -> None:
    one, two = torch.ones(1), torch.zeros(2)
    state = {"model.encoder.weight": one, "model.mu_head.bias": two, "metric.total": torch.ones(3)}
    weights = weights_in({"epoch": 4, "state_dict": state})
    assert_same(weights, {"encoder.weight": one, "mu_head.bias": two})


# --- code in a file


@pytest.mark.parametrize("write", [torch.save, lambda c, p: p.write_bytes(pickle.dumps(c, 2))],
                         ids=["torch", "pickle"])  # fmt: skip
def test_a_file_that_runs_a_command_is_refused_and_the_command_does_not_run(
    tmp_path: Path, write: Any
) -> None:
    path, trace = tmp_path / "vae.pth", tmp_path / "was_here"
    write({"mu_head.weight": Command(f"touch {trace}")}, path)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: not a readable checkpoint"):
        load_weights(tiny_vae(), path)
    assert not trace.exists()


def test_the_command_of_the_test_above_would_have_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "vae.pth", tmp_path / "was_here"
    torch.save({"mu_head.weight": Command(f"touch {trace}")}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()


# --- files that cannot be used


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "vae.pth"
    with pytest.raises(UserError) as refusal:
        load_checkpoint(path)
    assert str(refusal.value) == f"{path}: no such file; has this run saved a checkpoint?"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_one_sentence_wherever_it_was_cut(tmp_path: Path, share: float) -> None:
    path = tmp_path / "vae.pth"
    save_weights(tiny_vae().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refuse_in_one_line(path)


@pytest.mark.parametrize(
    "content",
    [b"hello world\n", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", b"\x80\x02X"],
    ids=["text", "git-lfs pointer", "pickle"],
)
def test_a_file_that_never_was_a_checkpoint_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vae.pth"
    path.write_bytes(content)
    refuse_in_one_line(path)


def refuse_in_one_line(path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        load_checkpoint(path)
    assert str(refusal.value).startswith(f"{path}: not a readable checkpoint (")
    assert "\n" not in str(refusal.value)


def test_a_tensor_alone_is_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "vae.pth"
    torch.save(torch.ones(3), path)
    with pytest.raises(UserError, match="holds a Tensor, not a state dict"):
        load_weights(tiny_vae(), path)


def test_weights_of_another_network_are_refused_naming_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "vae.pth"
    save_weights(tiny_vae(z_dim=3).state_dict(), path)
    with pytest.raises(UserError) as refusal:
        load_weights(tiny_vae(z_dim=2), path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: these weights are of another network than the config ")
    assert "mu_head.weight" in message
    assert "\n" not in message


def test_a_lightning_checkpoint_is_not_mistaken_for_weights(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 4, "state_dict": tiny_vae().state_dict()}, path)
    with pytest.raises(UserError, match="of another network than the config describes"):
        load_weights(tiny_vae(), path)
