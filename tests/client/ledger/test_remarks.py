"""What users are warned of, once each: losses that are not finite, and steps past the horizon."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon

NAN = math.nan


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Callable[[], Any]:
    """Close an advisor and return what the client warned of."""

    async def close(advisor: Any) -> list[str]:
        await done(advisor.close())  # everything is logged by then
        return [record.getMessage() for record in caplog.records if record.name == "mlrs"]

    return close


async def steps(run: Any, losses: list[float]) -> list[float]:
    """Observe losses one by one, from step 0 on; return the learning rates."""
    return [await done(run.next_lr(step, loss)) for step, loss in enumerate(losses)]


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
async def test_the_first_loss_that_is_not_finite(either: Any, warnings_of: Any, bad: float) -> None:
    """The first loss that is NaN or infinite brings one warning, which says that the last rate is held."""
    run = await done(either.run("a", id="a"))
    lrs = await steps(run, [2.0, bad, 1.5, bad, bad])
    (warning,) = await warnings_of(either)
    assert lrs[1] == lrs[0]
    assert f"run 'a': the loss of step 1 is {bad}" in warning
    assert "held" in warning


@pytest.mark.parametrize(("settings", "lr"), [({}, "0"), ({"min_lr": 0.25}, "0.25")])
async def test_nan_from_the_first_step(
    either: Any, warnings_of: Any, settings: dict[str, Any], lr: str
) -> None:
    """NaN from the first step on brings one warning, which names the advised learning rate."""
    run = await done(either.run("a", id="a", **settings))
    await steps(run, [NAN, NAN, NAN])
    (warning,) = await warnings_of(either)
    assert "run 'a': the loss of its first step is nan" in warning
    assert f"the learning rate is {lr} until a loss is finite" in warning


async def test_past_the_horizon(either: Any, warnings_of: Any) -> None:
    """The first step past the horizon brings one warning; the horizon's own steps bring none."""
    run = await done(either.run("a", id="a", horizon=3))
    await steps(run, [2.0, 1.9, 1.8])
    assert run._ledger.remarks.news == []
    await steps(run, [2.0, 1.9, 1.8, 1.7, 1.6])
    (warning,) = await warnings_of(either)
    assert "run 'a': step 3 is past the horizon of 3 steps" in warning


async def test_the_horizon_that_the_daemon_knows(either: Any, warnings_of: Any) -> None:
    """A resumed run warns at the horizon that it was begun with."""
    run = await done(either.run("a", id="a", horizon=2))
    await steps(run, [2.0, 1.9])
    again = await done(either.run("a", id="a", on_existing="resume"))
    await done(again.open())
    await done(again.next_lr(2, 1.8))
    (warning,) = await warnings_of(either)
    assert "step 2 is past the horizon of 2 steps" in warning


async def test_a_loop_that_does_not_wait(either: Any, warnings_of: Any) -> None:
    """`observe` alone brings both warnings, each once."""
    run = await done(either.run("a", id="a", horizon=2))
    pending = [run.observe(step, loss) for step, loss in enumerate([2.0, NAN, NAN, 1.0])]
    for each in pending:
        await done(each.lr())
    first, second = await warnings_of(either)
    assert "step 1 is nan" in first
    assert "step 2 is past the horizon" in second


async def test_a_sweep(either: Any, warnings_of: Any) -> None:
    """A sweep warns once of losses that are not finite, and once of the first horizon that is passed."""
    sweep = await done(either.sweep(["a", "b", "c"], horizon=[5, 2, 4]))
    for step, losses in enumerate([[1, 1, 1], [1, NAN, math.inf], [1, 1, NAN], [NAN, 1, 1], [1, 1, 1]]):
        await done(sweep.next_lrs(step, losses))
    first, second = await warnings_of(either)
    assert "2 of the 3 losses of step 1 are not finite, the first of run 'b'" in first
    assert "step 2 is past the horizon of 2 steps" in second


async def test_runs_are_independent(either: Any, warnings_of: Any) -> None:
    """Each run has its warning."""
    for name in ("a", "b"):
        await steps(await done(either.run(name, id=name)), [1.0, NAN, NAN])
    warnings = await warnings_of(either)
    assert ["'a'" in warnings[0], "'b'" in warnings[1], len(warnings)] == [True, True, 2]


async def test_while_the_daemon_is_away(connect: Any, daemon: FakeDaemon, warnings_of: Any) -> None:
    """A loss that is not finite brings its warning at once, also while no daemon answers."""
    advisor = connect(daemon.target, timeout_s=0.3)
    run = await done(advisor.run("a", id="a", timeout_s=20.0, initial_lr=0.1))
    await done(run.next_lr(0, 1.0, timeout_s=20.0))
    daemon.may_answer.clear()
    await done(run.next_lr(1, NAN))
    await asyncio.sleep(0)
    daemon.may_answer.set()
    assert sum("the loss of step 1 is nan" in warning for warning in await warnings_of(advisor)) == 1
