"""The adapter of `docs/guides/adapters.md`, which uses public names only, does what an adapter is to do."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

import mlrs
from mlrs.adapters import RunState, TrialBatches
from mlrs.errors import InvalidArgumentError
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.docs.blocks import ROOT, blocks_of

PAGE = ROOT / "docs" / "guides" / "adapters.md"
SOURCE = next(block.text for block in blocks_of(PAGE) if "class " in block.text)
STEPS = 6


def page() -> dict[str, Any]:
    """Return what the page's script defines; its last lines, which train, are left out."""
    tree = ast.parse(SOURCE)
    tree.body = [part for part in tree.body if not isinstance(part, ast.With)]
    names: dict[str, Any] = {}
    exec(compile(tree, "docs/guides/adapters.md", "exec"), names)  # noqa: S102 # the page's code is what is tested
    return names


class Training:
    """A training under the page's adapter, which can be stopped after some steps.

    Attributes:
        losses: of its steps.
        rates: the learning rates of its updates.
        trainer: the framework's object.
    """

    def __init__(self, run: mlrs.Run, *, lagged: bool = False, weight: float = 5.0) -> None:
        names = page()
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.adapter = names["AdvisedRate"](run, lagged=lagged)
        self.trainer = names["Trainer"](self, steps=STEPS)
        self.trainer.weight = weight
        self.after: Callable[[], None] = lambda: None  # called after the loss of each step was observed

    def fit(self, steps: int = STEPS) -> None:
        """Train up to a step."""
        self.trainer.steps = steps
        self.trainer.fit()

    def on_begin(self, trainer: Any) -> None:
        """Have the adapter begin."""
        self.adapter.on_begin(trainer)
        trainer.step = self.adapter.step

    def after_loss(self, trainer: Any, loss: float) -> None:
        """Have the adapter observe."""
        self.losses.append(loss)
        self.adapter.after_loss(trainer, loss)
        self.after()

    def before_update(self, trainer: Any) -> None:
        """Have the adapter set the learning rate."""
        self.adapter.before_update(trainer)
        self.rates.append(trainer.learning_rate)

    def on_end(self, trainer: Any) -> None:
        """Have the adapter finish the run, if the training is complete."""
        if trainer.step == STEPS:
            self.adapter.on_end(trainer)


def test_only_public_names() -> None:
    """The page's adapter imports public modules, and uses no attribute that begins with an underscore."""
    tree = list(ast.walk(ast.parse(SOURCE)))
    modules = {node.module for node in tree if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in tree if isinstance(node, ast.Import) for name in node.names}
    assert modules == {"dataclasses", "mlrs", "mlrs.adapters"}
    private = [node.attr for node in tree if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
    assert private == []


def test_the_first_observation_opens_the_run(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Until the first loss is known no run is opened; then each update uses the advice for its loss."""
    run = advisor.run("task")
    training = Training(run)
    training.fit(steps=0)
    assert (daemon.runs, run.is_open) == ({}, False)
    training.fit()
    assert training.rates == lr_sequence(training.losses)
    recorded = daemon.runs[run.id]
    assert (recorded.losses, recorded.finished) == (training.losses, True)
    assert run.config.optimizer == "sgd"


def test_lagged(advisor: mlrs.Advisor) -> None:
    """An adapter that never waits uses the advice of the step before; the first step waits for its own."""
    run = advisor.run("task")
    training = Training(run, lagged=True)
    training.fit(1)
    for step in range(1, STEPS):
        deadline = time.monotonic() + 10.0
        while run.newest_lr(before=step) != lr_sequence(training.losses)[step - 1]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        training.fit(step + 1)
    rates = lr_sequence(training.losses)
    assert training.rates == [rates[0], *rates[:-1]]


def test_lagged_while_the_daemon_is_silent(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """While no answer comes, a lagged adapter continues with the newest one, without waiting."""
    training = Training(advisor.run("task"), lagged=True)
    training.fit(1)
    daemon.may_answer.clear()
    training.fit(STEPS - 1)
    assert training.rates == lr_sequence(training.losses)[:1] * (STEPS - 1)
    daemon.may_answer.set()
    training.fit()
    assert next(iter(daemon.runs.values())).losses == training.losses


def test_checkpoints(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Training that continues from a checkpoint has the learning rates of training that never stopped."""
    whole = Training(advisor.run("whole"))
    whole.fit()
    first = Training(advisor.run("parts"))
    first.fit(2)
    saved, weight = json.dumps(first.adapter.state()), first.trainer.weight
    first.fit(4)  # is lost: the job died after its checkpoint
    second = Training(advisor.run("parts"), weight=weight)
    second.adapter.load_state(json.loads(saved))
    second.fit()
    assert first.rates[:2] + second.rates == whole.rates
    assert [run.losses for run in daemon.runs.values()] == [whole.losses, whole.losses]


def test_fallback(daemon: FakeDaemon) -> None:
    """Where no daemon answers, training begins with its own rate, and the daemon gets the losses later."""
    daemon.stop()
    with mlrs.connect(daemon.target, timeout_s=0.2) as advisor:
        run = advisor.run("task")
        training = Training(run)
        training.fit(3)
        assert training.rates == [0.1, 0.1, 0.1]
        assert run.fallback_steps == 3
        daemon.start()
        training.fit(STEPS - 1)
        run.finish(timeout_s=30.0)
        assert daemon.runs[run.id].losses == training.losses


@pytest.mark.parametrize(
    ("saved", "field"),
    [
        (None, "state"),
        ({"run_id": "a", "step": 1}, "state"),
        ({"run_id": "", "step": 1, "last_lr": None}, "run_id"),
        ({"run_id": "a", "step": -1, "last_lr": None}, "step"),
        ({"run_id": "a", "step": 1, "last_lr": "fast"}, "last_lr"),
    ],
)
def test_states_that_are_wrong(saved: Any, field: str) -> None:
    """A dict that is no run's state is refused, and the error names what is wrong."""
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        RunState.from_dict(saved)
    assert caught.value.field == field


def test_states_hold_keys_of_adapters() -> None:
    """An adapter may keep values of its own beside a run's state."""
    saved = {"run_id": "a", "step": 3, "last_lr": 0.5, "base_lrs": [0.1]}
    assert RunState.from_dict(saved) == RunState("a", 3, 0.5)


async def test_states_of_both_clients(either: Any, daemon: FakeDaemon) -> None:
    """A new run is at step 0 without a call; one whose step only the daemon knows is opened for it."""
    run = either.run("task", id="a")
    run = await run if hasattr(run, "__await__") else run
    assert run.state() == RunState("a", 0, None)
    assert daemon.runs == {}
    lr = run.next_lr(0, 2.0)
    lr = await lr if hasattr(lr, "__await__") else lr
    assert run.state() == RunState("a", 1, lr)


def test_batches_of_trials() -> None:
    """Trials share the first batches, each read once; where there are too few, updates begin again."""
    read: list[int] = []
    batches = TrialBatches(read.append(one) or one for one in range(7))
    assert read == []
    assert batches.judged() == [0, 1, 2, 3]
    assert [batches.update(index) for index in range(5)] == [4, 5, 6, 4, 5]
    assert batches.judged() == [0, 1, 2, 3]
    assert read == [*range(7)]
    with pytest.raises(InvalidArgumentError, match="at least 5 batches; there are 4"):
        TrialBatches(range(4)).update(0)
