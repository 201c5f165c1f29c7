"""From what users say of a run, or of a sweep, to a ledger that is not open yet; for both flavours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from mlrs_client import _arguments as check
from mlrs_client._calls import MAX_BATCH
from mlrs_client._entries import Entry
from mlrs_client._exceptions import InvalidArgumentError
from mlrs_client._fallback import fallback_of
from mlrs_client._ledger import Ledger, Wakeable
from mlrs_client._start import Start, began, default_rate, start_of
from mlrs_client._types import RunConfig
from mlrs_client._values import wrong

OnUnavailable = Literal["auto", "error", "fallback"]
"""What a run does that cannot be opened as no daemon answers: raise, or begin with its fallback. `auto`:
raise, unless an adapter has the run."""
RECORD_TIMEOUT_S = 60.0
"""How long reading a record, or going back to a step of it, may take, in seconds."""


def run_ledger(
    changed: Wakeable,
    default_timeout_s: float,
    task: object,
    config: RunConfig,
    ranks: tuple[object, ...],
    *,
    id: object,  # noqa: A002 # what users call it
    on_existing: object,
    resume_from: object,
    fallback: Any,
    on_unavailable: object,
    timeout_s: object,
) -> Ledger[Entry]:
    """Return the ledger of a run.

    Args:
        changed: what its callers wait on.
        default_timeout_s: how long opening may take where nothing is said of that, in seconds.
        task: what is trained.
        config: the run's, checked.
        ranks: rank, world size, reduction, straggler timeout and quorum.
        id: the run's, if it is given.
        on_existing: what to do where that run exists.
        resume_from: the step to go back to.
        fallback: what answers without a daemon.
        on_unavailable: whether it does even before the run was opened.
        timeout_s: how long opening may take.

    Raises:
        InvalidArgumentError: an argument is wrong; the error names it.
    """
    rank = size = None
    if (checked := check.ranks(*ranks)) is not None:
        shared, rank, size = checked
        config = dataclasses.replace(config, ranks=shared)
    limit_s = None if timeout_s is None else check.timeout_s(timeout_s)
    start = start_of(
        task,
        id,
        on_existing,
        resume_from,
        config,
        timeout_s=default_timeout_s if limit_s is None else limit_s,
        rewind_timeout_s=RECORD_TIMEOUT_S if limit_s is None else 0.0,
        rank=rank,
        world_size=size,
    )
    ledger = Ledger(
        start, changed, Entry if rank is None else Entry.of_rank, fallback_of(fallback, [config]), rank
    )
    if _chosen(on_unavailable) == "fallback":
        _start_alone(ledger, config)
    ledger.may_start_alone = on_unavailable == "auto"
    return ledger


def sweep_ledger(
    changed: Wakeable,
    row: Callable[[int, Any], Any],
    ids: Any,
    config: dict[str, Any],
    *,
    on_existing: object,
    resume_from: object,
    fallback: Any,
    timeout_s: object,
) -> Ledger[Any]:
    """Return the ledger of a sweep; `row` makes what is kept of a step. The rest is as for `run_ledger`.

    Raises:
        InvalidArgumentError: an argument is wrong; the error names it.
    """
    run_ids, configs = check.sweep(ids, config)
    choice, step = began(on_existing, resume_from)
    a_call_s = RECORD_TIMEOUT_S if timeout_s is None else check.timeout_s(timeout_s)
    start = Start(
        run_ids=run_ids,
        configs=configs,
        task="",
        timeout_s=a_call_s * -(-len(run_ids) // MAX_BATCH),
        on_existing=choice,
        resume_from=step,
    )
    return Ledger(start, changed, row, fallback_of(fallback, configs))


def entries_of(
    import_rows: Callable[[], Any],
) -> Callable[[int], tuple[Callable[[int, Any], Any], Callable[[Sequence[float]], Any]]]:
    """Return what makes entries of so many runs, and of losses what is observed of them.

    `import_rows` imports what sweeps need.
    """

    def of(size: int) -> tuple[Callable[[int, Any], Any], Callable[[Sequence[float]], Any]]:
        if size == 1:
            return Entry, lambda losses: losses[0]
        rows = import_rows()
        return rows.Row, lambda losses: rows.losses_of(list(losses), size)

    return of


def adopted(
    ledger: Ledger[Entry], changed: Wakeable, run_id: object, step: object, last_lr: float | None
) -> Ledger[Entry]:
    """Return a ledger like another, of a run that goes on at a step; the same one if it is there already.

    Args:
        ledger: the other.
        changed: what its callers wait on.
        run_id: the run's id.
        step: the step to observe next.
        last_lr: what the fallback goes on with if the daemon is away, if it has nothing else.

    Raises:
        InvalidArgumentError: the id or the step is none.
    """
    checked, at = check.run_id(run_id), check.step(step)
    is_same = checked == ledger.run_ids[0]
    is_new = at == 0 and ledger.first_step is None and not ledger.start.is_named
    if is_same and ledger.next_step == at and (ledger.is_open or is_new):
        return ledger
    goes_back = is_same and at <= ledger.next_step
    before = [entry.step for entry in ledger.unsent() if entry.step < at] if goes_back else []
    start = dataclasses.replace(
        ledger.start, run_ids=(checked,), is_named=True, on_existing="error", resume_from=min([at, *before])
    )
    fresh = Ledger(start, changed, ledger.entry, ledger.fallback, ledger.rank)
    if ledger.starts_alone or ledger.can_stand_in():
        fresh.start_alone(ledger.last_lr if last_lr is None else last_lr)
    if goes_back and not ledger.is_lost:
        ledger.hand_over(fresh, at)
    return fresh


def read_off(ledger: Ledger[Entry], default_lr: float | None, **config: Any) -> RunConfig | None:
    """Enter what an adapter read off the training loop; return what an open run is still to be told of it.

    Args:
        ledger: the run's.
        default_lr: what the training loop goes on with where no daemon answers and the run is not open.
        config: fields of the run's config.

    Raises:
        InvalidArgumentError: one is wrong.
    """
    ledger.start.read_off = check.config(**config)
    if ledger.may_start_alone:
        ledger.start_alone(ledger.start.configs[0].initial_lr or default_lr)
    return ledger.start.lacking(ledger.config, ledger.next_step) if ledger.is_open else None


def _chosen(on_unavailable: object) -> OnUnavailable:
    for known in get_args(OnUnavailable):
        if on_unavailable == known:
            return known  # type: ignore[no-any-return] # get_args is untyped; these are the Literal's values
    raise wrong("on_unavailable", f"must be one of {', '.join(get_args(OnUnavailable))}", on_unavailable)


def _start_alone(ledger: Ledger[Entry], config: RunConfig) -> None:
    """Have the fallback answer from the first step on.

    Raises:
        InvalidArgumentError: there is none, or nothing that it could answer.
    """
    if ledger.fallback is None:
        raise InvalidArgumentError(
            "on_unavailable: the run has no fallback to begin with; give one as fallback=, or leave"
            " on_unavailable='error'",
            field="on_unavailable",
        )
    begins_with = config.initial_lr or (config.schedule.base_lr if config.schedule else None)
    ledger.start_alone(begins_with or default_rate(config))
    if not ledger.can_stand_in():
        raise InvalidArgumentError(
            "on_unavailable: the fallback has no learning rate to begin with; give initial_lr=, or the"
            " optimizer=, or a schedule as fallback=",
            field="on_unavailable",
        )
