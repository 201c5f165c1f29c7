"""A training by evolution in its folder: it learns, and same settings make same bytes."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result
from rich.console import Console

from mlrs_core.errors import InvalidFieldError
from mlrs_core.models.checkpoint import read_model
from mlrs_train.evolution import method, yardsticks
from mlrs_train.evolution.method import Evolution
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.method import LogRecord
from mlrs_train.session import TrainingSession, resume_session, start_session

FAST = (
    "--updates",
    "4",
    "--lessons-per-update",
    "1",
    "--population",
    "4",
    "--tasks-per-update",
    "2",
    "--max-horizon",
    "12",
    "--min-horizon",
    "8",
)
SMALL = EvolutionSettings(
    updates=5,
    lesson_updates=2,
    lessons_per_update=2,
    lesson_steps=2,
    population=4,
    tasks_per_update=2,
    min_horizon=8,
    max_horizon=12,
    hidden_size=4,
    log_every=2,
    validate_every=3,
    families=("teacher-mlp", "quadratic"),
)
Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "EACH", 1)


def finish(session: TrainingSession) -> bytes:
    """Run a session to its end; return its model's bytes."""
    outcome = session.run(Console(file=io.StringIO()), checkpoint_every=2)
    assert outcome.digest is not None
    return session.folder.model.read_bytes()


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """Two trainings with one seed give the same model and log; another seed gives another."""
    first, second = (start_session(tmp_path / name, SMALL) for name in "ab")
    assert finish(first) == finish(second)
    assert first.folder.log.read_bytes() == second.folder.log.read_bytes()
    other = EvolutionSettings(**{**SMALL.to_json(), "seed": 1})
    assert finish(start_session(tmp_path / "c", other)) != first.folder.model.read_bytes()


def test_resumed_training_is_the_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that is interrupted anywhere and resumed ends with the same bytes."""
    whole = start_session(tmp_path / "whole", SMALL)
    model = finish(whole)
    advance = Evolution.advance

    def interrupted(self: Evolution) -> LogRecord | None:
        record = advance(self)
        if self.steps_done in (1, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return record

    monkeypatch.setattr(Evolution, "advance", interrupted)
    session = start_session(tmp_path / "part", SMALL)
    for stop in (1, 3):
        session.run(Console(file=io.StringIO()), checkpoint_every=2)
        session = resume_session(tmp_path / "part", None, {})
        assert session.method.steps_done == stop
    assert finish(session) == model
    assert session.folder.log.read_bytes() == whole.folder.log.read_bytes()


def test_evolution_learns(tmp_path: Path) -> None:
    """On quadratics alone, a few updates leave the untrained network behind, on tasks held out."""
    settings = EvolutionSettings(
        updates=16,
        lesson_updates=0,
        population=16,
        tasks_per_update=2,
        families=("quadratic",),
        min_horizon=20,
        max_horizon=40,
        hidden_size=8,
        validate_every=16,
        meta_lr=0.04,
        final_meta_lr=0.0015,
        sigma=0.05,
    )
    session = start_session(tmp_path, settings)
    untrained = session.method.yardsticks.compare(session.method.search.average, session.method.engine)
    finish(session)
    trained = session.method.yardsticks.compare(session.method.search.average, session.method.engine)
    assert trained["held_out_alone_mean"] < untrained["held_out_alone_mean"] - 0.02


def test_lessons_come_first(tmp_path: Path) -> None:
    """Updates on lessons log what moves cost there, later ones how populations did; both learn."""
    session = start_session(tmp_path, EvolutionSettings(**{**SMALL.to_json(), "log_every": 1}))
    finish(session)
    records = [json.loads(line) for line in session.folder.log.read_text().splitlines()]
    assert ["lesson_cost" in record for record in records] == [True, True, False, False, False]
    assert ["to_search" in record for record in records] == [False, False, True, True, True]
    assert [record["meta_lr"] for record in records[:3]] == pytest.approx([0.004, 0.0021, 0.005], rel=0.2)


def test_lessons_are_a_share_of_the_updates() -> None:
    """Unless told otherwise a quarter of the updates are on lessons, at most 60; none where time decides."""
    taken = [EvolutionSettings(updates=updates).lesson_updates for updates in (3, 40, 10_000)]
    assert taken == [0, 10, 60]
    assert EvolutionSettings(minutes=5.0).lesson_updates == 0
    assert EvolutionSettings().lesson_updates == 60


def test_model_says_how_it_was_made(tmp_path: Path) -> None:
    """The model is of the average, of the second architecture, and names its command."""
    session = start_session(tmp_path, SMALL)
    finish(session)
    model, _ = read_model(session.folder.model)
    assert model.architecture == SMALL.architecture()
    flat = torch.cat([torch.from_numpy(weight).flatten() for weight in model.snapshots[0].values()])
    assert flat.numel() == session.method.search.average.numel() == model.parameters
    assert model.provenance["command"].startswith("mlrs train evolution --updates 5 ")
    assert model.provenance["updates"] == 5


@pytest.mark.parametrize(("minutes", "updates"), [(0.05, 6), (0.1, 12)])
def test_minutes_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, updates: int
) -> None:
    """Given a time, it makes as many updates as fit into it, and says so from the first on."""
    clock = itertools.count(step=0.5)  # it is read as an update begins and as it ends
    monkeypatch.setattr(method, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    fields = {
        "updates": None,
        "lesson_updates": 0,
        "minutes": minutes,
        "validate_every": 1000,
        "hidden_size": 1,
    }
    session = start_session(tmp_path, EvolutionSettings(**{**SMALL.to_json(), **fields}))
    advance, said = Evolution.advance, []

    def noting(self: Evolution) -> LogRecord | None:
        record = advance(self)
        said.append((self.steps_done, self.steps_total))
        return record

    monkeypatch.setattr(Evolution, "advance", noting)
    finish(session)
    assert said == [(done, updates) for done in range(1, updates + 1)]
    last = json.loads(session.folder.log.read_text().splitlines()[-1])
    assert last["step"] == updates
    assert "held_out_all_mean" in last


def test_command_trains(invoke: Invoke, tmp_path: Path) -> None:
    """`mlrs train` ends with a model of the method that made the default one."""
    result = invoke(*FAST, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert read_model(tmp_path / "run" / "model.safetensors")[0].architecture.kind == "tail"
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--population", "6"], "'--population': must be a multiple of 4, for pairs in 2 groups; is 6"),
        (["--families", "nope"], "'--families': 'nope' is unknown; known: teacher-mlp"),
        (["--epochs", "3"], "No such option"),
        (["--updates", "3", "--minutes", "1"], "'--minutes': and updates cannot both be given"),
        (["--updates", "3", "--lesson-updates", "4"], "'--lesson-updates': must be 0 to 3"),
        (["--max-horizon", "50"], "'--max-horizon': must be 100 to"),
        (["--objective", "best"], "'--objective'"),
        (["--averaging", "1"], "'--averaging': must be below 1"),
        (["--hidden-size", "0"], "'--hidden-size'"),
    ],
)
def test_wrong_options_are_named(invoke: Invoke, tmp_path: Path, arguments: list[str], expected: str) -> None:
    """A wrong value gives an error that names its option, and leaves no folder behind."""
    result = invoke("evolution", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert expected in " ".join(result.output.replace("│", "").split()).replace("Invalid value for ", "")
    assert not (tmp_path / "run").exists()


def test_objective_is_checked() -> None:
    """Settings refuse an objective that is unknown, without the command line as well."""
    with pytest.raises(InvalidFieldError, match="known: final, window, area"):
        EvolutionSettings(objective="best")
