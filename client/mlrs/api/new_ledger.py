"""Make the ledger of a new run or sweep from the options that users give, for threads and asyncio."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from mlrs.adapters import RunState
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.ledger.entries import Entry
from mlrs.ledger.fallback import fallback_of
from mlrs.ledger.ledger import Ledger, Wakeable
from mlrs.ledger.open_request import Explored, Start
from mlrs.transport.listener import Listener
from mlrs.values import arguments as check
from mlrs.values.checks import flag, one_of, wrong
from mlrs.values.names import LONGEST_TASK, new_run_id
from mlrs.values.notes import note as checked_note
from mlrs.values.notes import tags as checked_tags
from mlrs.values.options import RECORD_TIMEOUT_S, OnExisting, OnUnavailable
from mlrs.values.types import Optimizer, RunConfig
from mlrs.wire.calls import MAX_BATCH

MAX_NOTED = 2048
"""The most bytes of the tags and the note of a run of a sweep."""


def run_ledger(
    changed: Wakeable,
    default_timeout_s: float,
    task: object,
    *,
    memory: object = True,
    explore: object = "careful",
    rank: object = None,
    world_size: object = None,
    rank_reduction: object = None,
    straggler_timeout_s: object = None,
    quorum: object = None,
    id: object = None,  # noqa: A002 # what users call it
    on_existing: object = "error",
    resume_from: object = None,
    fallback: Any = "auto",
    on_unavailable: object = "auto",
    on_advice: Any = None,
    tags: object = None,
    note: object = None,
    timeout_s: object = None,
    **config: Any,
) -> Ledger[Entry]:
    """Return the ledger of a run, whose callers wait on `changed`. The options are those of `Advisor.run`.

    Opening it may take `default_timeout_s` seconds where `timeout_s` is not given.
    """
    asked, own_rank, size = check.config(**config), None, None
    if (shared := check.ranks(rank, world_size, rank_reduction, straggler_timeout_s, quorum)) is not None:
        ranks, own_rank, size = shared
        asked = dataclasses.replace(asked, ranks=ranks)
    name = _task(task)
    goes_on, step = _goes_on(on_existing, resume_from)
    _check_identity(id, goes_on, step, own_rank)
    start = Start(
        run_ids=(new_run_id(name) if id is None else check.run_id(id),),
        configs=[asked],
        task=name,
        timeout_s=default_timeout_s if timeout_s is None else check.timeout_s(timeout_s),
        long_timeout_s=RECORD_TIMEOUT_S if timeout_s is None else 0.0,
        is_named=id is not None,
        on_existing=goes_on,
        resume_from=step,
        is_ranked=own_rank is not None,
        world_size=size,
        explore=_explored(memory, explore),
        tags=checked_tags("tags", tags),
        note="" if note is None else checked_note(note),
    )
    ledger = Ledger(start, changed, Entry.of, fallback_of(fallback, [asked]), own_rank)
    choice: OnUnavailable = one_of("on_unavailable", on_unavailable, get_args(OnUnavailable))
    if choice == "fallback":
        _start_alone(ledger, asked)
    ledger.standby.may_start_alone = choice == "auto"
    if on_advice is not None:
        if not callable(on_advice):
            raise wrong("on_advice", "must be a function of an AdvisedStep", on_advice)
        ledger.listener = Listener(on_advice)
    return ledger


def sweep_ledger(
    changed: Wakeable,
    ids: Any,
    *,
    task: object = None,
    memory: object = None,
    explore: object = "careful",
    on_existing: object = "error",
    resume_from: object = None,
    fallback: Any = "last",
    tags: object = None,
    note: object = None,
    timeout_s: object = None,
    **config: Any,
) -> Ledger[Any]:
    """Return the ledger of a sweep with the options of `Advisor.sweep`. The rest is as for `run_ledger`."""
    row, _ = import_rows()
    name = "" if task is None else _task(task)
    run_ids, configs = check.sweep(ids, config)
    goes_on, step = _goes_on(on_existing, resume_from)
    noted, text = checked_tags("tags", tags), "" if note is None else checked_note(note)
    _check_small(noted, text)
    a_call_s = RECORD_TIMEOUT_S if timeout_s is None else check.timeout_s(timeout_s)
    start = Start(
        run_ids=run_ids,
        configs=configs,
        task=name,
        timeout_s=a_call_s * -(-len(run_ids) // MAX_BATCH),
        on_existing=goes_on,
        resume_from=step,
        explore=_explored(bool(name) if memory is None else memory, explore),
        tags=noted,
        note=text,
    )
    return Ledger(start, changed, row, fallback_of(fallback, configs))


def _check_small(tags: Mapping[str, str], note: str) -> None:
    """Check that what each run of a sweep is noted with fits into a message a thousand times."""
    size = sum(len(text.encode()) for pair in tags.items() for text in pair) + len(note.encode())
    if size > MAX_NOTED:
        raise wrong("note", f"and tags, for every run of a sweep, must have at most {MAX_NOTED} bytes", note)


def _task(task: object) -> str:
    """Return the checked name of a task."""
    name = check.run_id(task, "task")
    if len(name) > LONGEST_TASK:
        raise wrong("task", f"must have at most {LONGEST_TASK} characters", task)
    return name


def _explored(memory: object, explore: object) -> Explored | None:
    """Return what new runs take from the memory of their task; `None`: they take no part in it."""
    is_on = flag("memory", memory)
    if explore is False:
        return "none" if is_on else None
    if explore == "careful" or explore == "full":  # noqa: PLR1714 # mypy reads this one
        return explore if is_on else None
    raise wrong("explore", "must be 'careful', 'full', or False for the best known", explore)


def _goes_on(on_existing: object, resume_from: object) -> tuple[OnExisting, int | None]:
    """Return the checked values of `on_existing` and `resume_from`."""
    step = None if resume_from is None else check.step(resume_from, "resume_from")
    choice: OnExisting = one_of("on_existing", on_existing, get_args(OnExisting))
    if step is not None and choice == "restart":
        raise InvalidArgumentError(
            "resume_from goes back to a step of the run, and on_existing='restart' drops them all;"
            " leave one of them out",
            field="resume_from",
        )
    return choice, step


def _check_identity(id_: object, on_existing: OnExisting, resume_from: int | None, rank: int | None) -> None:
    """Check that the options fit a run with this id (`None`: a new run) and this rank."""
    if rank is not None and on_existing == "restart":
        raise InvalidArgumentError(
            "on_existing: a rank cannot restart the run for the others, which may have begun it already;"
            " delete the run before the job starts, or give the job a run of its own",
            field="on_existing",
        )
    if id_ is not None:
        return
    if rank is not None:
        raise InvalidArgumentError(
            "id: every rank must open the same run; give it an id that all of them know", field="id"
        )
    for field, value in (("on_existing", on_existing != "error"), ("resume_from", resume_from is not None)):
        if value:
            raise InvalidArgumentError(
                f"{field}: without id= the run is new, and there is nothing to continue; give the run's"
                " id as id=",
                field=field,
            )


def import_rows() -> tuple[Any, Any]:
    """Return the class of a sweep's entries and the function that reads its losses; both need NumPy."""
    try:
        from mlrs.ledger.sweep_entries import Row, losses_of
    except ModuleNotFoundError as error:
        raise UsageError(
            "sweeps work on NumPy arrays, and NumPy is not installed: pip install numpy"
        ) from error
    return Row, losses_of


def adopted(ledger: Ledger[Entry], changed: Wakeable, state: RunState) -> Ledger[Entry]:
    """Return a ledger like another, for a run that continues at a state; the same ledger if it is there.

    Args:
        ledger: the other.
        changed: what its callers wait on.
        state: the run's, of a checkpoint.
    """
    checked, at = check.run_id(state.run_id), check.step(state.step)
    is_same = checked == ledger.run_ids[0]
    is_new = at == 0 and ledger.first_step is None and not ledger.start.is_named
    is_there = ledger.is_open and (ledger.listener is None or not ledger.is_finished)
    if is_same and ledger.next_step == at and (is_there or is_new):
        return ledger
    goes_back = is_same and at <= ledger.next_step
    before = [entry.step for entry in ledger.unsent() if entry.step < at] if goes_back else []
    start = dataclasses.replace(
        ledger.start, run_ids=(checked,), is_named=True, on_existing="error", resume_from=min([at, *before])
    )
    fresh = Ledger(start, changed, ledger.entry, ledger.standby.fallback, ledger.rank)
    fresh.listener, fresh.told_step = ledger.listener, at - 1
    if ledger.listener is not None and ledger.is_finished:  # which closes the listener
        fresh.listener = ledger.listener.again()
    if ledger.standby.starts_alone or ledger.can_stand_in():
        fresh.standby.start_alone(ledger.standby.last_lr if state.last_lr is None else state.last_lr)
    if goes_back and not ledger.standby.is_lost:
        ledger.hand_over(fresh, at)
    return fresh


def read_off(ledger: Ledger[Entry], default_lr: float | None, **config: Any) -> RunConfig | None:
    """Enter what an adapter read from the training loop; return what an open run's config lacks of it.

    Args:
        ledger: the run's.
        default_lr: the learning rate to begin with where no daemon answers and the run is not open.
        config: fields of the run's config.
    """
    ledger.start.read_off = check.config(**config)
    if ledger.standby.may_start_alone:
        ledger.standby.start_alone(_moved(ledger.start.configs[0], default_lr))
    return ledger.start.lacking(ledger.config, ledger.next_step) if ledger.is_open else None


def _start_alone(ledger: Ledger[Entry], config: RunConfig) -> None:
    """Let the fallback answer from the first step on."""
    if ledger.standby.fallback is None:
        raise InvalidArgumentError(
            "on_unavailable: the run has no fallback to begin with; give one as fallback=, or leave"
            " on_unavailable='error'",
            field="on_unavailable",
        )
    base_lr = config.schedule.base_lr if config.schedule else None
    ledger.standby.start_alone(_moved(config, base_lr or _default_rate(config)))
    if not ledger.can_stand_in():
        raise InvalidArgumentError(
            "on_unavailable: the fallback has no learning rate to begin with; give initial_lr=, or the"
            " optimizer=, or a schedule as fallback=",
            field="on_unavailable",
        )


def _moved(config: RunConfig, default_lr: float | None) -> float | None:
    """Return the learning rate that a config begins with, by default another, with the config's offset."""
    rate = config.initial_lr or default_lr
    return None if rate is None else rate * config.factor


def _default_rate(config: RunConfig) -> float | None:
    """Return the learning rate that users of a config's optimizer usually start from, if it has one."""
    if config.optimizer is None:
        return None
    if config.optimizer in (Optimizer.MOMENTUM, Optimizer.NESTEROV):
        return 0.1 * (1.0 - (config.momentum or 0.0))
    return 0.1 if config.optimizer == Optimizer.SGD else 1e-3
