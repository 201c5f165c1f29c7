"""A training whose optimizer's state comes from a checkpoint continues its run, to the bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlrs
from tests.support.daemon import Daemon
from tests.support.frameworks import framework
from tests.support.runs import until_durable

jax = framework("jax")
framework("optax")

from mlrs.optax import AdvisedLR  # noqa: E402 # once JAX is known to be there
from tests.support.trainings import optax_training  # noqa: E402
from tests.support.trainings.optax_training import HORIZON, Training  # noqa: E402


def start(advisor: mlrs.Advisor, **options: Any) -> Training:
    """Return a training at its beginning."""
    return Training(AdvisedLR("optax", advisor=advisor, memory=False, horizon=HORIZON, **options))


def test_interrupted_equals_undisturbed(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A new schedule with the state of a checkpoint continues the run: rates and weights to the bit."""
    undisturbed = start(advisor)
    undisturbed.train(0, 30)
    first = start(advisor)
    first.train(0, 12)
    first.save(tmp_path / "state.npz")
    first.train(12, 17)  # and then it is lost
    second = start(advisor)
    assert second.learning_rate.run.id != first.learning_rate.run.id
    second.load(tmp_path / "state.npz")
    second.train(12, 30)
    assert second.learning_rate.run.id == first.learning_rate.run.id
    assert first.rates[:12] + second.rates == undisturbed.rates
    assert second.weights == undisturbed.weights
    assert advisor.get_run(first.learning_rate.run.id).next_step == 30


def test_processes_and_a_killed_daemon(tmp_path: Path) -> None:
    """Three processes and a daemon killed between them train as one process and one daemon do."""

    def train(address: str, checkpoint: str, first: int, last: int) -> tuple[list[str], str]:
        command = [sys.executable, optax_training.__file__, address, str(tmp_path / checkpoint)]
        ran = subprocess.run(
            [*command, str(first), str(last)], capture_output=True, text=True, check=False, timeout=100
        )
        assert ran.returncode == 0, ran.stderr
        rates, _, weights = ran.stdout.partition("|")
        return rates.split(), weights

    with Daemon(tmp_path / "one") as daemon:
        rates, weights = train(daemon.address, "one.npz", 0, HORIZON)
    with Daemon(tmp_path / "two") as daemon:
        first, _ = train(daemon.address, "two.npz", 0, 10)
        until_durable(daemon, 10)  # nobody is left to send the losses again
        daemon.kill()
        daemon.start()
        second, last = train(daemon.address, "two.npz", 10, HORIZON)
    assert first + second == rates
    assert last == weights


def test_back_in_the_same_process(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A training that puts an earlier state back has its run go back, and repeats itself to the bit."""
    training = start(advisor)
    training.train(0, 4)
    training.save(tmp_path / "state.npz")
    training.train(4, 9)
    training.load(tmp_path / "state.npz")
    training.train(4, 5)
    assert training.rates[9] == training.rates[4]
    training.load(tmp_path / "state.npz")
    training.train(20, 22)  # other batches
    training.load(tmp_path / "state.npz")
    training.train(4, 9)
    assert training.rates[-5:] == training.rates[4:9]


def test_a_state_saved_before_the_first_step(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A state that was saved before its run began begins a run of that id, which later ones continue."""
    saved = start(advisor)
    saved.save(tmp_path / "state.npz")
    training = start(advisor)
    training.load(tmp_path / "state.npz")
    training.train(0, 3)
    assert training.learning_rate.run.id == saved.learning_rate.run.id
    training.save(tmp_path / "later.npz")
    later = start(advisor)
    later.load(tmp_path / "later.npz")
    later.train(3, 5)
    assert advisor.get_run(saved.learning_rate.run.id).next_step == 5


def test_an_id_of_ones_own(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """With an id that the user has chosen, a checkpoint continues the run of that id."""
    first = start(advisor, id="optax/mine")
    first.train(0, 4)
    first.save(tmp_path / "state.npz")
    first.train(4, 6)
    second = start(advisor, id="optax/mine")
    second.load(tmp_path / "state.npz")
    second.train(4, 6)
    assert second.rates == first.rates[4:]
    assert advisor.get_run("optax/mine").next_step == 6


def test_a_run_that_is_gone(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A checkpoint of a run that the daemon does not have is an error that names the run."""
    training = start(advisor)
    training.train(0, 2)
    training.save(tmp_path / "state.npz")
    run_id = training.learning_rate.run.id
    training.learning_rate.run.detach()
    advisor.delete_run(run_id)
    later = start(advisor)
    later.load(tmp_path / "state.npz")
    with pytest.raises(jax.errors.JaxRuntimeError, match=run_id):
        later.train(2, 3)


def test_the_daemon_is_killed_in_the_middle(advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """A daemon that is killed and restarted within a training changes no learning rate."""
    undisturbed = start(advisor)
    undisturbed.train(0, 12)
    with Daemon(tmp_path / "data") as daemon, mlrs.connect(daemon.address, timeout_s=30.0) as other:
        training = start(other)
        training.train(0, 6)
        daemon.kill()
        daemon.start()
        training.train(6, 12)
    assert training.rates == undisturbed.rates


def test_without_a_daemon(tmp_path: Path) -> None:
    """Where no daemon answers, the training goes on with the usual learning rate of its optimizer."""
    nowhere = f"unix:{tmp_path}/nowhere.sock"
    with mlrs.connect(nowhere, timeout_s=0.2, unsent_dir=tmp_path) as advisor:
        training = start(advisor)
        training.train(0, 3)
        assert [float(rate) for rate in training.rates] == pytest.approx([1e-3] * 3)
