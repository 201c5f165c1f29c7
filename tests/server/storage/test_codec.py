"""Records, snapshots and configs as bytes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlrs_core.config import MAX_HORIZON, FoundRate, Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_core.search import SearchSetup, TrialResult
from mlrs_server.domain.extras import NO_EXTRAS, RESTORED, WIDTH, SparseExtras
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_snapshot import RunSnapshot, first_snapshot
from mlrs_server.domain.searches import RecordedSearch
from mlrs_server.errors import Reason
from mlrs_server.storage import Observations, chunks, codec, searches
from mlrs_server.storage.sealing import seal
from tests.core.schedules.cases import configs
from tests.server.storage.stored import same
from tests.server.support import raises

DOUBLES = st.floats(width=64)  # NaNs of any payload and infinities included
SIZES = st.integers(0, 40)
SNAPSHOTS = st.builds(
    RunSnapshot,
    status=st.sampled_from(RunStatus),
    next_step=st.integers(0, MAX_HORIZON),
    last_loss=DOUBLES,
    last_lr=DOUBLES,
    last_reason=st.integers(0, 3),
    bad_losses=st.integers(0, 2**32 - 1),
    state=SIZES.flatmap(lambda n: arrays(np.float32, n, elements=st.floats(width=32))),
)
CONFIGS = st.builds(
    RunConfig,
    horizon=st.none() | st.integers(1, MAX_HORIZON),
    num_classes=st.none() | st.integers(2, 2**31 - 1),
    scale=st.none() | st.floats(min_value=1e-300, allow_infinity=False),
    snapshot=st.none() | st.integers(0, 2**31 - 1),
    optimizer=st.sampled_from(Optimizer),
    momentum=st.none() | st.floats(0, 1, exclude_max=True),
    min_lr=st.none() | st.floats(0, 1),
    max_lr=st.none() | st.floats(1, 10),
    rescue=st.booleans(),
    lr_offset=st.none() | st.floats(-20, 20),
    found=st.none()
    | st.builds(
        FoundRate,
        learning_rate=st.floats(5e-324, 1e300),
        octaves=st.floats(0, 1e9),
        steps=st.integers(0, 2**53),
        charged=st.booleans(),
    ),
)
SEARCHES = st.builds(
    RecordedSearch,
    start=st.text("abcXYZ019-", min_size=1, max_size=64),
    setup=st.builds(
        SearchSetup,
        horizon=st.none() | st.integers(1, MAX_HORIZON),
        optimizer=st.sampled_from(Optimizer),
        momentum=st.none() | st.floats(0, 1),
        initial_lr=st.none() | st.floats(5e-324, 1e300),
    ),
    keep_policy=st.booleans(),
    charge_steps=st.booleans(),
    min_lr=st.floats(1e-30, 1.0),
    max_lr=st.floats(1.0, 1e30),
    results=st.lists(
        st.builds(
            TrialResult,
            learning_rate=st.floats(5e-324, 1e300),
            steps=st.integers(0, MAX_HORIZON),
            loss=st.floats(allow_nan=False) | st.just(math.nan),
        ),
        max_size=11,
    ).map(tuple),
    version=st.integers(0, 9),
)


@st.composite
def stretches(draw: st.DrawFn) -> Observations:
    """Draw a stretch of record."""
    n = draw(SIZES)
    positions = np.flatnonzero(draw(arrays(np.bool_, n)))
    values = draw(arrays(np.float64, (len(positions), WIDTH), elements=DOUBLES))
    values[:, RESTORED] = np.where(values[:, RESTORED] > 0.0, 1.0, math.nan)
    return Observations(
        draw(arrays(np.float64, n, elements=DOUBLES)),
        draw(arrays(np.float64, n, elements=DOUBLES)),
        draw(arrays(np.uint8, n)),
        extras=SparseExtras(positions, values),
    )


def bits(value: float) -> bytes:
    """Return the bits of a double: NaN is not equal to itself."""
    return np.float64(value).tobytes()


@given(stretches())
def test_observations_come_back_bit_for_bit(observations: Observations) -> None:
    """What is unpacked has the bits of what was packed, NaNs of any payload included."""
    again = chunks.unpack_chunk(chunks.pack_chunk(observations), "a")
    assert same(again, observations)


@given(stretches())
def test_records_from_before_versions_are_read(observations: Observations) -> None:
    """A stretch of record that was stored without a version is read as it was written."""
    observations = replace(observations, extras=NO_EXTRAS)
    packed = chunks.pack_chunk(observations)
    again = chunks.unpack_chunk(seal(packed[:-5]), "a")
    assert chunks.pack_chunk(again) == packed
    assert chunks.lengths_of(seal(packed[:-5])) == chunks.Lengths(len(observations), 0)


@given(stretches())
def test_records_from_before_restored_states_are_read(observations: Observations) -> None:
    """Extras that were stored without the column of restored states are read, and none was restored."""
    extras, reasons = observations.extras, observations.reasons
    kept = np.delete(extras.values, RESTORED, axis=1).astype("<f8").tobytes()
    body = observations.losses.tobytes() + observations.lrs.tobytes() + reasons.tobytes()
    positions, count = extras.positions.astype("<u4").tobytes(), len(extras).to_bytes(4, "little")
    again = chunks.unpack_chunk(seal(body + positions + kept + count + b"\2", chunks.VERSION_SEED), "a")
    extras.values[:, RESTORED] = math.nan
    assert same(again, observations)


def test_a_record_of_a_newer_version_says_so() -> None:
    """A stretch of record in a format that this version does not know is an error that says to upgrade."""
    newer = seal(b"another format" + bytes([chunks.VERSION + 1]), chunks.VERSION_SEED)
    assert chunks.lengths_of(newer) is None
    with raises(Reason.STORE_NEWER, match="the record of run 'a' is of a newer version of mlrs; upgrade"):
        chunks.unpack_chunk(newer, "a")


@given(SNAPSHOTS)
def test_snapshots_come_back_bit_for_bit(snapshot: RunSnapshot) -> None:
    """A snapshot comes back whole."""
    again = codec.unpack_snapshot(codec.pack_snapshot(snapshot), "a")
    for name in ("status", "next_step", "last_reason", "bad_losses"):
        assert getattr(again, name) == getattr(snapshot, name)
    assert bits(again.last_loss) == bits(snapshot.last_loss)
    assert bits(again.last_lr) == bits(snapshot.last_lr)
    assert again.state.tobytes() == snapshot.state.tobytes()


@given(CONFIGS)
def test_configs_come_back_equal(config: RunConfig) -> None:
    """A config comes back with the same fields given, and the same doubles."""
    assert codec.unpack_config(codec.pack_config(config), "a") == (config, 0)
    assert codec.unpack_config(codec.pack_config(config, 7), "a") == (config, 7)


@given(configs(*ScheduleKind))
def test_configs_with_schedules_come_back_equal(config: RunConfig) -> None:
    """A config comes back with its schedule, number for number."""
    assert codec.unpack_config(codec.pack_config(config), "a") == (config, 0)
    assert codec.unpack_config(codec.pack_config(config, 7), "a") == (config, 7)


@given(SEARCHES)
def test_searches_come_back_equal(search: RecordedSearch) -> None:
    """A search comes back with its trials, every double with its bits, NaN and infinities included."""
    again = searches.unpack(searches.pack(search), "a")
    assert repr(again) == repr(search)
    assert [bits(one.loss) for one in again.results] == [bits(one.loss) for one in search.results]


def test_rows_from_before_schedules_are_read() -> None:
    """A config that was stored when there were no schedules is read as one without."""
    body = b'{"horizon": 9, "optimizer": 1}'
    assert codec.unpack_config(seal(body), "a") == (RunConfig(horizon=9, optimizer=Optimizer.SGD), 0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"horizon": 9, "later": 1}',
        b'{"optimizer": 99}',
        b'{"schedule": {"kind": 99, "milestones": null}}',
        b'{"schedule": {"kind": 4, "milestones": null, "later": 1}}',
        b'{"schedule": {"kind": 4, "milestones": null, "final_lr": 7.0}}',
        b'{"found": {"learning_rate": 0.1, "octaves": 1.0, "steps": 3, "charged": false, "later": 1}}',
        b'{"found": {"learning_rate": 0.1}}',
        b"[1]",
        b"[" * 2000,
    ],
)
def test_configs_of_a_newer_version_say_so(body: bytes) -> None:
    """A field, a kind or a value that this version does not know is an error that says to upgrade."""
    with raises(Reason.STORE_NEWER, match="run 'a' is of a newer version of mlrs .*; upgrade mlrs"):
        codec.unpack_config(seal(body), "a")


@pytest.mark.parametrize(
    ("known", "newer"),
    [
        (b'"start"', b'"later"'),
        (b'"start"', b'"later": 1, "start"'),
        (b'"horizon"', b'"later": 1, "horizon"'),
        (b'"loss"', b'"later"'),
        (b'"optimizer": 1', b'"optimizer": 99'),
        (b'"results"', b'"trials"'),
        (b"{", b"["),
        (b"{", b"[" * 2000),
    ],
)
def test_searches_of_a_newer_version_say_so(known: bytes, newer: bytes) -> None:
    """A search with what this version does not know is an error that says to upgrade."""
    body = searches.pack(SEARCH)[:-4]
    assert known in body
    with raises(Reason.STORE_NEWER, match="search of run 'a' is of a newer version of mlrs .*; upgrade mlrs"):
        searches.unpack(seal(body.replace(known, newer)), "a")


def test_a_status_of_a_newer_version_says_so() -> None:
    """A snapshot of a status that this version does not know is an error that says to upgrade."""
    snapshot = RunSnapshot(
        status=RunStatus.ACTIVE,
        next_step=0,
        last_loss=0.0,
        last_lr=0.0,
        last_reason=0,
        bad_losses=0,
        state=np.empty(0, np.float32),
    )
    body = bytearray(codec.pack_snapshot(snapshot)[:-4])
    body[25] = 91
    with raises(Reason.STORE_NEWER, match="run 'a' is of a status, 91, of a newer version of mlrs; upgrade"):
        codec.unpack_snapshot(seal(bytes(body)), "a")


def test_an_empty_state_comes_back_empty() -> None:
    """The snapshot of a run whose policy keeps nothing is stored and read like any."""
    snapshot = first_snapshot(schedule_policy(ScheduleSpec(ScheduleKind.COSINE)))
    assert codec.unpack_snapshot(codec.pack_snapshot(snapshot), "a").state.shape == (0,)


SEARCH = RecordedSearch(
    start="s",
    setup=SearchSetup(horizon=400, optimizer=Optimizer.SGD),
    keep_policy=False,
    charge_steps=True,
    results=(TrialResult(learning_rate=0.1, steps=8, loss=math.nan),),
)
PACKED = [
    (
        chunks.unpack_chunk,
        chunks.pack_chunk(
            Observations(np.array([1.0, math.nan]), np.array([0.1, 0.2]), np.array([1, 3], np.uint8))
        ),
    ),
    (
        codec.unpack_snapshot,
        codec.pack_snapshot(
            RunSnapshot(
                status=RunStatus.ACTIVE,
                next_step=2,
                last_loss=1.0,
                last_lr=0.1,
                last_reason=1,
                bad_losses=0,
                state=np.arange(4, dtype=np.float32),
            )
        ),
    ),
    (codec.unpack_config, codec.pack_config(RunConfig(horizon=1000, scale=0.3))),
    (searches.unpack, searches.pack(SEARCH)),
]


@pytest.mark.parametrize(("unpack", "packed"), PACKED, ids=["observations", "snapshot", "config", "search"])
def test_damage_is_detected(unpack: Any, packed: bytes) -> None:
    """Every flipped byte, and every cut, is found out."""
    unpack(packed, "a")
    for index in range(len(packed)):
        flipped = bytearray(packed)
        flipped[index] ^= 0x10
        with raises(Reason.DAMAGED, match="damaged record of run 'a'"):
            unpack(bytes(flipped), "a")
        with raises(Reason.DAMAGED, match="damaged record of run 'a'"):
            unpack(packed[:index], "a")
