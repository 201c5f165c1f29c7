"""Training processes that a test starts, kills and checks: `trainer.py` from the outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np

import mlrs
from mlrs_core.config import Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import Policy
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.live.replay import Replay
from tests.support.trainings.workload import loss_of, settings_of, steps_of

ROOT = Path(__file__).parents[3]


class Undisturbed:
    """The learning rates of runs that nothing happens to, computed in this process."""

    def __init__(self, model: Path) -> None:
        self._policy = read_model(model)[0].policy()
        self.lrs = cache(self._lrs)

    def _lrs(self, run_id: str) -> tuple[str, ...]:
        """Return the learning rates of a run, as hexadecimal: all of their bits."""
        losses = np.array([loss_of(run_id, step) for step in range(steps_of(run_id))])
        policy, config = self._served_by(run_id)
        return tuple(lr.hex() for lr in Replay(policy, config).feed(losses).tolist())

    def _served_by(self, run_id: str) -> tuple[Policy, RunConfig]:
        settings = dict(settings_of(run_id))
        if (kind := settings.pop("policy", None)) is not None:
            spec = ScheduleSpec(ScheduleKind[kind.upper()], base_lr=settings.pop("base_lr")).resolved()
            return schedule_policy(spec), RunConfig(schedule=spec, **settings)
        optimizer = Optimizer[settings.pop("optimizer", "unspecified").upper()]
        return self._policy, RunConfig(optimizer=optimizer, **settings)


class Training:
    """A process that trains many runs, which can be killed and started again."""

    def __init__(
        self,
        name: str,
        folder: Path,
        addresses: Sequence[str],
        *,
        timeout_s: float = 2.0,
        pause_s: float = 0.005,
        loops: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """With `loops` so many share the addresses (`crowd.py`); else each has a thread (`trainer.py`)."""
        self.name = name
        self.journal = folder / f"{name}.journal"
        self.output = folder / f"{name}.log"
        program = "tests.support.trainings.crowd" if loops else "tests.support.trainings.trainer"
        self._command = [sys.executable, "-m", program, name, str(self.journal), *addresses]
        self._command += ["--loops", str(loops)] if loops else []
        self._command += ["--timeout", str(timeout_s), "--pause", str(pause_s)]
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, the second time from where its journal and the daemon stand."""
        with self.output.open("a", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **self._environment}
            )
        return self

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def drain(self, timeout_s: float = 120) -> None:
        """Let it end the runs that it is in; it must exit in good order, without a word."""
        assert self._process is not None
        self.wait_until_ready()
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout_s)
        said = self.output.read_text(encoding="utf-8")
        assert (status, said) == (0, ""), (self.name, status, said)

    def wait_until_ready(self) -> None:
        """Wait until it has begun to train."""
        assert self._process is not None
        ready = f"ready {self._process.pid}\n"
        while not self.journal.exists() or ready not in self.journal.read_text(encoding="utf-8"):
            assert self._process.poll() is None, self.output.read_text(encoding="utf-8")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self.kill()


@dataclass
class Findings:
    """What journals, and the daemon's own record, say of runs."""

    steps: int = 0
    """Advice that training loops saw."""
    runs: int = 0
    """Runs that were finished."""
    again: Counter[str] = field(default_factory=Counter)
    """Calls that failed and were made again, by what failed them."""
    late_s: float = 0.0
    """The most by which a call outlived its deadline ..."""
    late_of_ours_s: float = 0.0
    """... without what the machine did not let the process run."""
    wrong: list[str] = field(default_factory=list)
    """What must not be; empty."""


def examine(trainings: Sequence[Training], undisturbed: Undisturbed, address: str) -> Findings:
    """Compare all that training loops saw with undisturbed runs, and with what the daemon has stored."""
    found = Findings()
    for training in trainings:
        finished = _read_journal(training, undisturbed, found)
        with mlrs.connect(address, timeout_s=20) as advisor:
            for run_id in finished:
                _check_record(advisor, run_id, undisturbed, found)
        found.runs += len(finished)
    return found


def _read_journal(training: Training, undisturbed: Undisturbed, found: Findings) -> list[str]:
    """Check what a training process saw; return the runs that it finished."""
    durable: dict[str, int] = defaultdict(lambda: -1)
    seen: dict[str, set[int]] = defaultdict(set)
    finished = []
    for words in _noted(training, found):
        line = " ".join(words)
        match words:
            case ["lr", run_id, step, lr, durable_step]:
                found.steps += 1
                seen[run_id].add(int(step))
                durable[run_id] = max(durable[run_id], int(durable_step))
                if (right := undisturbed.lrs(run_id)[int(step)]) != lr:
                    found.wrong.append(f"{line}: an undisturbed run gets {right}")
            case ["open", run_id, step] if int(step) <= durable[run_id]:
                found.wrong.append(f"{line}: step {durable[run_id]} was promised to survive")
            case ["open", run_id, step]:  # it may have been killed before it could note the step before
                seen[run_id].add(int(step) - 1)
            case ["finished", run_id]:
                finished.append(run_id)
                if seen[run_id] - {-1} != set(range(steps_of(run_id))):
                    found.wrong.append(f"{run_id}: finished with steps that nobody saw")
    return finished


def _noted(training: Training, found: Findings) -> Iterator[list[str]]:
    """Yield what a training process noted of its runs; take in what it noted of its calls."""
    for line in training.journal.read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["ready", *_]:
                continue
            case ["late", seconds, ours, *_]:
                found.late_s = max(found.late_s, float(seconds))
                found.late_of_ours_s = max(found.late_of_ours_s, float(ours))
            case ["again", *_, problem]:
                found.again[problem] += 1
            case ["error", *_]:
                found.wrong.append(f"{training.name}: {line}")
            case words:
                yield words


def _check_record(advisor: mlrs.Advisor, run_id: str, undisturbed: Undisturbed, found: Findings) -> None:
    """Check that the daemon stored every observation of a run, and the advice that it gave."""
    chunks = list(advisor.watch(run_id))
    losses = [loss.hex() for chunk in chunks for loss in chunk.losses]
    lrs = [lr.hex() for chunk in chunks for lr in chunk.learning_rates]
    if losses != [loss_of(run_id, step).hex() for step in range(steps_of(run_id))]:
        found.wrong.append(f"{run_id}: the record lacks observations, or has others: {len(losses)} are there")
    if tuple(lrs) != undisturbed.lrs(run_id):
        found.wrong.append(f"{run_id}: the record has other learning rates than an undisturbed run")
