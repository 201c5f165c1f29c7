"""Records and snapshots as bytes, each closed by a CRC-32."""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Any

import numpy as np

from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.meta import AdaptScope, MetaConfig, MetaOrder
from mlrs_core.policy import States
from mlrs_core.ranges import check_whole
from mlrs_core.ranks import RankReduction, RanksConfig
from mlrs_core.schedules import ScheduleKind, ScheduleSpec
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.errors import AdvisorError, DamagedError, Reason
from mlrs_server.ledger import RunStatus
from mlrs_server.runs import RunSnapshot
from mlrs_server.store.protocol import Observations

_SNAPSHOT = struct.Struct("<qddBBI")
"""next step, last loss, last lr, last reason, status, bad losses; then the state, float32."""
_UPDATE = struct.Struct("<ddddB")
"""Alignment, validation loss or NaN, learning rate, log change, outcome."""
_STATUSES = frozenset(RunStatus)
BYTES_PER_STEP = 8 + 8 + 1
COUNTERS_AT = "counters_at"
"""What a run's `counters_at` is called beside the fields of its config."""
_JSON = json.JSONEncoder(default=vars)
"""The parts of a config are their fields."""
CHECKED_AT_ONCE = 2**20
"""Bytes that are unpacked at a time where only their number counts."""
SEED = 0x6D6C7273
"""Where the checksum starts: four zero bytes must not pass as an empty record."""
RECORD_VERSION = 1
"""The format of a stretch of record, a byte behind its steps."""
RECORD_SEED = 0x6D6C7274
"""Where the checksum of a stretch of record starts that has a version; without one, it starts at `SEED`."""


def pack_observations(observations: Observations) -> bytes:
    """Return a stretch of record as bytes: losses, learning rates, reasons, the format's version."""
    return _seal(
        observations.losses.astype("<f8").tobytes()
        + observations.lrs.astype("<f8").tobytes()
        + observations.reasons.astype(np.uint8).tobytes()
        + bytes([RECORD_VERSION]),
        RECORD_SEED,
    )


def unpack_observations(data: bytes, run_id: str) -> Observations:
    """Return the stretch of record in `data`, of run `run_id`.

    Raises:
        AdvisorError: the bytes are damaged, or of a format of a newer version.
    """
    version, size = _record_format(data)
    if version > RECORD_VERSION:
        raise AdvisorError(
            Reason.STORE_NEWER, f"the record of run {run_id!r} is of a newer version of mlrs; upgrade mlrs"
        )
    if version < 0 or size % BYTES_PER_STEP:
        raise _damaged(run_id)
    body, n = data[:size], size // BYTES_PER_STEP
    return Observations(
        np.frombuffer(body, "<f8", n).astype(np.float64),
        np.frombuffer(body, "<f8", n, offset=8 * n).astype(np.float64),
        np.frombuffer(body, np.uint8, n, offset=16 * n).copy(),
    )


def pack_snapshot(snapshot: RunSnapshot) -> bytes:
    """Return a snapshot as bytes."""
    head = _SNAPSHOT.pack(
        snapshot.next_step,
        snapshot.last_loss,
        snapshot.last_lr,
        snapshot.last_reason,
        snapshot.status,
        snapshot.bad_losses,
    )
    return _seal(head + snapshot.state.astype("<f4").tobytes())


def unpack_snapshot(data: bytes, run_id: str) -> RunSnapshot:
    """Return the snapshot in `data`, of run `run_id`.

    Raises:
        AdvisorError: the bytes are damaged.
    """
    body = _unseal(data, run_id)
    if len(body) < _SNAPSHOT.size or (len(body) - _SNAPSHOT.size) % 4:
        raise _damaged(run_id)
    next_step, last_loss, last_lr, last_reason, status, bad_losses = _SNAPSHOT.unpack_from(body)
    return RunSnapshot(
        status=known_status(status, run_id),
        next_step=next_step,
        last_loss=last_loss,
        last_lr=last_lr,
        last_reason=last_reason,
        bad_losses=bad_losses,
        state=np.frombuffer(body, "<f4", offset=_SNAPSHOT.size).astype(np.float32),
    )


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
    return _seal(_UPDATE.pack(update.alignment, loss, update.lr, update.log_change, update.outcome))


def unpack_update(step: int, data: bytes, run_id: str) -> MetaUpdate:
    """Return the meta update of a step in `data`, of run `run_id`.

    Raises:
        AdvisorError: the bytes are damaged.
    """
    body = _unseal(data, run_id)
    if len(body) != _UPDATE.size:
        raise _damaged(run_id)
    alignment, loss, lr, log_change, outcome = _UPDATE.unpack(body)
    return MetaUpdate(step, alignment, None if math.isnan(loss) else loss, outcome, lr, log_change)


def pack_network(network: States, first: States) -> bytes:
    """Return a network as bytes: its bits against those of what it began with, compressed; (size,) both."""
    return _seal(zlib.compress(_against(network, first).tobytes(), level=1))


def unpack_network(data: bytes, first: States, run_id: str) -> States:
    """Return the network in `data`, of run `run_id`, (size,).

    Raises:
        AdvisorError: the bytes are damaged, or of another size than what it began with.
    """
    body = _unseal(data, run_id)
    reader = zlib.decompressobj()
    try:
        bits = reader.decompress(body, 4 * len(first) + 1)
    except zlib.error as error:
        raise _damaged(run_id) from error
    if len(bits) != 4 * len(first):
        raise _damaged(run_id)
    return _against(np.frombuffer(bits, "<f4"), first)


def check_network(data: bytes, run_id: str) -> None:
    """Check all of a network that can be checked without its model: checksums, and that it is whole numbers.

    Raises:
        AdvisorError: the bytes are damaged.
    """
    left, size = _unseal(data, run_id), 0
    reader = zlib.decompressobj()
    try:
        while not reader.eof and (part := reader.decompress(left, CHECKED_AT_ONCE)):
            left, size = reader.unconsumed_tail, size + len(part)
    except zlib.error as error:
        raise _damaged(run_id) from error
    if not (reader.eof and size) or size % 4 or reader.unused_data:
        raise _damaged(run_id)


def _against(network: States, first: States) -> States:
    """Return the bits of one network against another's; twice, they are those of before."""
    bits: States = (network.astype("<f4").view("<u4") ^ first.astype("<f4").view("<u4")).view("<f4")
    return bits


def pack_config(config: RunConfig, counters_at: int = 0) -> bytes:
    """Return a config as JSON of the fields that were given, and of a run's `counters_at` if it has one."""
    given = {name: getattr(config, name) for name in config.given()}
    if counters_at:
        given[COUNTERS_AT] = counters_at
    return _seal(_JSON.encode(given).encode())


def unpack_config(data: bytes, run_id: str) -> tuple[RunConfig, int]:
    """Return the config in `data`, of run `run_id`, and the run's `counters_at`.

    Raises:
        AdvisorError: the bytes are damaged, or a newer version wrote what this one does not know.
    """
    body = _unseal(data, run_id)
    try:
        values = json.loads(body)
        counters_at = values.pop(COUNTERS_AT, 0)
        check_whole(COUNTERS_AT, counters_at, low=0, high=2**31, unit="places")
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
    return RunConfig(**values)


def _seal(body: bytes, seed: int = SEED) -> bytes:
    return body + zlib.crc32(body, seed).to_bytes(4, "little")


def _unseal(data: bytes, run_id: str) -> bytes:
    body, checksum = data[:-4], data[-4:]
    if zlib.crc32(body, SEED).to_bytes(4, "little") != checksum:
        raise _damaged(run_id)
    return body


def is_whole(data: bytes) -> bool:
    """Return whether a stretch of record is not damaged, and of a known format, without unpacking it."""
    version, size = _record_format(data)
    return 0 <= version <= RECORD_VERSION and size % BYTES_PER_STEP == 0


def _record_format(data: bytes) -> tuple[int, int]:
    """Return the version of a stretch of record, and the size of its steps in bytes.

    0 is the format of before versions. A damaged stretch has version -1.
    """
    body, checksum = memoryview(data)[:-4], int.from_bytes(data[-4:], "little")
    if body and zlib.crc32(body, RECORD_SEED) == checksum:
        return body[-1], len(body) - 1
    return (0 if zlib.crc32(body, SEED) == checksum else -1), len(body)


def _damaged(run_id: str) -> DamagedError:
    return DamagedError(f"the store holds a damaged record of run {run_id!r}; restore it from a backup")
