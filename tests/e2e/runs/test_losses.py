"""Losses that no training should have, over the wire: each has an outcome, and the run goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import mlrs
from tests.support.daemon import Daemon
from tests.support.reliability import save
from tests.support.runs import open_run

STRANGE = (
    float("nan"),
    float("inf"),
    float("-inf"),
    0.0,
    -1.0,
    5e-324,
    1e-308,
    1e308,
    -1e308,
)
POLICIES: dict[str, dict[str, Any]] = {
    "mlr-snet": {"model": "mlr-snet", "horizon": 200, "num_classes": 10},
    "paper": {"model": "paper", "horizon": 200, "num_classes": 10},
    "cosine": {"policy": "cosine", "base_lr": 0.1, "horizon": 200},
    "plateau": {"policy": "plateau", "base_lr": 0.1, "horizon": 200},
}
AT = 10
"""The step that has the strange loss, where it is not the first."""
MOST = 1e3
"""No learning rate is anywhere near this."""


@pytest.fixture(scope="module")
def advisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlrs.Advisor]:
    """A daemon with the models that come with mlrs."""
    with (
        Daemon(tmp_path_factory.mktemp("daemon") / "data") as daemon,
        mlrs.connect(daemon.address, timeout_s=20) as connected,
    ):
        yield connected


def outcome(advisor: mlrs.Advisor, policy: str, loss: float, at: int) -> mlrs.Advice:
    """Return the advice for a strange loss at a step; the run goes on for some steps after it."""
    run = open_run(advisor, f"{policy}/{loss!r}/{at}", **POLICIES[policy])
    advice = [
        run.observe(step, loss if step == at else 2.0 / (1 + 0.1 * step)).advice() for step in range(at + 10)
    ]
    assert all(math.isfinite(one.learning_rate) and 0 <= one.learning_rate < MOST for one in advice)
    normal = [one.reason for one in advice if one.step != at]
    assert normal == [mlrs.AdviceReason.FRESH] * (at + 9)
    if not math.isfinite(loss):
        before = advice[at - 1].learning_rate if at else 0.0
        assert (advice[at].reason, advice[at].learning_rate) == (mlrs.AdviceReason.HELD, before)
    else:
        assert advice[at].reason == mlrs.AdviceReason.FRESH
        assert advice[at].learning_rate > 0
    assert run.finish().next_step == at + 10
    return advice[at]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_loss_has_an_outcome(advisor: mlrs.Advisor, policy: str) -> None:
    """A loss that is not finite is held, any other gets a finite, positive LR; the run goes on."""
    for loss in STRANGE:
        for at in (0, AT):
            outcome(advisor, policy, loss, at)


@pytest.mark.slow
def test_the_table_of_outcomes(advisor: mlrs.Advisor) -> None:
    """The outcomes of every strange loss in the middle of a run, for the table in the docs."""
    began = time.monotonic()
    table = {}
    for loss in (1.0, *STRANGE):
        table[repr(loss)] = {}
        for policy in POLICIES:
            run_id = f"{policy}/{loss!r}/{AT}"
            with suppress(mlrs.errors.RunNotFoundError):
                advisor.delete_run(run_id)
            advice = outcome(advisor, policy, loss, AT)
            table[repr(loss)][policy] = [advice.reason.value, advice.learning_rate]
    command = "pytest -m slow tests/e2e/runs/test_losses.py"
    save("losses", command, began, time.monotonic(), losses=len(STRANGE), outcomes=table)
