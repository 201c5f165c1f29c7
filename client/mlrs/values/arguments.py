"""Checks of the arguments of public calls. Each raises `InvalidArgumentError` that names the argument."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mlrs.values.checks import (
    MAX_STEPS,
    checked,
    checks_of,
    member,
    number,
    real,
    string,
    whole,
    wrong,
)
from mlrs.values.meta_arguments import meta as checked_meta
from mlrs.values.signals import SIGNAL_NAMES, Signals
from mlrs.values.types import RankReduction, Ranks, RunConfig, RunStatus, Schedule, ScheduleKind

MAX_TIMEOUT_S = 3e7
"""The deadlines that are taken are below this."""
MAX_SWEEP = 65_536
"""The most runs of a sweep: the entries that fit into a message."""
MAX_WORLD_SIZE = 65_536
"""The most ranks of a run."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:+=@]{0,255}")
_PORT = re.compile(r"[0-9]{1,5}")
CONFIG_OPTIONS = (*checks_of(RunConfig), "policy", "base_lr", "warmup", "meta")
"""The options of which a run's config is made."""


def target(value: object) -> str:
    """Return a checked address of a daemon: `host:port`, `[ipv6]:port` or `unix:path`."""
    address = string("target", value)
    if address.startswith("unix:"):
        if not address.removeprefix("unix:").strip("/"):
            raise wrong("target", "names no socket; write unix:/path/to/socket", value)
        return address
    if "/" in address:
        raise wrong("target", "must be host:port or unix:path, without a scheme such as http://", value)
    host, colon, port = address.rpartition(":")
    if not colon or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise wrong("target", "has no port; write host:port ([address]:port for IPv6) or unix:path", value)
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise wrong("target", "has a port that is not a number from 1 to 65535", value)
    return address


def targets(value: object) -> tuple[str, ...]:
    """Return checked addresses: a list of them, or a string with commas between."""
    if isinstance(value, str):
        value = [address.strip() for address in value.split(",")]
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong("target", "must be an address, or a list of addresses", value)
    checked = tuple(dict.fromkeys(target(address) for address in value))
    if not checked:
        raise wrong("target", "must be at least one address", value)
    return checked


def timeout_s(value: object) -> float:
    """Return a checked deadline in seconds: > 0 and below a year's worth."""
    return real("timeout_s", value, above=0.0, below=MAX_TIMEOUT_S)


def run_id(value: object, name: str = "id") -> str:
    """Return a checked run id, or name of a task."""
    if not _RUN_ID.fullmatch(string(name, value)):
        raise wrong(
            name,
            "must be 1 to 256 letters, digits and any of ._-/:+=@, beginning with a letter or digit",
            value,
        )
    return str(value)


def step(value: object, name: str = "step") -> int:
    """Return a checked step: 0 to 2**53."""
    return whole(name, value, low=0, high=MAX_STEPS)


def loss(value: Any) -> float:
    """Return a loss as a double: any real number, NaN and infinities included, or an array of one."""
    return number("loss", value)


def metric(value: object) -> tuple[float, ...]:
    """Return how good a run came out, in a tuple: an empty one for `None`, and where it is not finite."""
    told = math.nan if value is None else number("metric", value)
    return (told,) if math.isfinite(told) else ()


def samples(value: object) -> float:
    """Return a checked number of samples that a loss is the mean of; `None` is one."""
    return 1.0 if value is None else real("samples", value, above=0.0)


def signals(value: object) -> Signals | None:
    """Return checked signals, as doubles; `None` if there are none."""
    if value is None:
        return None
    if not isinstance(value, Signals):
        raise wrong("signals", "must be a mlrs.types.Signals", value)
    numbers = {name: number(f"signals.{name}", getattr(value, name)) for name in SIGNAL_NAMES}
    return None if all(map(math.isnan, numbers.values())) else Signals(**numbers)


def ranks(
    rank: object,
    world_size: object,
    rank_reduction: object,
    straggler_timeout_s: object,
    quorum: object,
) -> tuple[Ranks, int, int | None] | None:
    """Return the checked settings of ranks, this rank and the world size; `None`: the run has no ranks."""
    if rank is None:
        if any(value is not None for value in (world_size, rank_reduction, straggler_timeout_s, quorum)):
            raise wrong("rank", "must be given along with what else is said of ranks", rank)
        return None
    which = whole("rank", rank, low=0, high=MAX_WORLD_SIZE - 1)
    size = None if world_size is None else whole("world_size", world_size, low=1, high=MAX_WORLD_SIZE)
    if size is not None and which >= size:
        raise wrong("rank", f"must be below world_size, {size}", rank)
    reduction = None if rank_reduction is None else member("rank_reduction", rank_reduction, of=RankReduction)
    others = checked(Ranks, {"straggler_timeout_s": straggler_timeout_s, "quorum": quorum})
    return Ranks(reduction=reduction, **others), which, size


def prefix(value: object, name: str = "prefix") -> str:
    """Return a checked part of run ids; may be empty."""
    return "" if value == "" else string(name, value)


def limit(value: object) -> int | None:
    """Return a checked number of runs at most; `None`: all."""
    return None if value is None else whole("limit", value, low=1)


def model(value: object) -> str:
    """Return a checked name, alias or `name@digest` of a model."""
    return string("model", value)


def status(value: object) -> RunStatus | None:
    """Return a checked status of runs; `None`: any."""
    return None if value is None else member("status", value, of=RunStatus)


def config(
    *, policy: object = None, base_lr: object = None, warmup: object = None, meta: object = None, **given: Any
) -> RunConfig:
    """Return a checked config of a run. What is `None` is not given; the rest are fields of `RunConfig`."""
    for name in given.keys() - checks_of(RunConfig).keys():
        raise wrong(name, f"is no option; the others are {', '.join(CONFIG_OPTIONS)}", given[name])
    if policy is not None and given.get("model") is not None:
        raise wrong("policy", "is a schedule instead of a model; leave one of them out", policy)
    config = RunConfig(
        schedule=schedule(policy, base_lr, warmup), meta=checked_meta(meta), **checked(RunConfig, given)
    )
    if config.meta is not None and config.schedule is not None:
        raise wrong("meta", "adapts a network, and the run follows a schedule", meta)
    if config.min_lr is not None and config.max_lr is not None and config.min_lr > config.max_lr:
        raise wrong("min_lr", f"must not be above max_lr, {config.max_lr}", config.min_lr)
    return config


def sweep(ids: Any, config_: Mapping[str, Any]) -> tuple[tuple[str, ...], list[RunConfig]]:
    """Return the checked ids of a sweep's runs, and a config for each.

    Values of the config that are lists, tuples or arrays hold a value a run, others are for all.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise wrong("ids", "must be a list of run ids", ids)
    run_ids = tuple(run_id(id_) for id_ in ids)
    if not 1 <= len(run_ids) <= MAX_SWEEP:
        raise wrong("ids", f"must be 1 to {MAX_SWEEP} run ids", len(run_ids))
    if len(set(run_ids)) < len(run_ids):
        twice = next(id_ for id_ in run_ids if run_ids.count(id_) > 1)
        raise wrong("ids", "must be different runs", twice)
    columns = {name: _column(name, value, len(run_ids)) for name, value in config_.items()}
    several = {name: values for name, values in columns.items() if values is not None}
    shared = {name: value for name, value in config_.items() if name not in several}
    if not several:
        return run_ids, [config(**shared)] * len(run_ids)
    rows = zip(*several.values(), strict=True)
    return run_ids, [config(**shared, **dict(zip(several, row, strict=True))) for row in rows]


def _column(name: str, value: Any, count: int) -> list[Any] | None:
    """Return a value for each run; `None`: it is one for all."""
    if hasattr(value, "tolist"):  # an array, or a scalar of NumPy
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return None
    if len(value) != count:
        raise wrong(name, f"must be one value, or one for each of the {count} runs", value)
    return list(value)


def schedule(policy: object, base_lr: object = None, warmup: object = None) -> Schedule | None:
    """Return a checked schedule, given by its kind or whole; `None`: the run has a model.

    `base_lr` and `warmup` fill in what the schedule does not say itself.
    """
    beside = {"base_lr": base_lr, "warmup": warmup}
    given: dict[str, Any] = {name: value for name, value in beside.items() if value is not None}
    if policy is None:
        for name, value in given.items():
            raise wrong(name, "is of a schedule; name one, as with policy='cosine'", value)
        return None
    asked = policy if isinstance(policy, Schedule) else Schedule(_kind(policy))
    for name, value in given.items():
        if getattr(asked, name) is not None:
            raise wrong(name, "is given twice; leave it out here or in the schedule", value)
    asked = dataclasses.replace(asked, **given)
    return Schedule(
        _kind(asked.kind),
        **checked(Schedule, {name: value for name, value in vars(asked).items() if name != "kind"}),
    )


def _kind(value: object) -> ScheduleKind:
    try:
        return ScheduleKind(str(value))
    except ValueError:
        known = ", ".join(ScheduleKind)
        raise wrong("policy", f"must be a Schedule, or the kind of one: {known}", value) from None


def parameter(name: str, value: Any) -> Any:
    """Return a checked parameter of a schedule; the daemon knows which kind takes which."""
    return checks_of(Schedule)[name](name, value)
