"""A task with a training loop of its own: linear dynamics over exported latents."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from vaelab.assembly import Run, Task
from vaelab.atomic import write_json
from vaelab.errors import UserError
from vaelab.latents.sequences import LatentDataset, collate
from vaelab.training.checkpoint import load_checkpoint, save_weights

log = logging.getLogger(__name__)


class FitDynamics(Task):
    """Writes ``dynamics.pth``: z(t + 1) = z(t) + A z(t) + b.

    Args:
        latents: folder that ``task=encode`` has written.
        epochs: over all patients with two visits or more.
        lr: of AdamW.
    """

    parts = ("train",)
    needs_trained_run = False
    resumable = True

    def __init__(self, latents: str, epochs: int = 4, lr: float = 1e-2) -> None:
        if epochs < 1:
            raise UserError(f"task.epochs={epochs}: at least 1 is needed; try 4")
        self.latents = Path(latents)
        self.epochs = epochs
        self.lr = lr

    def __call__(self, run: Run) -> float:
        """Fit, from where a run that was cut off has stopped; returns the last loss."""
        torch.manual_seed(run.train.seed)
        visits = LatentDataset(self.latents, min_length=2)
        step = nn.Linear(visits.z_dim, visits.z_dim)
        nn.init.zeros_(step.weight)
        state = run.folder.path / "dynamics.pth"
        first = 0
        if run.resume and state.is_file():
            content = load_checkpoint(state)
            first = int(content.pop("epoch"))
            step.load_state_dict(content)
            log.info("going on at epoch %d", first)
        loss = float("nan")
        for epoch in range(first, self.epochs):
            optimizer = torch.optim.SGD(step.parameters(), self.lr)
            for batch in DataLoader(visits, batch_size=8, collate_fn=collate):
                now, later = batch["mu"][:, :-1], batch["mu"][:, 1:]
                there = batch["mask"][:, 1:, None]
                error = ((now + step(now) - later) * there).square().sum() / there.sum()
                optimizer.zero_grad()
                error.backward()
                optimizer.step()
                loss = float(error.detach())
            save_weights({**step.state_dict(), "epoch": torch.tensor(epoch + 1)}, state)
        write_json(run.folder.path / "dynamics.json", {"epochs": self.epochs, "first": first})
        return loss
