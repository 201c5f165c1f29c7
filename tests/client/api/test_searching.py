"""Searches for the learning rate to begin with: what the loop is asked for, and that it is left as it was."""

from __future__ import annotations

import asyncio
import io
import math
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs import SearchResult, UnavailableError
from mlrs.api import searching as _searching
from mlrs.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NoSearchError,
    RunFinishedError,
    RunNotFoundError,
)
from mlrs.types import FinishedTrial, FoundRate
from mlrs_proto import v1 as pb
from tests.client.conftest import done, until
from tests.client.fake_daemon import TRIAL_STEPS, TRIED, FakeDaemon, lr_sequence

BEGIN = 5.0
FOUND = 0.15
"""What the fake daemon finds for the loop below: half the rate of its second trial."""
RATES = {rate: [rate * (1.0 - update / TRIAL_STEPS) for update in range(TRIAL_STEPS)] for rate in TRIED}
"""The learning rates of each trial's updates, which fall in a straight line."""


class Loop:
    """Gradient descent on `1.5 * weight**2`, which the middle rate of the three trials suits best.

    Attributes:
        calls: what was asked of it, in order.
        rates: the learning rates of each trial that was begun.
        at: called before an update, with the trial and the update; what it returns, if anything, is the loss.
    """

    def __init__(self, at: Callable[[int, int], Any] | None = None) -> None:
        self.weight = BEGIN
        self.calls: list[str] = []
        self.rates: list[list[float]] = []
        self.at = at or (lambda _trial, _update: None)

    def save(self) -> None:
        """Keep the weight."""
        self.calls.append("save")
        self._saved = self.weight

    def restore(self) -> None:
        """Put it back."""
        self.calls.append("restore")
        self.weight = self._saved

    def step(self, update: int, learning_rate: float) -> Any:
        """Make an update."""
        if update == 0:
            assert self.weight == BEGIN
            self.calls.append("trial")
            self.rates.append([])
        assert update == len(self.rates[-1])
        self.rates[-1].append(learning_rate)
        told = self.at(len(self.rates) - 1, update)
        loss = 1.5 * self.weight**2
        self.weight -= learning_rate * 3.0 * self.weight
        return loss if told is None else told

    def evaluate(self) -> float:
        """Return the loss."""
        self.calls.append("evaluate")
        return 1.5 * self.weight**2


def check_left_alone(loop: Loop) -> None:
    """Check that a loop was saved once, restored before each trial and at the end, and is as it was."""
    assert loop.weight == BEGIN
    asked = [call for call in loop.calls if call != "evaluate"]
    assert asked == ["save", *["restore", "trial"] * len(loop.rates), "restore"]


def losses_of(trials: tuple[FinishedTrial, ...]) -> list[float]:
    """Return the losses of trials."""
    return [trial.loss for trial in trials]


async def run_of(advisor: Any, **config: Any) -> Any:
    """Return a run that a search is worth it for."""
    return await done(advisor.run("task", **{"id": "a", "horizon": 1000, **config}))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches give up a daemon that is away soon."""
    monkeypatch.setattr(_searching, "RETRY_S", 0.3)


@pytest.fixture
def later(daemon: FakeDaemon) -> Iterator[Callable[[], None]]:
    """Return what stops the daemon now, and starts it a little later."""
    timers: list[threading.Timer] = []

    def away() -> None:
        daemon.stop()
        timers.append(threading.Timer(0.3, daemon.start))
        timers[-1].start()

    yield away
    for timer in timers:
        timer.join()


# ------------------------------------------------------------------------------------ the trials


async def test_the_daemon_says_which_trials_to_make(either: Any, daemon: FakeDaemon) -> None:
    """Each trial has the rate and the steps that the daemon asked for, and its rates fall in a line to 0."""
    run, loop = await run_of(either), Loop()
    result = await done(run.search(loop))
    assert loop.rates == list(RATES.values())
    assert loop.calls == ["save", *["restore", "trial", "evaluate"] * 3, "restore"]
    assert loop.weight == BEGIN
    assert (result.learning_rate, result.octaves, result.steps) == (FOUND, 1.0, 15)
    assert [(trial.learning_rate, trial.steps) for trial in result.trials] == [(rate, 5) for rate in TRIED]
    (search,) = daemon.runs["a"].searches
    assert [one.loss for one in search.results] == losses_of(result.trials)
    after = BEGIN * math.prod(1.0 - 3.0 * rate for rate in RATES[TRIED[0]])
    assert result.trials[0].loss == pytest.approx(1.5 * after**2)


@pytest.mark.parametrize(
    ("told", "steps"),
    [(math.nan, 3), (math.inf, 3), (4.0001 * 37.5, 3), (3.9999 * 37.5, 5), (-math.inf, 3)],
)
async def test_a_trial_that_diverges_stops(either: Any, daemon: FakeDaemon, told: float, steps: int) -> None:
    """A loss that is not finite, or above four times the first, ends its trial: NaN after the steps made."""
    loop = Loop(lambda trial, update: told if (trial, update) == (1, 2) else None)
    result = await done((await run_of(either)).search(loop))
    assert [len(rates) for rates in loop.rates] == [5, steps, 5]
    (search,) = daemon.runs["a"].searches
    assert search.results[1].steps == steps
    assert math.isnan(search.results[1].loss) == (steps < 5)
    assert loop.calls.count("evaluate") == (2 if steps < 5 else 3)
    assert result.steps == 10 + steps
    assert result.learning_rate == (0.45 if steps < 5 else FOUND)
    check_left_alone(loop)


async def test_losses_below_zero(either: Any) -> None:
    """A loss that may be negative has diverged when it rises by three times the magnitude of the first."""
    losses = [[-2.0, 4.0, -2.0, 0.0, 0.0], [-2.0, 4.1, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    loop = Loop(lambda trial, update: losses[trial][update])
    await done((await run_of(either)).search(loop))
    assert [len(rates) for rates in loop.rates] == [5, 2, 5]


async def test_a_first_loss_that_is_no_number_ends_the_trial(either: Any, daemon: FakeDaemon) -> None:
    """A trial whose first loss is NaN makes one update; if all do, the daemon hears so of each."""
    loop = Loop(lambda _trial, _update: math.nan)
    result = await done((await run_of(either)).search(loop))
    assert [(one.steps, math.isnan(one.loss)) for one in result.trials] == [(1, True)] * 3
    assert len(daemon.runs["a"].searches[0].results) == 3


async def test_a_loss_after_the_trial_that_is_not_finite(either: Any) -> None:
    """Where only the loss after a trial is not finite, the trial made all of its steps."""
    loop = Loop()
    loop.evaluate = lambda: math.nan  # type: ignore[method-assign]
    result = await done((await run_of(either)).search(loop))
    assert [(one.steps, math.isnan(one.loss)) for one in result.trials] == [(5, True)] * 3


async def test_the_loss_at_the_start(either: Any, daemon: FakeDaemon) -> None:
    """A trial of no steps measures the loss at the start, and counts as no trial in what is printed."""
    daemon.trials.insert(0, (TRIED[0], 0))
    loop = Loop()
    result = await done((await run_of(either)).search(loop))
    assert loop.calls == ["save", "restore", "evaluate", *["restore", "trial", "evaluate"] * 3, "restore"]
    assert result.trials[0] == FinishedTrial(TRIED[0], 0, 1.5 * BEGIN**2)
    assert str(result) == "begins at a learning rate of 0.15, within 1.0 octaves; 3 trials, 15 steps"


@pytest.mark.parametrize("kind", [np.float32, np.array, lambda loss: np.array([loss])])
async def test_losses_of_frameworks(either: Any, kind: Callable[[float], Any]) -> None:
    """A loss may be whatever observations may be: a NumPy number, or an array of one."""
    loop = Loop(lambda trial, _update: kind(1.0 + trial))
    assert (await done((await run_of(either)).search(loop))).learning_rate == FOUND


# ----------------------------------------------------------------------- left as it was, whatever happens


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UnavailableError])
@pytest.mark.parametrize("where", [(0, 0), (1, 3)])
async def test_what_a_loop_raises_is_raised(
    either: Any, daemon: FakeDaemon, error: type[BaseException], where: tuple[int, int]
) -> None:
    """An error of the loop, Ctrl-C too, is raised after everything was put back; one of ours is no outage."""

    def at(trial: int, update: int) -> None:
        if (trial, update) == where:
            raise error("the loop's own")

    loop = Loop(at)
    run = await run_of(either)
    with pytest.raises(error, match="the loop's own"):
        await done(run.search(loop))
    check_left_alone(loop)
    assert len(loop.rates) == where[0] + 1
    assert len(daemon.runs["a"].searches[0].results) == where[0]
    assert await done(run.next_lr(0, 2.0)) == lr_sequence([2.0])[0]


async def test_a_save_that_fails(either: Any, daemon: FakeDaemon) -> None:
    """What was not saved is not put back, and no trial is made."""
    loop = Loop()
    loop.save = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        await done((await run_of(either)).search(loop))
    assert loop.calls == []
    assert daemon.asked == []


async def test_a_daemon_that_refuses(either: Any, daemon: FakeDaemon) -> None:
    """A refusal is raised, and everything is put back, with or without a fallback."""

    def at(trial: int, _update: int) -> None:
        if trial == 1:
            daemon.refuse_searches["a"] = pb.ERROR_REASON_RUN_FINISHED

    loop = Loop(at)
    run = await run_of(either, on_unavailable="fallback", optimizer="sgd")
    with pytest.raises(RunFinishedError, match="refused by the test double"):
        await done(run.search(loop))
    check_left_alone(loop)
    assert len(loop.rates) == 2


@pytest.mark.usefixtures("impatient")
async def test_a_daemon_that_is_gone(connect: Any, daemon: FakeDaemon) -> None:
    """Without a fallback a daemon that does not come back is an error, after everything was put back."""
    loop = Loop(lambda trial, update: daemon.stop() if (trial, update) == (1, 0) else None)
    advisor = connect(daemon.target, timeout_s=2.0)
    run = await run_of(advisor, fallback=None)
    with pytest.raises((UnavailableError, DeadlineExceededError)):
        await done(run.search(loop))
    check_left_alone(loop)
    await done(advisor.close())


def test_ctrl_c_while_the_daemon_decides(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """Ctrl-C while the client waits for an answer puts everything back, too."""

    def interrupt() -> None:
        asyncio.run(until(lambda: len(daemon.asked) == 3))
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None
    loop = Loop(lambda trial, _update: daemon.may_answer.clear() if trial == 1 else None)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        advisor.run("task", id="a", horizon=1000).search(loop)
    interrupting.join()
    daemon.may_answer.set()
    check_left_alone(loop)
    assert len(loop.rates) == 2


async def test_cancelling(daemon: FakeDaemon) -> None:
    """A task of asyncio that is cancelled during a search puts everything back."""
    loop = Loop(lambda trial, _update: daemon.may_answer.clear() if trial == 1 else None)
    async with mlrs.aio.connect(daemon.target, timeout_s=10.0) as advisor:
        run = await run_of(advisor)
        searching = asyncio.create_task(run.search(loop))
        await until(lambda: len(daemon.asked) == 3)
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        check_left_alone(loop)
        daemon.may_answer.set()
        assert await run.next_lr(0, 2.0) == lr_sequence([2.0])[0]


@pytest.mark.parametrize("returned", [None, "0.5", [1.0, 2.0], np.zeros(2), True])
@pytest.mark.parametrize("method", ["step", "evaluate"])
async def test_losses_that_are_none(either: Any, method: str, returned: Any) -> None:
    """A method of the loop that returns no number is named, after everything was put back."""
    loop = Loop()
    ours = getattr(loop, method)

    def wrong(*arguments: Any) -> Any:
        ours(*arguments)
        return returned

    setattr(loop, method, wrong)
    with pytest.raises(InvalidArgumentError, match=rf"loop\.{method} must return a loss") as caught:
        await done((await run_of(either)).search(loop))
    assert caught.value.field == "loop"
    check_left_alone(loop)


# ------------------------------------------------------------------------------------ no search


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"horizon": None}, "the run has no horizon"),
        ({"horizon": 199}, "the run has 199 steps, and a search pays from 200 on"),
        ({"initial_lr": 0.1}, "the run was given initial_lr="),
        ({"model": "fake"}, "the run was given model="),
        ({"policy": "cosine"}, "the run was given policy="),
    ],
)
async def test_where_a_search_would_not_pay(
    either: Any, daemon: FakeDaemon, config: dict[str, Any], why: str
) -> None:
    """No search is made, and the result says why and what makes one; `always=True` does."""
    run, loop = await run_of(either, **config), Loop()
    result = await done(run.search(loop))
    assert result == SearchResult(learning_rate=None, why_not=f"{why}; always=True makes one")
    assert (loop.calls, daemon.opened) == ([], 0)
    assert (await done(run.search(loop, always=True))).learning_rate == FOUND
    kept = {"model", "policy"} & config.keys()
    assert {request.keep_policy for request in daemon.asked} == {bool(kept)}


async def test_the_shortest_training_that_is_searched(either: Any) -> None:
    """A search pays from 200 steps on."""
    assert (await done((await run_of(either, horizon=200)).search(Loop()))).learning_rate == FOUND


async def test_a_run_that_has_begun(either: Any, daemon: FakeDaemon) -> None:
    """A run at a later step is not searched, even with `always=True`, whether a search was made before."""
    for run_id in "ab":
        run = await run_of(either, id=run_id)
        if run_id == "b":
            await done(run.search(Loop()))
        for step in range(3):
            await done(run.next_lr(step, 1.0))
    for run_id, why in [("a", ""), ("b", ", and began at a learning rate of 0.15, which a search found")]:
        loop = Loop()
        run = await run_of(either, id=run_id, on_existing="resume")
        for again in (run, await run_of(either, id=run_id, on_existing="resume")):
            result = await done(again.search(loop, always=True))
            assert result.why_not == f"the run is at step 3{why}"
            assert (result.learning_rate, loop.calls) == (None, [])
    assert daemon.runs["a"].searches == []


async def test_a_run_with_ranks(either: Any, daemon: FakeDaemon) -> None:
    """Ranks that report by themselves make no search: each would decide for itself."""
    run, loop = await run_of(either, rank=0, world_size=2, horizon=None), Loop()
    result = await done(run.search(loop, always=True))
    assert result.why_not == "the run has ranks, each of which would search by itself"
    assert (loop.calls, daemon.opened) == ([], 0)


async def test_no_daemon(connect: Any, daemon: FakeDaemon) -> None:
    """Where none answers, a run that may begin with its fallback is not searched; another one raises."""
    daemon.stop()
    advisor, loop = connect(daemon.target, timeout_s=0.3), Loop()
    run = await run_of(advisor, on_unavailable="fallback", optimizer="sgd")
    result = await done(run.search(loop))
    assert (result.learning_rate, result.why_not) == (None, "no daemon answers")
    assert await done(run.next_lr(0, 2.0)) == 0.1
    assert run.fallback_steps == 1
    for fallback in ("last", None):
        other = await run_of(advisor, id="b", fallback=fallback)
        with pytest.raises(UnavailableError):
            await done(other.search(loop))
    assert loop.calls == []
    daemon.start()
    await until(lambda: "a" in daemon.runs and daemon.runs["a"].losses == [2.0])
    await done(advisor.close())


async def test_the_deadline_of_opening(either: Any, daemon: FakeDaemon) -> None:
    """`timeout_s` limits how long opening the run may take, and no trial is made after it."""
    daemon.slow_s, loop = 1.0, Loop()
    with pytest.raises(DeadlineExceededError, match=r"0\.1 s"):
        await done((await run_of(either)).search(loop, timeout_s=0.1))
    assert loop.calls == []


# --------------------------------------------------------------------------------- a daemon that goes away


@pytest.mark.parametrize("event", ["away", "restart", "cut", "drain", "lost answer", "stale handles"])
async def test_a_daemon_that_comes_back(
    either: Any, daemon: FakeDaemon, later: Callable[[], None], event: str
) -> None:
    """Whatever happens to the daemon in the middle, the search is the same, and each result recorded once."""
    undisturbed = await done((await run_of(either, id="b")).search(Loop()))
    happens = {
        "away": later,
        "restart": daemon.restart,
        "cut": daemon.cut,
        "drain": daemon.drain,
        "lost answer": lambda: setattr(daemon, "lost_answers", 1),
        "stale handles": daemon.lose,
    }[event]
    loop = Loop(lambda trial, update: happens() if trial > 0 and update == 4 else None)
    run = await run_of(either)
    assert await done(run.search(loop)) == undisturbed
    check_left_alone(loop)
    assert len(loop.rates) == 3
    (search,) = daemon.runs["a"].searches
    assert [one.number for one in search.results] == [0, 1, 2]
    assert [one.loss for one in search.results] == losses_of(undisturbed.trials)
    assert await done(run.next_lr(0, 2.0)) == lr_sequence([2.0])[0]


async def test_a_replica_that_takes_the_run_over(connect: Any, daemon: FakeDaemon) -> None:
    """A search follows its run to another replica."""
    other = FakeDaemon(daemon.records)
    daemon.own("a")
    loop = Loop(lambda trial, update: other.own("a") if (trial, update) == (1, 0) else None)
    advisor = connect([daemon.target, other.target], timeout_s=10.0)
    run = await run_of(advisor)
    assert (await done(run.search(loop))).learning_rate == FOUND
    assert [one.number for one in daemon.runs["a"].searches[0].results] == [0, 1, 2]
    assert await done(run.next_lr(0, 2.0)) == lr_sequence([2.0])[0]
    await done(advisor.close())
    other.stop()


@pytest.mark.usefixtures("impatient")
async def test_a_daemon_that_stays_away(connect: Any, daemon: FakeDaemon) -> None:
    """With a fallback, a search whose daemon is gone says so, and the run goes on under its fallback."""
    loop = Loop(lambda trial, update: daemon.stop() if (trial, update) == (1, 0) else None)
    advisor = connect(daemon.target, timeout_s=0.5)
    run = await run_of(advisor, timeout_s=10.0)
    await done(run.describe(default_lr=0.07))
    result = await done(run.search(loop))
    assert result.learning_rate is None
    assert re.match(r"the daemon went away \(.+\)", result.why_not)
    check_left_alone(loop)
    assert await done(run.next_lr(0, 2.0)) == 0.07
    assert run.fallback_steps == 1
    daemon.start()
    await until(lambda: daemon.runs["a"].losses == [2.0])
    assert len(daemon.runs["a"].searches[0].results) == 1
    await done(advisor.close())


# --------------------------------------------------------------------------------------- afterwards


async def test_the_run_begins_at_what_was_found(either: Any, daemon: FakeDaemon) -> None:
    """The config holds what was found, and the first observation comes with the run's new handle."""
    run = await run_of(either)
    await done(run.open())
    stale = daemon.handle("a")
    await done(run.search(Loop(), charge_steps=True))
    assert daemon.handle("a") != stale
    assert run.config.found == FoundRate(learning_rate=FOUND, octaves=1.0, steps=15, charged=True)
    assert [await done(run.next_lr(step, 2.0)) for step in range(3)] == lr_sequence([2.0] * 3)
    assert daemon.entries == 3
    assert run.config.found is not None


async def test_the_fallback_begins_at_what_was_found(connect: Any, daemon: FakeDaemon) -> None:
    """If the daemon goes away right after the search, the fallback begins at the rate that was found.

    Also in a process that resumed the run after its search.
    """
    advisor = connect(daemon.target, timeout_s=0.5)
    run = await run_of(advisor, timeout_s=10.0)
    await done(run.describe(default_lr=0.07))
    await done(run.search(Loop()))
    assert run.state().last_lr == FOUND
    other = connect(daemon.target, timeout_s=0.5)
    resumed = await run_of(other, on_existing="resume", timeout_s=10.0)
    await done(resumed.open())
    daemon.stop()
    for one in (run, resumed):
        assert await done(one.next_lr(0, 2.0)) == FOUND
        assert one.fallback_steps == 1
        one.detach()
    await done(advisor.close())
    await done(other.close())


async def test_a_daemon_that_goes_away_at_the_end(
    connect: Any, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the run's new config cannot be read after the search, that is logged, and the result counts."""
    loop = Loop()
    ours = loop.restore

    def restore() -> None:
        ours()
        if len(loop.rates) == 3:  # at the end
            daemon.stop()

    loop.restore = restore  # type: ignore[method-assign]
    advisor = connect(daemon.target, timeout_s=0.5)
    run = await run_of(advisor, timeout_s=10.0)
    await done(run.describe(default_lr=0.07))
    assert (await done(run.search(loop))).learning_rate == FOUND
    await until(lambda: "its config after the search could not be read" in caplog.text)
    assert await done(run.next_lr(0, 2.0)) == FOUND
    daemon.start()
    await until(lambda: daemon.runs["a"].losses == [2.0])
    assert run.config.found is not None
    await done(advisor.close())


# ------------------------------------------------------------------------------------ named starts


@pytest.mark.parametrize("is_function", [True, False])
async def test_a_search_is_continued_by_its_name(
    either: Any, connect: Any, daemon: FakeDaemon, *, is_function: bool
) -> None:
    """After a crash, a search from the start of the same name makes only the trials that were not made."""
    names: list[str] = []

    def start() -> str:
        names.append("the-start")
        return names[-1]

    def crash(trial: int, _update: int) -> None:
        if trial == 2:
            raise KeyboardInterrupt

    given = start if is_function else "the-start"
    with pytest.raises(KeyboardInterrupt):
        await done((await run_of(either)).search(Loop(crash), start=given))
    other, loop = connect(daemon.target, timeout_s=10.0), Loop()
    run = await run_of(other, on_existing="resume")
    result = await done(run.search(loop, start=given))
    assert loop.rates == [RATES[TRIED[2]]]
    assert (result.learning_rate, len(result.trials)) == (FOUND, 3)
    assert len(daemon.runs["a"].searches) == 1
    again = await done(run.search(loop, start=given))
    assert again == result
    assert len(loop.rates) == 1
    assert len(names) == (3 if is_function else 0)
    await done(other.close())


async def test_a_name_is_asked_for_once_the_loop_was_saved(either: Any) -> None:
    """A function that names the start is called after `save`, before the first trial, and may raise."""
    loop = Loop()

    def start() -> str:
        assert loop.calls == ["save"]
        raise ValueError("no name")

    with pytest.raises(ValueError, match="no name"):
        await done((await run_of(either)).search(loop, start=start))
    check_left_alone(loop)


async def test_starts_without_a_name_are_new(either: Any, daemon: FakeDaemon) -> None:
    """Two searches without a name have different ones, so that the second begins anew."""
    run = await run_of(either)
    for _ in range(2):
        loop = Loop()
        await done(run.search(loop))
        assert len(loop.rates) == 3
    first, second = daemon.runs["a"].searches
    assert first.start != second.start
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", second.start)
    assert second.attempt == 2


async def test_reading_a_search(either: Any) -> None:
    """`get_search` gives the trials of a run, before the search has ended and after it, or raises."""
    with pytest.raises(RunNotFoundError):
        await done(either.get_search("a"))
    run = await run_of(either)
    await done(run.open())
    with pytest.raises(NoSearchError):
        await done(either.get_search("a"))
    with pytest.raises(KeyboardInterrupt):
        await done(run.search(Loop(lambda trial, _: stop() if trial == 1 else None), start="one"))
    search = await done(either.get_search("a"))
    assert (search.start, search.attempt, len(search.trials)) == ("one", 1, 1)
    assert (search.next.number, search.next.learning_rate, search.next.steps) == (1, TRIED[1], TRIAL_STEPS)
    result = await done(run.search(Loop(), start="one"))
    search = await done(either.get_search("a"))
    assert search.trials == result.trials
    assert search.next.learning_rate == FOUND


def stop() -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


# --------------------------------------------------------------------------------------- messages


async def test_one_line_is_printed(
    either: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A search prints its result in one line, and one that was not made why; with MLRS_QUIET=1 none does."""
    await done((await run_of(either)).search(Loop()))
    found = "begins at a learning rate of 0.15, within 1.0 octaves; 3 trials, 15 steps"
    assert capfd.readouterr().err == f"mlrs: run 'a' {found}\n"
    await done((await run_of(either, id="b", horizon=None)).search(Loop()))
    why = "no search: the run has no horizon; always=True makes one"
    assert capfd.readouterr().err == f"mlrs: run 'b' {why}\n"
    monkeypatch.setenv("MLRS_QUIET", "1")
    await done((await run_of(either, id="c")).search(Loop()))
    await done((await run_of(either, id="d", horizon=None)).search(Loop()))
    assert capfd.readouterr().err == ""


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


async def test_a_terminal_shows_the_progress(
    either: Any, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows how many trials were made, in one line that is gone at the end."""
    daemon.trials.insert(0, (TRIED[0], 0))  # the loss at the start, which is no trial
    run = await run_of(either)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Terminal())
        result = await done(run.search(Loop()))
        shown = sys.stderr.getvalue()
        patched.setattr(sys, "stderr", Terminal())
        patched.setenv("MLRS_QUIET", "1")
        await done(run.search(Loop()))
        assert sys.stderr.getvalue() == ""
    *lines, last = shown.split("\r\x1b[K")
    assert lines == ["", *(f"mlrs: run 'a' tries learning rates: {made} made" for made in (0, 0, 1, 2))]
    assert last == f"mlrs: run 'a' {result}\n"


def test_messages() -> None:
    """The text of a result is what was found and what that took, or why nothing was."""
    trials = (FinishedTrial(0.1, 5, 1.0), FinishedTrial(0.3, 5, 0.5))
    found = SearchResult(learning_rate=0.0123456, octaves=1.35, steps=10, trials=trials)
    assert str(found) == "begins at a learning rate of 0.0123, within 1.4 octaves; 2 trials, 10 steps"
    assert str(SearchResult(learning_rate=None, why_not="no daemon answers")) == (
        "no search: no daemon answers"
    )


def test_plot(tmp_path: Path) -> None:
    """A result draws the start, its trials, also those that diverged, and what was found, into a file."""
    trials = (
        FinishedTrial(0.1, 0, 2.0),
        FinishedTrial(0.3, 5, 0.5),
        FinishedTrial(0.1, 5, 1.0),
        FinishedTrial(0.9, 2, math.nan),
        FinishedTrial(2.7, 1, math.inf),
    )
    result = SearchResult(learning_rate=0.15, octaves=1.0, steps=13, trials=trials)
    figure = result.plot(tmp_path / "trials.png")
    assert (tmp_path / "trials.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (axes,) = figure.axes
    drawn = axes.get_lines()[0]
    assert list(drawn.get_xdata()) == [0.1, 0.3]
    assert list(drawn.get_ydata()) == [1.0, 0.5]
    labels = sorted(text.get_text() for text in axes.get_legend().get_texts())
    assert labels == ["at the start", "diverged", "found: 0.15", "trials"]
    SearchResult(learning_rate=None, why_not="no daemon answers").plot(tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()


# ------------------------------------------------------------------------------ the learning rate alone


def test_suggest(daemon: FakeDaemon, advisor: mlrs.Advisor) -> None:
    """`suggest` searches by an advisor or an address, for a horizon of any length, and leaves no run."""
    for given in (advisor, daemon.target):
        loop = Loop()
        found = mlrs.suggest(loop, horizon=100, optimizer="sgd", initial_lr=0.1, advisor=given)
        assert found.learning_rate == FOUND
        check_left_alone(loop)
        assert daemon.runs == {}


def test_suggest_that_fails(daemon: FakeDaemon, advisor: mlrs.Advisor) -> None:
    """What goes wrong is raised, everything is put back, and no run is left, either."""
    loop = Loop(lambda trial, _update: stop() if trial == 1 else None)
    with pytest.raises(KeyboardInterrupt):
        mlrs.suggest(loop, horizon=1000, advisor=advisor)
    check_left_alone(loop)
    assert daemon.runs == {}
    daemon.stop()
    loop = Loop()
    with (
        mlrs.connect(daemon.target, timeout_s=0.3) as hasty,
        pytest.raises((UnavailableError, DeadlineExceededError)),
    ):
        mlrs.suggest(loop, horizon=1000, advisor=hasty)
    assert loop.calls == []
