"""Uploaded models: checked on arrival, and never executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_core.config import RunConfig
from mlrs_core.errors import ModelFileError
from mlrs_core.models.checkpoint import dump_model, parse_model
from mlrs_core.networks.drift import DriftSpec
from mlrs_proto import v1 as pb
from tests.core.networks.families import OTHER_CONSTANTS, random_model
from tests.core.runs import Runs
from tests.server.auth.tenants import Caller, upload_of
from tests.server.support import Refusal, advised, create, service
from tests.support.daemon import write_random_model

Code = grpc.StatusCode


@pytest.fixture
async def caller(tmp_path: Path, model_file: Path) -> AsyncIterator[Caller]:
    """A caller of a daemon without tokens, who may do everything."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        yield Caller(stub, None)


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """A model's file."""
    return write_random_model(tmp_path / "other.safetensors", seed=3).read_bytes()


async def test_an_uploaded_model_serves(tmp_path: Path, model_file: Path, data: bytes) -> None:
    """A model that was uploaded, in chunks of any size, is found by name and digest, also after a restart."""
    digest = hashlib.sha256(data).hexdigest()
    async with service(tmp_path / "d", model_file) as (stub, _):
        caller = Caller(stub, None)
        for name, size in (("tiny", 50), ("whole", len(data)), ("some", 777)):
            pieces = upload_of(data, name, digest.upper(), size)
            (answer,) = await caller.call("ImportModel", *pieces)
            assert (answer.model.name, answer.model.digest) == (name, digest)
            assert answer.model.size_bytes == len(data)
        await create(stub, "a", model=f"whole@{digest}", horizon=9)
        lrs = await advised(stub, "a", [1.0, 2.0])
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "a", model="whole")
        await create(stub, "b", model="some", horizon=9)
        assert await advised(stub, "b", [1.0, 2.0]) == lrs


async def test_a_name_is_not_taken_over(caller: Caller, data: bytes, tmp_path: Path) -> None:
    """A taken name, an alias or a malformed name is refused; the same file again is no error."""
    first = await caller.import_model(data, "mine")
    assert await caller.import_model(data, "mine") == first
    other = write_random_model(tmp_path / "x.safetensors", seed=4).read_bytes()
    taken = await caller.refused("ImportModel", *upload_of(other, "mine"))
    assert (taken.code, taken.field) == (Code.ALREADY_EXISTS, "name")
    assert taken.reason == "ERROR_REASON_MODEL_EXISTS"
    for name in ("default", "", "UPPER", "../x", "a!b"):
        refusal = await caller.refused("ImportModel", *upload_of(other, name))
        assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "name")
    (got,) = await caller.call("GetModel", pb.GetModelRequest(model="mine"))
    assert got.model == first


@pytest.mark.parametrize(
    ("kind", "field"),
    [("none", "header"), ("chunk first", "header"), ("header twice", "chunk"), ("empty", "chunk"),
     ("header alone", "chunk"), ("digest", "header.digest")],
)  # fmt: skip
async def test_wrong_messages_are_named(caller: Caller, data: bytes, kind: str, field: str) -> None:
    """What is wrong with the messages of an upload is an error of the field."""
    good = upload_of(data, "m")
    messages = {
        "none": [],
        "chunk first": good[1:],
        "header twice": [good[0], good[1], good[0]],
        "empty": [good[0], pb.ImportModelRequest()],
        "header alone": good[:1],
        "digest": upload_of(data, "m", "0" * 64),
    }[kind]
    refusal = await caller.refused("ImportModel", *messages)
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, field)


async def test_a_model_is_served_under_its_own_constants(caller: Caller) -> None:
    """A model with constants of its own is advised by them, beside one with the first; so says its JSON."""
    first, other = DriftSpec(hidden_size=4), DriftSpec(hidden_size=4, constants=OTHER_CONSTANTS)
    advice = []
    for name, spec in (("first", first), ("other", other)):
        model = random_model(spec, 5, snapshots=1)
        await caller.import_model(dump_model(model), name)
        (got,) = await caller.call("GetModel", pb.GetModelRequest(model=name))
        assert json.loads(got.model.architecture_json) == spec.to_json()
        await create(caller.stub, name, model=name, horizon=40)
        losses = [2.0, 1.5, 1.2, 3.0, 0.4]
        advice.append(await advised(caller.stub, name, losses))
        runs = Runs(model.policy(), [RunConfig(horizon=40)])
        assert advice[-1] == [float(runs.advise(step, [loss])[0]) for step, loss in enumerate(losses)]
    assert advice[0] != advice[1]


async def test_a_newer_feature_set_is_refused(caller: Caller) -> None:
    """A model of a feature set that this daemon does not know is refused: which it is, and what it knows."""
    header, _, body = dump_model(random_model(DriftSpec(hidden_size=4), 5)).partition(b'\\"hidden_size')
    data = header + b'\\"features\\":7,\\"hidden_size' + body
    data = (int.from_bytes(data[:8], "little") + len(b'\\"features\\":7,')).to_bytes(8, "little") + data[8:]
    refusal = await caller.refused("ImportModel", *upload_of(data, "newer"))
    assert (refusal.code, refusal.field) == (Code.FAILED_PRECONDITION, "model")
    assert "features: version 7 is unknown; this version of mlrs knows: 1" in refusal.message


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a model file was run')",)


def _header(text: object) -> bytes:
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return len(raw).to_bytes(8, "little") + raw


async def test_what_is_no_model_is_refused(caller: Caller, data: bytes) -> None:
    """Pickles, headers that lie about lengths, and rubbish are refused as models; the daemon continues."""
    bad: dict[str, bytes] = {
        "pickle": pickle.dumps(_Bomb()),
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "long header": (2**63).to_bytes(8, "little") + data[8:],
        "all header": (len(data) - 8).to_bytes(8, "little") + data[8:],
        "huge header": _header(b"[" * 2**20 + b" " * 10),
        "deep header": _header(b"[" * 500_000),
        "cut": data[:-1],
        "more": data + b"x",
        "short": b"\1",
    }
    for name, file in bad.items():
        refusal = await caller.refused("ImportModel", *upload_of(file, "bad", size=100_000))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ERROR_REASON_MODEL_INVALID"), (
            name
        )
    assert "bad" not in {
        model.name for model in (await caller.call("ListModels", pb.ListModelsRequest()))[0].models
    }
    await caller.import_model(data, "good")


def _mutations(data: bytes, rng: random.Random) -> bytes:
    """Return a file with its header, its length or its bytes changed."""
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:end])
    tensors = [name for name in header if name != "__metadata__"]
    tensor = header[rng.choice(tensors)]
    huge = rng.choice([-1, 0, 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, rng.randrange(10**6)])
    match rng.randrange(7):
        case 0:
            tensor["shape"] = [huge, *tensor["shape"][1:]]
        case 1:
            tensor["shape"] = [huge, 0]
        case 2:
            tensor["data_offsets"] = rng.choice([[0, huge], [huge, huge], [huge, 0]])
        case 3:
            tensor["dtype"] = rng.choice(["F64", "U8", "BF16", "F8_E4M3", "BOOL", "C64", "x", 3])
        case 4:
            text = header["__metadata__"]["mlrs"]
            at = rng.randrange(len(text))
            header["__metadata__"]["mlrs"] = text[:at] + rng.choice('0123456789{}[]",:') + text[at + 1 :]
        case 5:
            metadata = json.loads(header["__metadata__"]["mlrs"])
            name = rng.choice(sorted(metadata["architecture"]))
            metadata["architecture"][name] = huge
            header["__metadata__"]["mlrs"] = json.dumps(metadata)
        case _:
            raw = bytearray(data)
            for _ in range(rng.randrange(1, 5)):
                raw[rng.randrange(min(len(raw), end + 50))] = rng.randrange(256)
            return bytes(raw)
    return _header(header) + data[end:]


def test_mutated_files_cost_no_memory(data: bytes) -> None:
    """Of 3,000 files that lie about extents and sizes, none costs more than a few times its bytes."""
    rng = random.Random(11)  # noqa: S311  # mutations, not secrets
    refused = 0
    parse_model(data)
    tracemalloc.start()
    try:
        for _ in range(3000):
            file = _mutations(data, rng)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            try:
                parse_model(file)
            except ModelFileError:
                refused += 1
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 20 * len(file) + 100_000
    finally:
        tracemalloc.stop()
    assert refused > 2000


async def test_aliases_move(caller: Caller, data: bytes) -> None:
    """An alias of a name goes where the name goes, one of a reference stays; both find the model."""
    model = await caller.import_model(data, "mine")
    for alias, target in (("stable", "mine"), ("pinned", model.ref)):
        (answer,) = await caller.call("SetAlias", pb.SetAliasRequest(alias=alias, model=target))
        assert answer.model.ref == model.ref
    (got,) = await caller.call("GetModel", pb.GetModelRequest(model="stable"))
    assert list(got.model.aliases) == ["pinned", "stable"]
    await caller.call("SetAlias", pb.SetAliasRequest(alias="stable", model="paper"))
    (got,) = await caller.call("GetModel", pb.GetModelRequest(model="stable"))
    assert got.model.name == "paper"


@pytest.mark.parametrize(
    ("alias", "model", "code", "field"),
    [
        ("", "small", Code.INVALID_ARGUMENT, "alias"),
        ("a!b", "small", Code.INVALID_ARGUMENT, "alias"),
        ("a", "", Code.INVALID_ARGUMENT, "model"),
        ("a", "nobody", Code.NOT_FOUND, "model"),
        ("small", "paper", Code.INVALID_ARGUMENT, "alias"),
        ("default", "paper", Code.INVALID_ARGUMENT, "alias"),
    ],
)
async def test_wrong_aliases_are_named(
    caller: Caller, alias: str, model: str, code: grpc.StatusCode, field: str
) -> None:
    """An alias that is malformed, a model's name or the flag's, and a model that is not there, are named."""
    refusal: Refusal = await caller.refused("SetAlias", pb.SetAliasRequest(alias=alias, model=model))
    assert (refusal.code, refusal.field) == (code, field)
