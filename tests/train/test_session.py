"""A training in its folder: same settings, same bytes, whatever happens on the way."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlrs_core.models.checkpoint import read_model
from mlrs_train.errors import CheckpointError, NoTrainingError, SettingChangedError, TrainingExistsError
from mlrs_train.hypergradient.method import Hypergradient
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.method import LogRecord
from mlrs_train.session import TrainingOutcome, TrainingSession, resume_session, start_session

SMALL = HypergradientSettings(tasks=("blobs", "shallow"), epochs=6, hidden_size=6, t_val=3, log_every=4)
DIGITS = HypergradientSettings(tasks=("digits-cnn",), epochs=6, hidden_size=8, t_val=5, log_every=7)
"""For subprocesses, which know no toy tasks: 372 steps."""


def run(session: TrainingSession, *, checkpoint_every: int = 1000) -> TrainingOutcome:
    """Run a session without showing its progress."""
    return session.run(Console(file=io.StringIO()), checkpoint_every=checkpoint_every)


def finish(session: TrainingSession, *, checkpoint_every: int = 1000) -> bytes:
    """Run a session to its end; return its model's bytes."""
    outcome = run(session, checkpoint_every=checkpoint_every)
    assert outcome.digest is not None
    return session.folder.model.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed training on digits."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start_session(folder / "run", DIGITS))
    return folder / "run"


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Send this process SIGINT within each step whose number is put into the list."""
    at: list[int] = []
    advance = Hypergradient.advance

    def interrupted(self: Hypergradient) -> LogRecord | None:
        record = advance(self)
        if self.steps_done in at:
            os.kill(os.getpid(), signal.SIGINT)
        return record

    monkeypatch.setattr(Hypergradient, "advance", interrupted)
    return at


def test_same_settings_same_bytes(tmp_path: Path) -> None:
    """Two trainings with one seed give the same model and log, byte for byte."""
    first, second = (start_session(tmp_path / name, SMALL) for name in "ab")
    assert finish(first) == finish(second, checkpoint_every=7)
    assert first.folder.log.read_bytes() == second.folder.log.read_bytes()


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    """The seed reaches the network."""
    other = HypergradientSettings(**{**SMALL.to_json(), "seed": 1})
    assert finish(start_session(tmp_path / "a", SMALL)) != finish(start_session(tmp_path / "b", other))


def test_interrupted_training_goes_on_exactly(tmp_path: Path, interrupting: list[int]) -> None:
    """SIGINT saves where it was; resumed, however often, the training ends with the same bytes."""
    whole = start_session(tmp_path / "whole", SMALL)
    model = finish(whole)
    interrupting += [1, 37, 38, 101]
    session = start_session(tmp_path / "parts", SMALL)
    for step in list(interrupting):
        outcome = run(session)
        assert (outcome.steps_done, outcome.digest) == (step, None)
        assert session.folder.curves.exists()
        assert not session.folder.model.exists()
        session = resume_session(tmp_path / "parts", None, {})
    assert finish(session) == model
    assert session.folder.log.read_bytes() == whole.folder.log.read_bytes()


def test_killed_training_goes_on_exactly(tmp_path: Path, undisturbed: Path) -> None:
    """A process killed with SIGKILL at a random moment loses nothing but time."""
    out = tmp_path / "run"
    words = ["hypergradient", "--out", str(out), "--checkpoint-every", "3"]
    for name, value in DIGITS.to_json().items():
        words += [f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value)]
    command = [sys.executable, "-c", "from mlrs_cli.train import train; train()", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (out / "log.jsonl").exists() or not (out / "log.jsonl").stat().st_size:
        assert time.monotonic() < deadline, "the training did not start"
        assert process.poll() is None, "the training ended by itself"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))  # noqa: S311 - any moment will do
    process.kill()
    assert process.wait() == -signal.SIGKILL
    session = resume_session(out, None, {})
    assert 0 < session.method.steps_done < session.method.steps_total
    assert finish(session) == (undisturbed / "model.safetensors").read_bytes()
    assert session.folder.log.read_bytes() == (undisturbed / "log.jsonl").read_bytes()


def test_model_says_how_it_was_made(undisturbed: Path) -> None:
    """The model's provenance holds the command, every setting, the steps and the versions."""
    provenance = read_model(undisturbed / "model.safetensors")[0].provenance
    assert provenance["command"].startswith("mlrs train hypergradient --tasks digits-cnn --epochs 6")
    assert provenance["settings"] == DIGITS.to_json()
    assert provenance["steps"] == 372
    assert provenance["versions"].keys() == {"mlrs", "torch", "numpy", "scikit-learn", "python"}
    assert provenance["training_examples_sha256"].keys() == {"digits-cnn"}


def test_log_is_lines_of_json(undisturbed: Path) -> None:
    """The log has a line per interval and one for the last step; none holds a time."""
    lines = [json.loads(line) for line in (undisturbed / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(7, 372, 7), 372]
    assert lines[-1].keys() == {
        *("task", "step", "epoch", "train_loss", "validation_loss", "learning_rate", "meta_updates")
    }
    assert lines[-1]["epoch"] == 6


def test_events_are_the_log(tmp_path: Path, interrupting: list[int]) -> None:
    """TensorBoard reads the same values as the log holds, across a resumption."""
    interrupting.append(30)
    run(start_session(tmp_path, SMALL))
    finish(session := resume_session(tmp_path, None, {}))
    events = EventAccumulator(str(session.folder.events))
    events.Reload()
    lines = [json.loads(line) for line in session.folder.log.read_text().splitlines()]
    for task in SMALL.tasks:
        logged = [line["learning_rate"] for line in lines if line["task"] == task]
        assert [e.value for e in events.Scalars(f"{task}/learning_rate")] == pytest.approx(logged)


def test_curves_are_a_png(undisturbed: Path) -> None:
    """The picture is a PNG of a size that a page can hold."""
    data = (undisturbed / "curves.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(data[16:20], "big") >= 800
    assert len(data) < 150_000


def test_finished_training_resumes_to_itself(tmp_path: Path) -> None:
    """Resuming a finished training makes the same model again."""
    model = finish(start_session(tmp_path, SMALL))
    assert finish(resume_session(tmp_path, "hypergradient", {})) == model


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_cut_off_checkpoint_is_refused(tmp_path: Path, keep: float) -> None:
    """A checkpoint that is cut off anywhere gives an error that names it and says what to do."""
    finish(session := start_session(tmp_path, SMALL))
    path = session.folder.checkpoint
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is damaged.*another folder"):
        resume_session(tmp_path, None, {})


def test_cut_off_log_is_refused(tmp_path: Path) -> None:
    """A log shorter than its checkpoint says cannot be gone on with."""
    finish(session := start_session(tmp_path, SMALL))
    session.folder.log.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"log\.jsonl is shorter"):
        run(resume_session(tmp_path, None, {}))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    """A resumed training refuses another value of a setting, and takes the same one."""
    finish(start_session(tmp_path, SMALL))
    resume_session(tmp_path, None, {"epochs": 6, "tasks": ["blobs", "shallow"]})
    with pytest.raises(SettingChangedError, match="started with 6, not 7") as caught:
        resume_session(tmp_path, None, {"epochs": 7})
    assert caught.value.setting == "epochs"


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A new training never overwrites another; a resumed one needs one."""
    with pytest.raises(NoTrainingError, match="no training to resume"):
        resume_session(tmp_path, None, {})
    finish(start_session(tmp_path, SMALL))
    with pytest.raises(TrainingExistsError, match="holds a training already"):
        start_session(tmp_path, SMALL)
