"""Checks of what users hand in. Each raises `InvalidArgumentError` that names the argument."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

from mlrs_client._meta_arguments import meta as checked_meta
from mlrs_client._types import (
    Optimizer,
    RankReduction,
    Ranks,
    RunConfig,
    RunStatus,
    Schedule,
    ScheduleKind,
)
from mlrs_client._values import MAX_COUNT
from mlrs_client._values import number as _number
from mlrs_client._values import real as _real
from mlrs_client._values import string as _string
from mlrs_client._values import whole as _whole
from mlrs_client._values import wrong as _wrong

MAX_HORIZON = 2**53
"""The largest horizon and step: the last integer that a double counts up to without gaps."""
MAX_TIMEOUT_S = 3e7
"""The deadlines that are taken are below this."""
MAX_SWEEP = 65_536
"""The most runs of a sweep: the entries that fit into a message."""
MAX_WORLD_SIZE = 65_536
"""The most ranks of a run."""
MAX_MILESTONES = 64
"""The most milestones."""
_WHOLE_PARAMETERS = {
    "warmup": (0, MAX_HORIZON),
    "period": (1, MAX_HORIZON),
    "period_mult": (1, 100),
    "patience": (0, 2**23),
    "cooldown": (0, 2**23),
    "smoothing": (1, MAX_HORIZON),
}
"""The whole numbers of a schedule, each with the least and the most that the contract allows."""
_REAL_PARAMETERS = {
    "base_lr": {"least": 1e-30, "most": 1e30},
    "final_lr": {"least": 0.0, "most": 1.0},
    "factor": {"above": 0.0, "most": 1.0},
    "cooldown_fraction": {"above": 0.0, "most": 1.0},
    "peak_fraction": {"above": 0.0, "most": 1.0},
    "start_division": {"least": 1.0, "most": 1e12},
    "final_division": {"least": 1.0, "most": 1e12},
    "threshold": {"least": 0.0, "most": 1.0},
}
"""Its other numbers, each with its bounds."""
C = TypeVar("C", bound=StrEnum)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:+=@]{0,255}")
_PORT = re.compile(r"[0-9]{1,5}")


def target(value: object) -> str:
    """Return a checked address of a daemon: `host:port`, `[ipv6]:port` or `unix:path`."""
    address = _string("target", value)
    if address.startswith("unix:"):
        if not address.removeprefix("unix:").strip("/"):
            raise _wrong("target", "names no socket; write unix:/path/to/socket", value)
        return address
    if "/" in address:
        raise _wrong("target", "must be host:port or unix:path, without a scheme such as http://", value)
    host, colon, port = address.rpartition(":")
    if not colon or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise _wrong("target", "has no port; write host:port ([address]:port for IPv6) or unix:path", value)
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise _wrong("target", "has a port that is not a number from 1 to 65535", value)
    return address


def targets(value: object) -> tuple[str, ...]:
    """Return checked addresses: a list of them, or a string with commas between."""
    if isinstance(value, str):
        value = [address.strip() for address in value.split(",")]
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise _wrong("target", "must be an address, or a list of addresses", value)
    checked = tuple(dict.fromkeys(target(address) for address in value))
    if not checked:
        raise _wrong("target", "must be at least one address", value)
    return checked


def timeout_s(value: object) -> float:
    """Return a checked deadline in seconds: > 0 and below a year's worth."""
    return _real("timeout_s", value, above=0.0, below=MAX_TIMEOUT_S)


def run_id(value: object, name: str = "id") -> str:
    """Return a checked run id, or name of a task."""
    if not _RUN_ID.fullmatch(_string(name, value)):
        raise _wrong(
            name,
            "must be 1 to 256 letters, digits and any of ._-/:+=@, beginning with a letter or digit",
            value,
        )
    return str(value)


def step(value: object, name: str = "step") -> int:
    """Return a checked step: 0 to 2**53."""
    return _whole(name, value, low=0, high=MAX_HORIZON)


def horizon(value: object) -> int:
    """Return a checked horizon: 1 to 2**53 steps."""
    return _whole("horizon", value, low=1, high=MAX_HORIZON)


def loss(value: Any) -> float:
    """Return a loss as a double: any real number, NaN and infinities included, or an array of one."""
    return _number("loss", value)


def samples(value: object) -> float:
    """Return a checked number of samples that a loss is the mean of; `None` is one."""
    return 1.0 if value is None else _real("samples", value, above=0.0)


def ranks(
    rank: object,
    world_size: object,
    reduction: object = None,
    straggler_timeout_s: object = None,
    quorum: object = None,
) -> tuple[Ranks, int, int | None] | None:
    """Return checked how ranks share a run, which this is, and how many there are; `None`: one does."""
    rest = (world_size, reduction, straggler_timeout_s, quorum)
    if rank is None:
        if any(value is not None for value in rest):
            raise _wrong("rank", "must be given along with what else is said of ranks", rank)
        return None
    number = _whole("rank", rank, low=0, high=MAX_WORLD_SIZE - 1)
    size = None if world_size is None else _whole("world_size", world_size, low=1, high=MAX_WORLD_SIZE)
    if size is not None and number >= size:
        raise _wrong("rank", f"must be below world_size, {size}", rank)
    checked = Ranks(
        reduction=None if reduction is None else _choice("rank_reduction", RankReduction, reduction),
        straggler_timeout_s=None
        if straggler_timeout_s is None
        else _real("straggler_timeout_s", straggler_timeout_s, above=0.0, most=86_400.0),
        quorum=None if quorum is None else _real("quorum", quorum, above=0.0, most=1.0),
    )
    return checked, number, size


def prefix(value: object) -> str:
    """Return a checked prefix of run ids; may be empty."""
    return "" if value == "" else _string("prefix", value)


def limit(value: object) -> int | None:
    """Return a checked number of runs at most; `None`: all."""
    return None if value is None else _whole("limit", value, low=1)


def model(value: object) -> str:
    """Return a checked name, alias or `name@digest` of a model."""
    return _string("model", value)


def status(value: object) -> RunStatus | None:
    """Return a checked status of runs; `None`: any."""
    if value is None:
        return None
    try:
        return RunStatus(str(value))
    except ValueError:
        raise _wrong("status", f"must be one of {', '.join(RunStatus)}", value) from None


def config(
    *,
    model: object = None,
    horizon: object = None,
    num_classes: object = None,
    scale: object = None,
    snapshot: object = None,
    optimizer: object = None,
    momentum: object = None,
    initial_lr: object = None,
    min_lr: object = None,
    max_lr: object = None,
    policy: object = None,
    base_lr: object = None,
    warmup: object = None,
    meta: object = None,
) -> RunConfig:
    """Return a checked config of a run; `None` means not given."""
    if policy is not None and model is not None:
        raise _wrong("policy", "is a schedule in place of a model; leave one of them out", policy)
    checked = RunConfig(
        model=None if model is None else _string("model", model),
        horizon=None if horizon is None else _whole("horizon", horizon, low=1, high=MAX_HORIZON),
        num_classes=None
        if num_classes is None
        else _whole("num_classes", num_classes, low=2, high=MAX_COUNT),
        scale=None if scale is None else _real("scale", scale, above=0.0),
        snapshot=None if snapshot is None else _whole("snapshot", snapshot, low=0),
        optimizer=None if optimizer is None else _optimizer(optimizer),
        momentum=None if momentum is None else _real("momentum", momentum, least=0.0, below=1.0),
        initial_lr=None if initial_lr is None else _real("initial_lr", initial_lr, above=0.0),
        min_lr=None if min_lr is None else _real("min_lr", min_lr, least=0.0),
        max_lr=None if max_lr is None else _real("max_lr", max_lr, above=0.0),
        schedule=schedule(policy, base_lr, warmup),
        meta=checked_meta(meta),
    )
    if checked.meta is not None and checked.schedule is not None:
        raise _wrong("meta", "goes on training a network, and the run follows a schedule", meta)
    if checked.min_lr is not None and checked.max_lr is not None and checked.min_lr > checked.max_lr:
        raise _wrong("min_lr", f"must not be above max_lr, {checked.max_lr}", min_lr)
    return checked


def sweep(ids: Any, config_: Mapping[str, Any]) -> tuple[tuple[str, ...], list[RunConfig]]:
    """Return the checked ids of a sweep's runs, and a config for each.

    Values of the config that are lists, tuples or arrays hold a value a run, others are for all.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise _wrong("ids", "must be a list of run ids", ids)
    checked = tuple(run_id(id_) for id_ in ids)
    if not 1 <= len(checked) <= MAX_SWEEP:
        raise _wrong("ids", f"must be 1 to {MAX_SWEEP} run ids", len(checked))
    if len(set(checked)) < len(checked):
        twice = next(id_ for id_ in checked if checked.count(id_) > 1)
        raise _wrong("ids", "must be different runs", twice)
    if unknown := config_.keys() - _CONFIG_FIELDS:
        name = min(unknown)
        raise _wrong(
            name, f"is no setting of a sweep; they are {', '.join(sorted(_CONFIG_FIELDS))}", config_[name]
        )
    columns = {name: _column(name, value, len(checked)) for name, value in config_.items()}
    several = {name: values for name, values in columns.items() if values is not None}
    shared = {name: value for name, value in config_.items() if name not in several}
    if not several:
        return checked, [config(**shared)] * len(checked)
    rows = zip(*several.values(), strict=True)
    return checked, [config(**shared, **dict(zip(several, row, strict=True))) for row in rows]


_CONFIG_FIELDS = frozenset(config.__kwdefaults__ or ())
"""What a sweep's runs may be opened with."""


def _column(name: str, value: Any, count: int) -> list[Any] | None:
    """Return a value for each run; `None`: it is one for all."""
    if hasattr(value, "tolist"):  # an array, or a scalar of NumPy
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return None
    if len(value) != count:
        raise _wrong(name, f"must be one value, or one for each of the {count} runs", value)
    return list(value)


def schedule(policy: object, base_lr: object = None, warmup: object = None) -> Schedule | None:
    """Return a checked schedule, given by its kind or whole; `None`: the run has a model.

    `base_lr` and `warmup` fill in what the schedule does not say itself.
    """
    beside = {"base_lr": base_lr, "warmup": warmup}
    given: dict[str, Any] = {name: value for name, value in beside.items() if value is not None}
    if policy is None:
        for name, value in given.items():
            raise _wrong(name, "is of a schedule; name one, as with policy='cosine'", value)
        return None
    asked = policy if isinstance(policy, Schedule) else Schedule(_kind(policy))
    for name, value in given.items():
        if getattr(asked, name) is not None:
            raise _wrong(name, "is given twice; leave it out here or in the schedule", value)
    asked = dataclasses.replace(asked, **given)
    values = {field.name: getattr(asked, field.name) for field in dataclasses.fields(Schedule)}
    numbers = {name: value for name, value in values.items() if value is not None and name != "kind"}
    return Schedule(_kind(asked.kind), **{name: parameter(name, value) for name, value in numbers.items()})


def _kind(value: object) -> ScheduleKind:
    try:
        return ScheduleKind(str(value))
    except ValueError:
        known = ", ".join(ScheduleKind)
        raise _wrong("policy", f"must be a Schedule, or the kind of one: {known}", value) from None


def parameter(name: str, value: Any) -> Any:
    """Return a checked parameter of a schedule; the daemon knows which kind takes which."""
    if name == "milestones":
        return _milestones(value)
    if name in _WHOLE_PARAMETERS:
        low, high = _WHOLE_PARAMETERS[name]
        return _whole(name, value, low=low, high=high)
    return _real(name, value, **_REAL_PARAMETERS[name])


def _milestones(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise _wrong("milestones", "must be a list of steps", value)
    milestones = tuple(_whole("milestones", step, low=1, high=MAX_HORIZON) for step in value)
    if not 1 <= len(milestones) <= MAX_MILESTONES:
        raise _wrong("milestones", f"must hold 1 to {MAX_MILESTONES} steps", value)
    if any(after <= before for before, after in pairwise(milestones)):
        raise _wrong("milestones", "must rise", value)
    return milestones


def _optimizer(value: object) -> Optimizer:
    try:
        return Optimizer(str(value))
    except ValueError:
        raise _wrong("optimizer", f"must be one of {', '.join(Optimizer)}", value) from None


def _choice(name: str, kind: type[C], value: object) -> C:
    try:
        return kind(str(value))
    except ValueError:
        raise _wrong(name, f"must be one of {', '.join(kind)}", value) from None
