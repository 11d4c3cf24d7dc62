"""Weights on disk: complete or absent, and data alone."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaelab.atomic import NoSpaceError
from vaelab.errors import UserError
from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import VAE
from vaelab.training.checkpoint import (
    AtomicCheckpointIO,
    CarriesCode,
    checkpoint_to_resume,
    load_checkpoint,
    load_weights,
    save_weights,
    weights_in,
)


def tiny_vae(z_dim: int = 2, seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    decoder = nn.Sequential(nn.Linear(z_dim, 4), nn.Unflatten(1, (1, 2, 2)))
    return EncoderDecoderVAE(encoder=nn.Flatten(), decoder=decoder, features=4, z_dim=z_dim)


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
    assert_same(torch.load(path, weights_only=True), original.state_dict())  # a plain state dict
    loaded = load_weights(tiny_vae(seed=1).train(), path)
    assert not loaded.training
    assert_same(loaded.state_dict(), original.state_dict())
    assert torch.equal(loaded(x).x_hat, original.eval()(x).x_hat)


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vae.pth"
    save_weights(tiny_vae(seed=0).state_dict(), path)

    def disk_full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", disk_full)  # all is written beside by now
    with pytest.raises(NoSpaceError, match="No space left"):
        save_weights(tiny_vae(seed=1).state_dict(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["vae.pth"]
    assert_same(load_checkpoint(path), tiny_vae(seed=0).state_dict())  # type: ignore[arg-type]


# --- a Lightning checkpoint


def test_the_network_is_taken_out_of_a_lightning_checkpoint() -> None:
    weight, bias = torch.ones(1), torch.zeros(2)
    state = {"model.encoder.weight": weight, "model.mu_head.bias": bias, "other": torch.ones(3)}
    weights = weights_in({"epoch": 4, "state_dict": state})
    assert_same(weights, {"encoder.weight": weight, "mu_head.bias": bias})


# --- code in a file


@pytest.mark.parametrize("write", [torch.save, lambda c, p: p.write_bytes(pickle.dumps(c, 2))],
                         ids=["torch", "pickle"])  # fmt: skip
def test_a_file_that_runs_a_command_is_refused_and_the_command_does_not_run(
    tmp_path: Path, write: Any
) -> None:
    path, trace = tmp_path / "vae.pth", tmp_path / "was_here"
    write({"mu_head.weight": Command(f"touch {trace}")}, path)
    with pytest.raises(CarriesCode) as refusal:
        load_weights(tiny_vae(), path)
    assert str(refusal.value).startswith(
        f"{path}: refused, not run: this file wants to call posix.system"
    )
    assert not trace.exists()


def test_the_command_of_the_test_above_would_have_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "vae.pth", tmp_path / "was_here"
    torch.save({"mu_head.weight": Command(f"touch {trace}")}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_class_of_another_library_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save({"path": tmp_path}, tmp_path / "vae.pth")
    with pytest.raises(CarriesCode, match=r"wants to call pathlib\.\w+"):
        load_checkpoint(tmp_path / "vae.pth")


# --- what a run goes on from


def checkpoint(folder: Path, name: str, epoch: int) -> Path:
    torch.save({"epoch": epoch, "state_dict": tiny_vae().state_dict()}, folder / name)
    return folder / name


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, "best_epoch_0003.ckpt", 3)
    last = checkpoint(tmp_path, "last.ckpt", 5)
    assert checkpoint_to_resume(tmp_path) == (last, 5)


def test_if_the_last_checkpoint_is_damaged_the_newest_undamaged_one_is_used_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for epoch in (1, 3, 12):
        checkpoint(tmp_path, f"best_epoch_{epoch:04d}.ckpt", epoch)
    for name in ("last.ckpt", "best_epoch_0012.ckpt"):
        (tmp_path / name).write_bytes(b"PK")
    assert checkpoint_to_resume(tmp_path) == (tmp_path / "best_epoch_0003.ckpt", 3)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "last.ckpt" in messages[0]
    assert all("going on from" in text and "best_epoch_0003" in text for text in messages)


def test_a_missing_last_checkpoint_is_named_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = checkpoint(tmp_path, "best_epoch_0003.ckpt", 3)
    assert checkpoint_to_resume(tmp_path) == (path, 3)
    assert "last.ckpt is not there; going on from" in caplog.text


def test_code_is_not_taken_for_damage(tmp_path: Path) -> None:
    checkpoint(tmp_path, "best_epoch_0003.ckpt", 3)
    torch.save({"epoch": Command(f"touch {tmp_path}/was_here")}, tmp_path / "last.ckpt")
    with pytest.raises(CarriesCode):
        checkpoint_to_resume(tmp_path)
    assert not (tmp_path / "was_here").exists()


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    save_weights(tiny_vae().state_dict(), tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="names no epoch"):
        checkpoint_to_resume(tmp_path)


def test_an_empty_folder_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path) is None
    assert checkpoint_to_resume(tmp_path / "absent") is None


def test_a_checkpoint_is_written_beside_its_place_and_not_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[Path, Path]] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append((a, b)), replace(a, b)))
    AtomicCheckpointIO().save_checkpoint({"epoch": 4}, tmp_path / "last.ckpt")
    ((source, target),) = moved
    assert source.parent == target.parent == tmp_path
    assert load_checkpoint(tmp_path / "last.ckpt") == {"epoch": 4}


# --- files that cannot be used


def test_a_missing_file_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "vae.pth"
    with pytest.raises(UserError) as refusal:
        load_checkpoint(path)
    assert str(refusal.value) == f"{path}: no such file; has this run saved a checkpoint?"


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
