"""Record the runs that `mlrs dashboard --demo` shows: real trainings of digits, advised by a real daemon.

python examples/record_dashboard.py

Takes about three minutes, and writes the daemon's store to web/mlrs_web/demo/recording.sqlite3.xz. A store is
upgraded by the daemon that opens it, so this has to run again only when the demo is to show something new.
"""

from __future__ import annotations

import lzma
import math
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from support.digits import load_split
from torch import nn
from torch.nn.functional import cross_entropy

import mlrs
from mlrs.torch import AdvisedLR, MetaStep

HERE = Path(__file__).parent
RECORDING = HERE.parent / "web" / "mlrs_web" / "demo" / "recording.sqlite3.xz"
STEPS = 240
"""The steps of most runs."""
BATCH_SIZE = 64
(IMAGES, LABELS), (OTHERS, THEIRS) = (tuple(map(torch.from_numpy, split)) for split in load_split(0))


class Daemon:
    """`mlrs serve` on a socket, which can be killed and started again."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.address = f"unix:{folder}/daemon.sock"
        self._command = [sys.executable, "-m", "mlrs_cli", "serve", "--listen", self.address]
        self._command += ["--data-dir", str(data_dir), "--log-level", "error"]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate()


class Training:
    """A small network, its optimizer, and the batches that it sees."""

    def __init__(
        self, optimizer: str = "sgd", *, seed: int = 0, lr: float = 0.1, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        torch.manual_seed(seed)
        hidden = [nn.Linear(64, 48), activation(), nn.Linear(48, 48), activation()]
        self.model = nn.Sequential(*hidden, nn.Linear(48, 10))
        kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
        self.optimizer = kinds[optimizer](self.model.parameters(), lr=lr)
        self._chance = torch.Generator().manual_seed(seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next batch."""
        chosen = torch.randint(len(LABELS), (BATCH_SIZE,), generator=self._chance)
        return IMAGES[chosen], LABELS[chosen]

    def advised(self, run: mlrs.Run, steps: int, *, rescue: bool = True) -> AdvisedLR:
        """Train so many steps, with a validation loss every 20."""
        scheduler = AdvisedLR(self.optimizer, run, rescue=rescue)
        for step in range(steps):
            self.step(scheduler)
            if step % 20 == 19:
                scheduler.validate(self.validation_loss())
        return scheduler

    def asks(self, run: mlrs.Run, step: int) -> None:
        """Make one step, and ask for its learning rate as a loop without an adapter does."""
        loss = loss_of(self.model, self.batch())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.param_groups[0]["lr"] = run.next_lr(step, loss.item())
        self.optimizer.step()

    def step(self, scheduler: AdvisedLR, meta: MetaStep | None = None, *, brightness: float = 1.0) -> None:
        """Make one step."""
        images, labels = self.batch()
        self.optimizer.zero_grad()
        loss = loss_of(self.model, (brightness * images, labels))
        scheduler.observe(loss)
        loss.backward()
        if meta is None:
            self.optimizer.step()
        else:
            meta.step((OTHERS, THEIRS))
        scheduler.step()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss on images that are not trained on."""
        return loss_of(self.model, (OTHERS, THEIRS)).item()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the share of images that are recognized, of those that are not trained on."""
        return (self.model(OTHERS).argmax(1) == THEIRS).double().mean().item()


def loss_of(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the cross entropy of a batch, in nats."""
    images, labels = batch
    return cross_entropy(model(images), labels)


def remembered(advisor: mlrs.Advisor) -> None:
    """Train one task several times: the first run searches, the others begin with what is remembered."""
    for number in range(7):
        training = Training("adamw", seed=number, lr=1e-3)
        with advisor.run("digits/mlp", horizon=STEPS, num_classes=10, batch_size=BATCH_SIZE) as run:
            scheduler = AdvisedLR(training.optimizer, run)
            if number == 0:
                scheduler.search(training.model, loss_of, [training.batch() for _ in range(40)])
            for step in range(STEPS):
                training.step(scheduler)
                if step % 20 == 19:
                    scheduler.validate(training.validation_loss())
            run.finish(metric=training.accuracy(), higher_is_better=True)
            advisor.update_run(run.id, set_tags={"optimizer": "adamw", "seed": str(number)})


def diverged(advisor: mlrs.Advisor) -> None:
    """Train at a learning rate at which the loss becomes NaN."""
    options: dict[str, Any] = {"policy": "constant", "base_lr": 1e4, "horizon": STEPS}
    note = "A constant learning rate of 10,000.\nKept to show what a run that diverged looks like."
    with advisor.run("digits/too-fast", note=note, tags={"kind": "bad"}, **options) as run:
        Training(activation=nn.Identity).advised(run, 60, rescue=False)


def rescued(advisor: mlrs.Advisor) -> None:
    """Train with rescue through a batch that is broken: its images are NaN, and then so are the weights."""
    training = Training(seed=3)
    options: dict[str, Any] = {"horizon": STEPS, "num_classes": 10, "optimizer": "sgd", "rescue": True}
    note = "The batch of step 130 was broken: its images were NaN."
    with advisor.run("digits/rescued", note=note, **options) as run:
        scheduler = AdvisedLR(training.optimizer, run, model=training.model)
        for step in range(STEPS):
            training.step(scheduler, brightness=math.nan if step == 130 else 1.0)
        run.finish()


def rewound(advisor: mlrs.Advisor) -> None:
    """Train, go back to a checkpoint as a job that was preempted, and train on."""
    task, before = "digits/preempted", Training(seed=4)
    with advisor.run(task, horizon=STEPS, num_classes=10, optimizer="sgd") as run:
        scheduler = before.advised(run, 100)
        saved = {name: value.clone() for name, value in before.model.state_dict().items()}
        for _ in range(60):
            before.step(scheduler)
    after = Training(seed=11)
    after.model.load_state_dict(saved)
    with advisor.run(task, id=run.id, resume_from=100) as run:
        for step in range(100, STEPS):
            after.asks(run, step)
        run.finish()


def through_an_outage(daemon: Daemon) -> None:
    """Train while the daemon is killed and started again: the fallback answers meanwhile."""
    training = Training(seed=2)
    task, options = "digits/outage", {"horizon": STEPS, "num_classes": 10, "optimizer": "sgd"}
    with (
        mlrs.connect(daemon.address, timeout_s=2.0) as advisor,
        advisor.run(task, id="digits/outage/1", fallback="last", timeout_s=30.0, **options) as run,
    ):
        scheduler = training.advised(run, 90)
        daemon.end(signal.SIGKILL)
        for _ in range(25):
            training.step(scheduler)
        daemon.start()
        for _ in range(STEPS - 115):
            training.step(scheduler)
            time.sleep(0.02)  # so that few steps pass before the client finds the daemon again
        run.finish()


def of_ranks(address: str) -> None:
    """Train as two ranks, each on its own half of the batches."""
    training = [Training(seed=rank) for rank in range(2)]

    def train(rank: int) -> None:
        with mlrs.connect(address, timeout_s=30.0) as advisor:
            options: dict[str, Any] = {"horizon": STEPS, "num_classes": 10, "optimizer": "sgd"}
            run = advisor.run("digits/ranks", id="digits/ranks/1", rank=rank, world_size=2, **options)
            for step in range(STEPS // 2):
                training[rank].asks(run, step)
            run.detach()

    threads = [threading.Thread(target=train, args=[rank]) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def adapted(advisor: mlrs.Advisor, address: str) -> None:
    """Train in meta mode from a learning rate that is far too low; make a new version of the model."""
    for seed in range(2):
        training = Training(seed=seed)
        meta = mlrs.Meta(scope="model", every=5)
        options: dict[str, Any] = {"horizon": STEPS, "num_classes": 10, "initial_lr": 2e-3, "meta": meta}
        with advisor.run("digits/meta", id=f"digits/meta/{seed}", model="mlr-snet", **options) as run:
            scheduler = AdvisedLR(training.optimizer, run)
            step = MetaStep(training.model, loss_of, training.optimizer, scheduler, every=5)
            for _ in range(STEPS):
                training.step(scheduler, step)
            run.finish()
    for alias in ("stable", "next"):
        mlrs_command("models", "promote", "mlr-snet", "--alias", alias, "--address", address)
    with advisor.run("digits/promoted", model="stable", horizon=STEPS, num_classes=10) as run:
        Training().advised(run, STEPS)
        run.finish()


def under_way(advisor: mlrs.Advisor) -> None:
    """Train a part of a run, and leave it."""
    note = "Was under way when the recording ended."
    options: dict[str, Any] = {"horizon": 1000, "num_classes": 10, "optimizer": "sgd", "note": note}
    with advisor.run("digits/under-way", **options) as run:
        Training(seed=5).advised(run, 150)


def mlrs_command(*arguments: str) -> None:
    """Run a command of mlrs."""
    subprocess.run([sys.executable, "-m", "mlrs_cli", *arguments], check=True)


@contextmanager
def running(daemon: Daemon) -> Iterator[mlrs.Advisor]:
    """Run a daemon; yield an advisor of it."""
    daemon.start()
    try:
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            yield advisor
    finally:
        daemon.end()


def main() -> None:
    """Record."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RECORDING)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mlrs-") as folder:
        demo = [sys.executable, str(HERE / "demo.py"), "--steps", "500", "--out", folder]
        subprocess.run(demo, check=True)
        data_dir = Path(folder, "state")
        daemon = Daemon(Path(folder), data_dir)
        with running(daemon) as advisor:
            remembered(advisor)
            diverged(advisor)
            rescued(advisor)
            rewound(advisor)
            through_an_outage(daemon)
            of_ranks(daemon.address)
            adapted(advisor, daemon.address)
            under_way(advisor)
        mlrs_command("store", "vacuum", "--data-dir", str(data_dir))
        store = (data_dir / "mlrs.sqlite3").read_bytes()
        arguments.out.write_bytes(lzma.compress(store, preset=9 | lzma.PRESET_EXTREME))
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
