"""Signals and validation losses through real processes: none is lost or doubled, whatever is killed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import mlrs
from mlrs.errors import StaleStepError
from mlrs.types import RecordChunk, SignalRecord, Signals, ValidationRecord
from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.runs import open_run

STEPS = 120
KILLS = {1, 41, 110}
"""The steps before which the daemon is killed."""


def loss_at(step: int) -> float:
    """Return the loss of a step."""
    return 2.0 / (1 + step)


def signals_at(step: int) -> Signals | None:
    """Return the signals of a step, if it has some."""
    if step % 3 == 0:
        return None
    return Signals(update_norm2=1.0 / (step + 1), grad_dot_update=math.inf if step % 5 else -float(step))


def train(run: mlrs.Run, start: int, end: int, daemon: Daemon | None = None) -> list[float]:
    """Observe steps with signals, and a validation loss for every eighth; return the learning rates."""
    lrs = []
    for step in range(start, end):
        if daemon is not None and step in KILLS:
            daemon.kill()
            daemon.start()
        if step % 8 == 0:
            run.validate(max(step - 1, 0), loss_at(step) + 0.5)
        lrs.append(run.next_lr(step, loss_at(step), signals=signals_at(step)))
    return lrs


def record_of(
    advisor: mlrs.Advisor, run_id: str
) -> tuple[str, tuple[ValidationRecord, ...], tuple[float, ...]]:
    """Return the signals, as text as they hold NaN, the validation losses and the losses of a record."""
    chunks: list[RecordChunk] = list(advisor.watch(run_id))
    signals = [one for chunk in chunks for one in chunk.signals]
    return (
        repr(signals),
        tuple(one for chunk in chunks for one in chunk.validations),
        tuple(loss for chunk in chunks for loss in chunk.losses),
    )


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "killed"])
def test_a_record_is_what_was_sent(tmp_path: Path, kills: bool) -> None:  # noqa: FBT001  # a parameter
    """A daemon that is killed again and again has each signal and validation loss once, with its step."""
    model = write_random_model(tmp_path / "model.safetensors")
    listen = f"127.0.0.1:{steady_port()}"
    with (
        Daemon(tmp_path / "data", "--model", str(model), listen=listen) as daemon,
        mlrs.connect(daemon.address, timeout_s=30) as advisor,
    ):
        run = open_run(advisor, "a", fallback=None)
        train(run, 0, STEPS, daemon if kills else None)
        run.finish()
        signals, validations, losses = record_of(advisor, "a")
    sent = [(step, signals_at(step)) for step in range(STEPS)]
    assert signals == repr([SignalRecord(step=step, signals=one) for step, one in sent if one is not None])
    assert validations == tuple(
        ValidationRecord(step=max(step - 1, 0), loss=loss_at(step) + 0.5, observed_step=step)
        for step in range(0, STEPS, 8)
    )
    assert losses == tuple(map(loss_at, range(STEPS)))


def test_steps_are_replayed_with_the_same_signals_only_after_a_crash(tmp_path: Path) -> None:
    """A process that begins again gets the recorded advice for the same signals or none, not for others."""
    model = write_random_model(tmp_path / "model.safetensors")
    listen = f"127.0.0.1:{steady_port()}"
    with Daemon(tmp_path / "data", "--model", str(model), listen=listen) as daemon:
        with mlrs.connect(daemon.address, timeout_s=30) as advisor:
            first = train(open_run(advisor, "a", fallback=None), 0, 30)
            stored = advisor.get_run("a")
        daemon.kill()
        daemon.start()
        assert stored.durable_step == 29
        with mlrs.connect(daemon.address, timeout_s=30) as advisor:
            run = open_run(advisor, "a", fallback=None)
            assert train(run, 0, 30) == first
            with pytest.raises(StaleStepError, match="was answered with"):
                run.next_lr(10, loss_at(10), signals=Signals(update_norm2=5.0))
            run.validate(29, 1.0)  # for step 30
            assert run.next_lr(29, loss_at(29)) == first[29]
            assert train(run, 30, 33)[0] > 0.0


def test_of_several_ranks_the_lowest_with_signals_counts(tmp_path: Path) -> None:
    """Ranks share one record, with the signals of the lowest rank that sent some, and its validation loss."""
    model = write_random_model(tmp_path / "model.safetensors")
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        advisors = [mlrs.connect(daemon.address, timeout_s=30) for _ in range(2)]
        low, high = (open_run(advisor, "a", rank=rank, world_size=2) for rank, advisor in enumerate(advisors))
        for step in range(6):
            if step == 4:
                high.validate(3, 0.5)
            told = signals_at(step), Signals(update_norm2=float(step))
            pendings = [
                run.observe(step, 1.0, signals=one) for run, one in zip((low, high), told, strict=True)
            ]
            assert len({pending.lr() for pending in pendings}) == 1
        signals, validations, _ = record_of(advisors[0], "a")
        for advisor in advisors:
            advisor.close()
    expected = [
        SignalRecord(step=step, signals=signals_at(step) or Signals(update_norm2=float(step)))
        for step in range(6)
    ]
    assert signals == repr(expected)
    assert validations == (ValidationRecord(step=3, loss=0.5, observed_step=4),)
