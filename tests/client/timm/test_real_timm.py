"""The scheduler for timm with the real one: its optimizers, layer-wise decay and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mlrs
from mlrs.timm import AdvisedLR
from tests.support.daemon import Daemon
from tests.support.frameworks import framework

timm = framework("timm")
from timm.models import resume_checkpoint  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import CheckpointSaver  # noqa: E402

UPDATES = 4
"""The updates of an epoch."""
pytestmark = pytest.mark.filterwarnings("default")  # timm's and torchvision's own


class Training:
    """A training of a small vision transformer, in timm's order of calls."""

    def __init__(self, advisor: mlrs.Advisor, *, resume: Path | None = None, opt: str = "adamw") -> None:
        torch.manual_seed(0)
        self.model = timm.create_model(
            "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=16, num_heads=2, num_classes=4
        )
        self.optimizer: Any = create_optimizer_v2(self.model, opt=opt, lr=1e-3, layer_decay=0.5)
        self.start = 0
        if resume is not None:
            self.start = resume_checkpoint(self.model, str(resume), self.optimizer, log_info=False)
        self.scheduler = AdvisedLR(self.optimizer, "task", advisor=advisor, horizon=100, memory=False)
        self.updates = self.start * UPDATES
        if self.start:
            self.scheduler.step_update(self.updates)
        chance = torch.Generator().manual_seed(1)
        self.images = torch.randn(8, 3, 32, 32, generator=chance)
        self.labels = torch.randint(4, (8,), generator=chance)
        self.lrs: list[list[float]] = []

    def epoch(self, *, late: bool = False) -> None:
        """Train for an epoch as timm's script does."""
        for _ in range(UPDATES):
            loss = nn.functional.cross_entropy(self.model(self.images), self.labels)
            if not late:
                self.scheduler.observe(loss)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.lrs.append([group["lr"] for group in self.optimizer.param_groups])
            self.updates += 1
            self.scheduler.step_update(num_updates=self.updates, metric=loss if late else None)
        self.start += 1
        self.scheduler.step(self.start, 0.5)

    def weights(self) -> torch.Tensor:
        """Return all weights."""
        return torch.cat([weight.detach().flatten() for weight in self.model.parameters()])


@pytest.fixture
def real_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A real daemon."""
    with Daemon(tmp_path / "data") as daemon:
        yield daemon


def test_layer_decay(advisor: mlrs.Advisor) -> None:
    """Groups begin, and stay, at the ratios of timm's own schedulers."""
    training = Training(advisor)
    theirs = create_optimizer_v2(training.model, opt="adamw", lr=1e-3, layer_decay=0.5)
    create_scheduler_v2(theirs, sched="cosine", num_epochs=10)
    expected = [group["lr"] for group in theirs.param_groups]
    assert len(set(expected)) > 2
    assert [group["lr"] for group in training.optimizer.param_groups] == expected
    training.epoch()
    for lrs in training.lrs:
        assert [lr / max(lrs) for lr in lrs] == pytest.approx([lr / max(expected) for lr in expected])


@pytest.mark.parametrize(
    ("opt", "late", "with_kill"),
    [("adamw", False, True), ("adamw", True, False), ("lookahead_momentum", False, False)],
)
def test_an_interrupted_training_equals_an_undisturbed_one(
    real_daemon: Daemon, tmp_path: Path, opt: str, *, late: bool, with_kill: bool
) -> None:
    """A training that continues from timm's checkpoint is one that was not interrupted, to the bit."""
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        whole = Training(advisor, opt=opt)
        for _ in range(3):
            whole.epoch(late=late)
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        first = Training(advisor, opt=opt)
        first.epoch(late=late)
        saver = CheckpointSaver(first.model, first.optimizer, checkpoint_dir=str(tmp_path))
        saver.save_checkpoint(0, 0.5)
        first.epoch(late=late)  # is lost
    if with_kill:
        real_daemon.kill()
        real_daemon.start()
    with mlrs.connect(real_daemon.address, timeout_s=30.0) as advisor:
        second = Training(advisor, resume=tmp_path / "last.pth.tar", opt=opt)
        assert second.start == 1
        for _ in range(2):
            second.epoch(late=late)
        second.scheduler.finish()
        assert first.lrs[:UPDATES] + second.lrs == whole.lrs
        assert torch.equal(second.weights(), whole.weights())
        assert len(list(advisor.runs("task"))) == 2
