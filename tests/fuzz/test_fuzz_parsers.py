"""Damaged model files, configs, store blobs and messages, in process: a value, or a refusal with a reason."""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.models.checkpoint import parse_model
from mlrs_proto import v1 as pb
from mlrs_server.config import load_config
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.observations import Entries
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.rpc import convert
from mlrs_server.rpc.status import as_advisor_error
from mlrs_server.storage import Observations, chunks, codec
from mlrs_server.storage.sealing import SEED
from tests.fuzz.mutation import extreme, mutated
from tests.support.daemon import write_random_model
from tests.support.process import MIB, resident_bytes
from tests.support.reliability import save

Parser = Callable[[bytes], object]
SLOWEST_S = 5.0
"""No input may take longer: it would be a hang, or work that grows faster than the input."""
GROWTH = 32 * MIB
"""What a process may grow by once it is warm: nothing is kept of an input."""
CONFIG = b"""
listen = "127.0.0.1:50051"
data_dir = "/tmp/somewhere"
flush_interval_s = 0.25
max_unflushed = 1000
log_level = "debug"
"""


def of_models(folder: Path) -> tuple[Parser, list[bytes]]:
    """Model files: whole ones of two shapes to begin with."""
    sizes = (2, 3)
    files = [write_random_model(folder / f"{size}.safetensors", hidden_size=size) for size in sizes]
    return parse_model, [file.read_bytes() for file in files]


def of_configs(folder: Path) -> tuple[Parser, list[bytes]]:
    """Files of settings."""
    file = folder / "mlrs.toml"

    def parse(data: bytes) -> object:
        file.write_bytes(data)
        return load_config(file, {})

    return parse, [CONFIG, b"listen = 'unix:/tmp/x'\nmodel = 'a'\n"]


def _sealed(parse: Callable[[bytes, str], object], seed: int = SEED) -> Parser:
    """Return a parser of blobs whose checksum is right, whatever else is not, every other time."""
    turn = 0

    def parse_blob(data: bytes) -> object:
        nonlocal turn
        turn += 1
        if turn % 2:
            data += zlib.crc32(data, seed).to_bytes(4, "little")
        return parse(data, "run")

    return parse_blob


def of_records(_: Path) -> tuple[Parser, list[bytes]]:
    """Stretches of record in the store."""
    record = Observations(np.arange(5.0), np.arange(5.0), np.ones(5, np.uint8))
    return _sealed(chunks.unpack_chunk, chunks.VERSION_SEED), [chunks.pack_chunk(record)[:-4]]


def of_snapshots(_: Path) -> tuple[Parser, list[bytes]]:
    """Snapshots in the store."""
    snapshot = RunSnapshot(
        status=RunStatus.ACTIVE,
        next_step=3,
        last_loss=1.0,
        last_lr=0.1,
        last_reason=1,
        bad_losses=0,
        state=np.ones(6, np.float32),
    )
    return _sealed(codec.unpack_snapshot), [codec.pack_snapshot(snapshot)[:-4]]


def of_run_configs(_: Path) -> tuple[Parser, list[bytes]]:
    """Configs of runs in the store."""
    spec = ScheduleSpec(ScheduleKind.MULTI_STEP, base_lr=0.1, milestones=(3, 5)).resolved()
    configs = [RunConfig(horizon=10, num_classes=3, momentum=0.9), RunConfig(schedule=spec, horizon=9)]
    return _sealed(codec.unpack_config), [codec.pack_config(config)[:-4] for config in configs]


def of_messages(_: Path) -> tuple[Parser, list[bytes]]:
    """Requests: parsed, and converted to what the daemon works with."""
    chance = random.Random(5)  # noqa: S311  # a test's dice
    kinds: dict[Any, Callable[[Any], object]] = {
        pb.OpenRunRequest: lambda message: convert.opening_from_proto(message, tenant="default"),
        pb.StreamAdviceRequest: lambda message: convert.entries_from_proto(message.observations),
        pb.ListRunsRequest: lambda message: (
            convert.page_size_from_proto(message.page_size),
            convert.status_from_proto(message.status),
            convert.list_position_from_proto(message.order_by, message.page_token),
        ),
        pb.SummarizeRecordRequest: convert.summary_from_proto,
        pb.SampleRecordsRequest: convert.samples_from_proto,
        pb.AdviseRequest: lambda message: convert.step_from_proto(message.step, "step"),
        pb.RunConfig: convert.config_from_proto,
    }
    seeds = [extreme(kind(), chance).SerializeToString() for kind in kinds for _ in range(40)]
    order = list(kinds)

    def parse(data: bytes) -> object:
        kind = order[len(data) % len(order)]
        converted = kinds[kind](kind.FromString(data))
        assert not isinstance(converted, Entries) or len(converted) > 0
        return converted

    return parse, seeds


TARGETS = {
    "models": (of_models, 300_000),
    "configs": (of_configs, 20_000),
    "records": (of_records, 150_000),
    "snapshots": (of_snapshots, 150_000),
    "run_configs": (of_run_configs, 150_000),
    "messages": (of_messages, 500_000),
}
"""How many inputs each gets in the long test."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(0.01, id="some"),
        pytest.param(1.0, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_damaged_input_is_refused_with_a_reason(tmp_path: Path, target: str, scale: float) -> None:
    """No input crashes a parser, hangs it, or leaves memory behind; each is a value, or refused."""
    began = time.monotonic()
    make, most = TARGETS[target]
    parse, seeds = make(tmp_path)
    chance = random.Random(os.environ.get("MLRS_FUZZ_SEED", target))  # noqa: S311  # a test's dice
    count = int(most * scale)
    accepted, slowest_s, warm = 0, 0.0, 0
    for number in range(count):
        data = mutated(chance.choice(seeds), chance, seeds)
        started = time.monotonic()
        try:
            parse(data)
            accepted += 1
        except DecodeError:
            pass
        except Exception as error:
            if as_advisor_error(error) is None:
                raise AssertionError(f"input {number}, {data!r}: {error!r}") from error
        slowest_s = max(slowest_s, time.monotonic() - started)
        if number == count // 5:
            warm = resident_bytes()
    grown = resident_bytes() - warm
    assert slowest_s < SLOWEST_S
    assert accepted < count
    assert grown < GROWTH
    if scale == 1.0:
        save(
            f"fuzz_{target}",
            "pytest -m slow tests/fuzz",
            began,
            time.monotonic(),
            inputs=count,
            accepted=accepted,
            crashes=0,
            slowest_s=round(slowest_s, 4),
            memory_growth_mib=round(grown / MIB, 1),
        )
