"""A search for the learning rate to begin a run with, written once for threads and asyncio."""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Callable
from typing import Any

from mlrs.adapters import TrialLoop
from mlrs.api.actions import C, asked
from mlrs.errors import InvalidArgumentError
from mlrs.ledger.ledger import Ledger
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.joining import completed
from mlrs.protocol.routing import Call
from mlrs.protocol.session import PASSING, announce, is_loud
from mlrs.protocol.waiting import Action, Perform, opened, paused
from mlrs.values.checks import number
from mlrs.values.search_types import FinishedTrial, FoundRate, Search, SearchResult, Trial
from mlrs.values.types import RunConfig
from mlrs.wire.search_calls import search_trial

Report = Callable[..., Action[Search]]
"""Reports a trial's result, if there is one, and returns the search as it stands."""
LEAST_HORIZON = 200
"""The horizon from which on a search is worth its steps."""
RETRY_S = 20.0
"""How long a search waits for a daemon that went away, in seconds."""
RANKED = "the run has ranks, each of which would search by itself"
"""Why runs whose ranks report by themselves make no search."""
DECIDED = "the memory of the task has decided the learning rate"
"""Why runs whose learning rate and schedule the memory of their task decided make no search."""
BLOWN_UP = 3.0
"""A trial has diverged when its loss rises above its first by so many times the first's magnitude."""


class _DaemonLostError(Exception):
    """The daemon went away for good, and the run has a fallback."""


def searched(
    connection: C,
    ledger: Ledger[Any],
    loop: TrialLoop,
    start: str | Callable[[], str] | None,
    timeout_s: float | None,
    *,
    always: bool,
    charge_steps: bool,
) -> Action[SearchResult]:
    """Search, if that is worth it, and leave the training loop as it was; `Run.search` has the arguments."""
    config = ledger.start.configs[0]
    if ledger.rank is not None:
        return _told(ledger, SearchResult(learning_rate=None, why_not=RANKED))
    if not always and (reason := _why_not(config)):
        return _told(ledger, SearchResult(learning_rate=None, why_not=f"{reason}; always=True makes one"))
    yield opened(connection.session, ledger, connection.deadline_of(ledger, timeout_s))
    if reason := _why_not_now(ledger):
        return _told(ledger, SearchResult(learning_rate=None, why_not=reason))
    if not always and (cause := _why_decided(ledger.config)):
        # The cause itself is printed when the run is opened.
        connection.announce(f"mlrs: {ledger.label} no search: {DECIDED}")
        return SearchResult(learning_rate=None, why_not=f"{DECIDED}: {cause}")
    keep_policy = config.model is not None or config.schedule is not None

    def report(own: str, result: FinishedTrial | None = None, trial: int = 0) -> Action[Search]:
        call = search_trial(
            ledger.run_ids[0], own, result, trial, keep_policy=keep_policy, charge=charge_steps
        )
        try:
            return (yield from _insisted(connection, ledger, call))
        except PASSING as error:
            if ledger.standby.fallback is None:
                raise
            raise _DaemonLostError(str(error)) from error

    try:
        search = yield from _made(loop, ledger, start, report)
    except _DaemonLostError as lost:
        return _told(ledger, SearchResult(learning_rate=None, why_not=f"the daemon went away ({lost})"))
    found = search.next
    assert isinstance(found, FoundRate)  # noqa: S101  # as `_made` returns it
    yield from _begun_at(connection, ledger, found)
    result = SearchResult(
        learning_rate=found.learning_rate, octaves=found.octaves, steps=found.steps, trials=search.trials
    )
    return _told(ledger, result)


def _why_not(config: RunConfig) -> str:
    """Return why a search is not worth it, or not wanted; "" if it is."""
    if config.horizon is None:
        return "the run has no horizon"
    if config.horizon < LEAST_HORIZON:
        return f"the run has {config.horizon} steps, and a search pays from {LEAST_HORIZON} on"
    for name in ("initial_lr", "model", "schedule"):
        if getattr(config, name) is not None:
            return f"the run was given {'policy' if name == 'schedule' else name}="
    return ""


def _why_not_now(ledger: Ledger[Any]) -> str:
    """Return why a run that was opened, or could not be, can make no search; "" if it can."""
    if not ledger.is_open:
        return "no daemon answers"
    return _begun(ledger) if ledger.next_step > 0 else ""


def _why_decided(config: RunConfig) -> str:
    """Return why the memory of its task decided a run's learning rate and schedule; "" if it did not."""
    recalled = config.recalled
    if recalled is None or not recalled.decided or config.schedule is None:
        return ""  # also where an offset of a model's learning rates was decided
    return recalled.why


def _begun(ledger: Ledger[Any]) -> str:
    """Return why a run that has observations makes no search."""
    why = f"the run is at step {ledger.next_step}"
    if (found := ledger.config.found) is not None:
        why += f", and began at a learning rate of {found.learning_rate:.3g}, which a search found"
    return why


def _insisted(connection: C, ledger: Ledger[Any], call: Call[Search]) -> Action[Search]:
    """Make a call until a daemon answers it, or for `RETRY_S` seconds."""
    deadline, home = Deadline(RETRY_S), connection.session.home_of(ledger)
    while True:
        try:
            return (yield from asked(connection, call, connection.timeout_s, home))
        except PASSING as error:
            yield paused(ledger, deadline, error)


def _made(
    loop: TrialLoop, ledger: Ledger[Any], start: str | Callable[[], str] | None, report: Report
) -> Action[Search]:
    """Make trials until the daemon has found a learning rate; leave the training loop as it was."""
    loop.save()
    try:
        own = start() if callable(start) else start or secrets.token_hex(16)
        search = yield from report(own)
        while isinstance(trial := search.next, Trial):
            _show(ledger, search)
            result = tried(loop, trial)
            search = yield from report(own, result, trial.number)
    finally:
        _show(ledger, None)
        loop.restore()
    return search


def tried(loop: TrialLoop, trial: Trial) -> FinishedTrial:
    """Make a trial from the saved start, and return what it came to."""
    loop.restore()
    first = None
    for update in range(trial.steps):
        loss = _number("step", loop.step(update, trial.rate(update)))
        first = loss if first is None else first
        if not (math.isfinite(loss) and loss <= first + BLOWN_UP * abs(first)):
            return FinishedTrial(trial.learning_rate, update + 1, math.nan)
    return FinishedTrial(trial.learning_rate, trial.steps, _number("evaluate", loop.evaluate()))


def _number(method: str, value: Any) -> float:
    """Return the loss that a method of the caller's loop returned."""
    try:
        return number(method, value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"loop.{method} must return a loss, one number; returned {value!r:.100}", field="loop"
        ) from error


def _begun_at(connection: C, ledger: Ledger[Any], found: FoundRate) -> Action[None]:
    """Have the client follow the run to what was found: its config, its handle, its fallback."""

    def follow() -> None:
        connection.session.leave_stream(ledger)
        if ledger.standby.fallback is not None and ledger.standby.last_step < 0:
            ledger.standby.last_lr = found.learning_rate

    connection.locked(follow)
    try:
        yield Perform(completed(connection.session, ledger, RunConfig()), connection.timeout_s)
    except PASSING as error:  # the next observation joins the run again
        connection.say(f"{ledger.label}: its config after the search could not be read: {error}")


def _told(ledger: Ledger[Any], result: SearchResult) -> SearchResult:
    """Print the result in one line."""
    announce(f"mlrs: {ledger.label} {result}")
    return result


def _show(ledger: Ledger[Any], search: Search | None) -> None:
    """Show the search's progress on a terminal; `None`: remove it."""
    if not is_loud() or not sys.stderr.isatty():
        return
    made = 0 if search is None else sum(one.steps > 0 for one in search.trials)
    text = "" if search is None else f"mlrs: {ledger.label} tries learning rates: {made} made"
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
