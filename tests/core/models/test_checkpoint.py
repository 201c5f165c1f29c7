"""Models as files: the same bytes for the same model, and an error for every other file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from mlrs_core.errors import MAX_MESSAGE, ModelFileError
from mlrs_core.models.checkpoint import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    digest_of,
    dump_model,
    parse_model,
    read_model,
)
from mlrs_core.models.model import MAX_WEIGHT, Model
from mlrs_core.networks import Architecture
from mlrs_core.networks.paper import PaperSpec
from tests.core.networks.families import SMALL, label, random_model

REPOSITORY = Path(__file__).parents[3]
TINY = PaperSpec(hidden_size=2)
DATA = dump_model(random_model(TINY))
"""A good file of 3 snapshots, to be broken in every way."""

Json = dict[str, Any]


def split(data: bytes) -> tuple[Json, bytes]:
    """Return a file's header and its tensors' bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def join(header: object, body: bytes) -> bytes:
    """Return the file of a header, given as JSON or as its bytes, and tensors' bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def with_metadata(text: str) -> bytes:
    """Return the good file with another metadata text."""
    header, body = split(DATA)
    header["__metadata__"]["mlrs"] = text
    return join(header, body)


def with_fields(**fields: object) -> bytes:
    """Return the good file with some metadata fields replaced, or removed where None."""
    metadata = json.loads(split(DATA)[0]["__metadata__"]["mlrs"]) | fields
    return with_metadata(json.dumps({name: value for name, value in metadata.items() if value is not None}))


def with_tensors(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the good file with its tensors changed in place by a function."""
    model = parse_model(DATA)
    tensors: dict[str, Any] = {
        f"snapshots.{index}.{name}": array.copy()
        for index, weights in enumerate(model.snapshots)
        for name, array in weights.items()
    }
    change(tensors)
    return save(tensors, metadata={"mlrs": split(DATA)[0]["__metadata__"]["mlrs"]})


def torch_file(*, legacy: bool) -> bytes:
    """Return a state dict as torch saves it."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------ good files


@pytest.mark.parametrize("snapshots", [1, 3, 12])
@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_round_trip_keeps_every_bit(spec: Architecture, snapshots: int) -> None:
    """A model is read back as it was written: architecture, weights to the bit, provenance."""
    model = random_model(spec, snapshots=snapshots)
    back = parse_model(dump_model(model))
    assert back.architecture == model.architecture
    assert back.provenance == model.provenance
    assert len(back.snapshots) == snapshots
    for before, after in zip(model.snapshots, back.snapshots, strict=True):
        assert {name: array.tobytes() for name, array in before.items()} == {
            name: array.tobytes() for name, array in after.items()
        }


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_equal_models_give_equal_bytes(spec: Architecture) -> None:
    """A file written again from what was read is the same file, so its digest names its content."""
    data = dump_model(random_model(spec))
    assert dump_model(parse_model(data)) == data


def test_order_of_weights_and_provenance_does_not_matter() -> None:
    """Models that differ only in the order of their mappings, or in memory layout, give equal bytes."""
    model = random_model(TINY)
    shuffled = Model(
        architecture=TINY,
        snapshots=tuple(
            {name: np.asfortranarray(weights[name]) for name in reversed(list(weights))}
            for weights in model.snapshots
        ),
        provenance=dict(reversed(list(model.provenance.items()))),
    )
    assert dump_model(shuffled) == dump_model(model)


def test_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    """A model's digest is what `sha256sum` says of its file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA)
    model, digest = read_model(path)
    assert digest == digest_of(DATA) == hashlib.sha256(DATA).hexdigest()
    assert model.architecture == TINY


def test_other_processes_write_the_same_bytes() -> None:
    """Processes with other hash seeds write the file that this one writes."""
    script = (
        "from tests.core.networks.families import PaperSpec, random_model\n"
        "from mlrs_core.models.checkpoint import digest_of, dump_model\n"
        "print(digest_of(dump_model(random_model(PaperSpec(hidden_size=2)))))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert [process.communicate()[0].strip() for process in processes] == [digest_of(DATA)] * 2


def test_format_is_pinned() -> None:
    """The file of a fixed model never changes: a change here would rename every model there is."""
    zeros = {name: np.zeros(shape, np.float32) for name, shape in TINY.weight_shapes().items()}
    model = Model(architecture=TINY, snapshots=(zeros,), provenance={"method": "zeros", "seed": 0})
    assert digest_of(dump_model(model)) == "bbe3c654d80fa543a5c0b679c645fed15f56f5992496359037de2c2358038551"


def test_model_without_snapshots_is_refused() -> None:
    """A model has at least one snapshot."""
    with pytest.raises(ModelFileError, match="at least one snapshot"):
        Model(architecture=TINY, snapshots=(), provenance={})


# ------------------------------------------------------------------------------------- bad files


def test_file_cut_off_anywhere_is_refused() -> None:
    """Every proper beginning of a model's file is refused."""
    for length in range(len(DATA)):
        with pytest.raises(ModelFileError):
            parse_model(DATA[:length])


def test_bytes_after_the_end_are_refused() -> None:
    """A file with something behind its tensors is refused: its digest would not name the model."""
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        parse_model(DATA + b"\0")


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_raises_nothing_else(seed: int) -> None:
    """Of thousands of damaged files each is a model that steps, or a ModelFileError."""
    rng = random.Random(seed)  # noqa: S311 -- damage is not a secret
    header_end = 8 + int.from_bytes(DATA[:8], "little")
    survivors = 0
    for _ in range(3000):
        data = bytearray(DATA)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(data) if rng.random() < 0.2 else header_end)
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    del data[at : at + rng.randrange(1, 5)]
                case _:
                    data[at:at] = data[max(0, at - 9) : at]
        try:
            model = parse_model(bytes(data))
        except ModelFileError:
            continue
        survivors += 1
        assert dump_model(parse_model(dump_model(model))) == dump_model(model)
    assert survivors < 600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("snapshots.1.head.bias"), r"snapshots\.1: weights missing: \['head\.bias'\]"),
        (lambda t: t.update({"snapshots.2.tail": np.ones(1, np.float32)}), r"unknown: \['tail'\]"),
        (lambda t: t.update({"snapshots.3.head.bias": np.ones(1, np.float32)}), "none of the 3 snapshots"),
        (lambda t: t.update({"snapshots.00.head.bias": np.ones(1, np.float32)}), "none of the 3 snapshots"),
        (
            lambda t: t.update({f"snapshots.{'1' * 5000}.x": np.ones(1, np.float32)}),
            r"tensor 'snapshots\.111",
        ),
        (lambda t: t.update({"head.bias": np.ones(1, np.float32)}), "'head.bias' belongs to none"),
        (lambda t: t.update({"snapshots.0.head.bias": np.ones(2, np.float32)}), r"shape \(1,\).*of \(2,\)"),
        (lambda t: t.update({"snapshots.0.head.bias": np.ones((), np.float32)}), r"snapshots\.0\.head\.bias"),
        (lambda t: t.update({"snapshots.0.head.bias": np.ones(0, np.float32)}), r"snapshots\.0\.head\.bias"),
        (lambda t: t.update({"snapshots.0.head.bias": np.ones(1)}), r"must be float32.*is float64"),
        (lambda t: t.update({"snapshots.0.head.bias": np.ones(1, np.float16)}), r"is float16"),
        (lambda t: t.update({"snapshots.0.head.bias": np.ones(1, np.int32)}), r"is int32"),
        (lambda t: t["snapshots.1.head.weight"].fill(np.nan), r"snapshots\.1\.head\.weight: holds values"),
        (lambda t: t["snapshots.1.head.weight"].fill(-np.inf), r"snapshots\.1\.head\.weight: holds values"),
        (lambda t: t["snapshots.1.head.weight"].fill(2 * MAX_WEIGHT), r"beyond 1e\+09"),
        (lambda t: t.clear(), r"snapshots\.0: weights missing"),
    ],
)
def test_wrong_tensors_are_named(change: Callable[[dict[str, Any]], object], said: str) -> None:
    """A tensor missing, extra, of the wrong shape or type, or not finite, is refused by name."""
    with pytest.raises(ModelFileError, match=said):
        parse_model(with_tensors(change))


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F4", "C64", "BOOL", "X", 7, None])
def test_foreign_element_types_are_refused(dtype: object) -> None:
    """An element type that NumPy lacks, or that nobody knows, is refused."""
    header, body = split(DATA)
    header["snapshots.0.head.bias"]["dtype"] = dtype
    with pytest.raises(ModelFileError):
        parse_model(join(header, body))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": 2}, "not of format 1"),
        ({"format": None}, "not of format 1"),
        ({"architecture": None}, "lacks the architecture"),
        ({"architecture": []}, "lacks the architecture"),
        ({"architecture": {}}, "kind None is unknown"),
        ({"architecture": {"kind": "gru"}}, "'gru' is unknown; this version knows: drift, paper"),
        ({"architecture": {"kind": "paper", "hidden_size": 0}}, "hidden_size: must be a whole number"),
        ({"architecture": {"kind": "paper", "hidden_size": 10**40}}, "hidden_size"),
        ({"architecture": {"kind": "paper", "depth": 3}}, "depth"),
        ({"architecture": {"kind": "paper", "self": 3}}, "self"),
        ({"architecture": {"kind": "paper"}}, r"snapshots\.0\.\S+: must be float32 of shape"),
        ({"provenance": None}, "lacks the provenance"),
        ({"provenance": "trust me"}, "lacks the provenance"),
        ({"provenance": {"loss": float("nan")}}, "no metadata"),
        ({"snapshots": None}, "None snapshots; must be 1 to 64"),
        ({"snapshots": 0}, "0 snapshots"),
        ({"snapshots": 65}, "65 snapshots"),
        ({"snapshots": True}, "True snapshots"),
        ({"snapshots": "3"}, "'3' snapshots"),
        ({"snapshots": 2}, "belongs to none of the 2 snapshots"),
        ({"snapshots": 4}, r"snapshots\.3: weights missing"),
    ],
)
def test_wrong_metadata_is_named(fields: Json, said: str) -> None:
    """A metadata field missing or out of range is refused by name."""
    with pytest.raises(ModelFileError, match=said):
        parse_model(with_fields(**fields))


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        7,
        {"__metadata__": None},
        {"__metadata__": {}},
        {"__metadata__": {"mlrs": None}},
        {"__metadata__": {"mlrs": 7}},
        {"__metadata__": {"mlrs": "{"}},
        {"__metadata__": {"mlrs": "[]"}},
        {"__metadata__": {"mlrs": "null"}},
        b"",
        b"\xff\xfe\x00",
        b"{" * 1000,
        b"9" * 5000,
    ],
    ids=lambda header: repr(header)[:40],
)
def test_headers_of_other_files_are_refused(header: object) -> None:
    """A safetensors file that is not a model's, and a header that is no JSON, is refused."""
    with pytest.raises(ModelFileError, match="metadata"):
        parse_model(join(header, b""))


@pytest.mark.parametrize("field", ["kind", "hidden_size", "gate_layout", "extra"])
def test_deep_nesting_is_refused(field: str) -> None:
    """No depth of nesting, below or above what the parser takes, ends in anything but a refusal."""
    template = json.dumps({"format": 1, "architecture": {"kind": "paper"} | {field: "@"}})
    for depth in (2, 500, *range(900, 1000), 100_000):
        with pytest.raises(ModelFileError):
            parse_model(with_metadata(template.replace('"@"', "[" * depth + "]" * depth)))
    with pytest.raises(ModelFileError):
        parse_model(join(b'{"__metadata__":' + b'{"a":' * 100_000, b""))


@pytest.mark.parametrize("length", [len(DATA), MAX_HEADER_BYTES + 1, 2**40, 2**63, 2**64 - 1])
def test_header_longer_than_the_file_is_refused(length: int) -> None:
    """A header length beyond the file's end is refused before anything of that size is allocated."""
    with pytest.raises(ModelFileError, match="cut off"):
        parse_model(length.to_bytes(8, "little") + DATA[8:])


def test_header_beyond_the_limit_is_refused() -> None:
    """A header that is there, but longer than any model's, is not parsed."""
    with pytest.raises(ModelFileError, match=f"at most {MAX_HEADER_BYTES}"):
        parse_model(join(b" " * (MAX_HEADER_BYTES + 1), b""))


@pytest.mark.parametrize(
    "data",
    [torch_file(legacy=False), torch_file(legacy=True), *(pickle.dumps([1], n) for n in (2, 5))],
    ids=["zip", "legacy", "protocol 2", "protocol 5"],
)
def test_pickles_are_refused_with_the_way_out(data: bytes) -> None:
    """A pickle is distinguished from a damaged file, never loaded, and the command to convert it named."""
    with pytest.raises(ModelFileError, match="mlrs models import"):
        parse_model(data)


@pytest.mark.parametrize("length", [0x4B50, 0x1080], ids=["PK", "0x80"])
def test_header_length_that_looks_like_a_pickle_is_none(length: int) -> None:
    """A good file whose first bytes, its header's length, happen to be those of a pickle is read."""
    header, body = split(DATA)
    data = join(json.dumps(header).encode().ljust(length), body)
    assert data.startswith((b"PK", b"\x80"))
    assert parse_model(data).architecture == TINY


def test_errors_name_the_file(tmp_path: Path) -> None:
    """An error about a file begins with its path."""
    path = tmp_path / "broken.safetensors"
    path.write_bytes(DATA[:100])
    with pytest.raises(ModelFileError, match=r"broken\.safetensors: .*cut off after 100 bytes"):
        read_model(path)


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A file beyond the size limit is refused by its size alone."""
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelFileError, match=r"huge\.safetensors: \d+ bytes; .* at most"):
        read_model(path)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """A file that is not there is the operating system's error, not the model's."""
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "nowhere")


def test_messages_are_short_whatever_the_file_holds() -> None:
    """A message that quotes a file is cut, so that it fits into a status."""
    for data in (
        with_fields(architecture={"kind": "x" * 100_000}),
        with_tensors(lambda tensors: tensors.update({f"x{'y' * 50_000}": np.ones(1, np.float32)})),
    ):
        with pytest.raises(ModelFileError) as caught:
            parse_model(data)
        assert len(str(caught.value)) <= MAX_MESSAGE


def test_header_of_any_length_is_read() -> None:
    """A file whose header's length begins with the byte that pickles begin with is read like any other."""
    first_bytes = set()
    for padding in range(0, 256, 8):
        model = Model(
            architecture=TINY,
            snapshots=random_model(TINY).snapshots,
            provenance={"method": "x" * padding},
        )
        data = dump_model(model)
        first_bytes.add(data[0])
        assert dump_model(parse_model(data)) == data
    assert 0x80 in first_bytes
