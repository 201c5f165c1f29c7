"""Snapshots, meta updates, networks and configs of runs as bytes, each closed by a checksum.

`chunks.py` does the same for the record of a run.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mlrs_core.config import (
    AdaptScope,
    FoundRate,
    Measure,
    MetaConfig,
    MetaOrder,
    Optimizer,
    RankReduction,
    RanksConfig,
    Recalled,
    RunConfig,
    ScheduleKind,
    ScheduleSpec,
)
from mlrs_core.config.ranges import check_whole
from mlrs_core.policy import States
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.sealing import CHECKSUM_BYTES, damaged, seal, seal_all, unseal

_FIELDS = {
    "next_step": "q",
    "last_loss": "d",
    "last_lr": "d",
    "last_reason": "B",
    "status": "B",
    "bad_losses": "I",
}
"""How a snapshot begins, little-endian, without padding; the policy's state follows, float32."""
_HEAD = struct.Struct("<" + "".join(_FIELDS.values()))
_HEADS = np.dtype([(name, f"<{code}") for name, code in _FIELDS.items()])
_UPDATE = struct.Struct("<ddddB")
"""Alignment, validation loss or NaN, learning rate, log change, outcome."""
_STATUSES = frozenset(RunStatus)
COUNTERS_AT = "counters_at"
"""What a run's `counters_at` is called beside the fields of its config."""
_JSON = json.JSONEncoder(default=vars)
"""The parts of a config are their fields."""
CHECKED_AT_ONCE = 2**20
"""Bytes that are unpacked at a time where only their number counts."""


def pack_snapshot(snapshot: RunSnapshot) -> bytes:
    """Return a snapshot as bytes."""
    head = _HEAD.pack(*(getattr(snapshot, name) for name in _FIELDS))
    return seal(head + snapshot.state.astype("<f4").tobytes())


def pack_snapshots(records: npt.NDArray[np.void], states: States) -> list[bytes]:
    """Return the snapshots of k runs as bytes.

    Args:
        records: (k,), structured, with what a snapshot begins with among its fields.
        states: of the policy, (k, size).
    """
    k, width = len(states), _HEAD.size + 4 * states.shape[1] + CHECKSUM_BYTES
    heads = np.empty(k, _HEADS)
    for name in _FIELDS:
        heads[name] = records[name]
    rows = np.zeros((k, width), np.uint8)
    rows[:, : _HEAD.size] = heads.view(np.uint8).reshape(k, _HEAD.size)
    rows[:, _HEAD.size : -CHECKSUM_BYTES] = states.astype("<f4").view(np.uint8)
    return seal_all(rows.reshape(-1), np.arange(k + 1) * width)


def unpack_snapshot(data: bytes, run_id: str) -> RunSnapshot:
    """Return the snapshot in `data`, of run `run_id`.

    Raises:
        AdvisorError: the bytes are damaged, or of a newer version.
    """
    body = unseal(data, run_id)
    if len(body) < _HEAD.size or (len(body) - _HEAD.size) % 4:
        raise damaged(run_id)
    head = dict(zip(_FIELDS, _HEAD.unpack_from(body), strict=True))
    head["status"] = known_status(head["status"], run_id)
    return RunSnapshot(**head, state=np.frombuffer(body, "<f4", offset=_HEAD.size).astype(np.float32))


def known_status(status: int, run_id: str) -> RunStatus:
    """Return a stored status.

    Raises:
        AdvisorError: there is none of that number.
    """
    if status not in _STATUSES:
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"run {run_id!r} is of a status, {status}, of a newer version of mlrs; upgrade mlrs",
        )
    return RunStatus(status)


def pack_update(update: MetaUpdate) -> bytes:
    """Return a meta update, but for its step, as bytes."""
    loss = math.nan if update.validation_loss is None else update.validation_loss
    return seal(_UPDATE.pack(update.alignment, loss, update.lr, update.log_change, update.outcome))


def unpack_update(step: int, data: bytes, run_id: str) -> MetaUpdate:
    """Return the meta update of a step in `data`, of run `run_id`.

    Raises:
        AdvisorError: the bytes are damaged.
    """
    body = unseal(data, run_id)
    if len(body) != _UPDATE.size:
        raise damaged(run_id)
    alignment, loss, lr, log_change, outcome = _UPDATE.unpack(body)
    return MetaUpdate(step, alignment, None if math.isnan(loss) else loss, outcome, lr, log_change)


def pack_network(network: States, first: States) -> bytes:
    """Return a network as bytes: its bits against those of what it began with, compressed; (size,) both."""
    return seal(zlib.compress(_against(network, first).tobytes(), level=1))


def unpack_network(data: bytes, first: States, run_id: str) -> States:
    """Return the network in `data`, of run `run_id`, (size,).

    Raises:
        AdvisorError: the bytes are damaged, or of another size than what it began with.
    """
    body = unseal(data, run_id)
    reader = zlib.decompressobj()
    try:
        bits = reader.decompress(body, 4 * len(first) + 1)
    except zlib.error as error:
        raise damaged(run_id) from error
    if len(bits) != 4 * len(first):
        raise damaged(run_id)
    return _against(np.frombuffer(bits, "<f4"), first)


def check_network(data: bytes, run_id: str) -> None:
    """Check all of a network that can be checked without its model: checksums, and that it is whole numbers.

    Raises:
        AdvisorError: the bytes are damaged.
    """
    left, size = unseal(data, run_id), 0
    reader = zlib.decompressobj()
    try:
        while not reader.eof and (part := reader.decompress(left, CHECKED_AT_ONCE)):
            left, size = reader.unconsumed_tail, size + len(part)
    except zlib.error as error:
        raise damaged(run_id) from error
    if not (reader.eof and size) or size % 4 or reader.unused_data:
        raise damaged(run_id)


def _against(network: States, first: States) -> States:
    """Return the bits of one network against another's; twice, they are those of before."""
    bits: States = (network.astype("<f4").view("<u4") ^ first.astype("<f4").view("<u4")).view("<f4")
    return bits


def pack_config(config: RunConfig, counters_at: int = 0) -> bytes:
    """Return a config as JSON of the fields that were given, and of a run's `counters_at` if it has one."""
    given = {name: getattr(config, name) for name in config.given()}
    if counters_at:
        given[COUNTERS_AT] = counters_at
    return seal(_JSON.encode(given).encode())


def unpack_config(data: bytes, run_id: str) -> tuple[RunConfig, int]:
    """Return the config in `data`, of run `run_id`, and the run's `counters_at`.

    Raises:
        AdvisorError: the bytes are damaged, or a newer version wrote what this one does not know.
    """
    body = unseal(data, run_id)
    try:
        values = json.loads(body)
        counters_at = values.pop(COUNTERS_AT, 0)
        check_whole(COUNTERS_AT, counters_at, low=0, high=2**31, unit="entries")
        return _config_of(values), counters_at
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        # InvalidFieldError is a ValueError; the others are of JSON that is no config
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"the config of run {run_id!r} is of a newer version of mlrs ({error}); upgrade mlrs",
        ) from error


def _config_of(values: dict[str, Any]) -> RunConfig:
    values["optimizer"] = Optimizer(values.get("optimizer", 0))
    if (schedule := values.get("schedule")) is not None:
        kind, milestones = ScheduleKind(schedule.pop("kind")), schedule.pop("milestones")
        values["schedule"] = ScheduleSpec(kind, milestones=milestones and tuple(milestones), **schedule)
    if (meta := values.get("meta")) is not None:
        scope, order = AdaptScope(meta.pop("scope")), MetaOrder(meta.pop("order"))
        values["meta"] = MetaConfig(scope=scope, order=order, **meta)
    if (ranks := values.get("ranks")) is not None:
        ranks.pop("mode", None)  # of a store written while there was a choice
        values["ranks"] = RanksConfig(reduction=RankReduction(ranks.pop("reduction")), **ranks)
    if (found := values.get("found")) is not None:
        values["found"] = FoundRate(**found)
    if (recalled := values.get("recalled")) is not None:
        values["recalled"] = Recalled(measure=Measure(recalled.pop("measure")), **recalled)
    return RunConfig(**values)
