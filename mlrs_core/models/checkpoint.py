"""Models as safetensors files.

Tensors are named `snapshots.<k>.<weight>`; everything else is canonical JSON in one metadata entry,
so that equal models give equal bytes. A model's digest is the SHA-256 of its file. Nothing in a file
is ever executed, and its header is checked before anything of its size is allocated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mlrs_core.errors import ModelFileError
from mlrs_core.models.model import Model
from mlrs_core.networks import architecture_from_json

FORMAT = 1
"""The version of the metadata's layout."""
METADATA_KEY = "mlrs"
"""The metadata entry that holds everything but the weights."""
MAX_FILE_BYTES = 256 * 2**20
"""The largest model file that is read. One snapshot of the largest architecture has 158 MiB."""
MAX_HEADER_BYTES = 2**20
"""The largest header that is parsed."""


def dump_model(model: Model) -> bytes:
    """Return the file of a model; equal models give equal bytes."""
    tensors = {
        f"snapshots.{index}.{name}": np.ascontiguousarray(array)
        for index, weights in enumerate(model.snapshots)
        for name, array in weights.items()
    }
    metadata = {
        "format": FORMAT,
        "architecture": model.architecture.to_json(),
        "snapshots": len(model.snapshots),
        "provenance": dict(model.provenance),
    }
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return save(tensors, metadata={METADATA_KEY: text})


def digest_of(data: bytes) -> str:
    """Return the digest of a model's file: its SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def parse_model(data: bytes) -> Model:
    """Return the model in a file's bytes.

    Raises:
        ModelFileError: they are not a model's file; the message says what is wrong.
    """
    metadata = _metadata(data)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"not a readable safetensors file: {error}") from error
    count = metadata["snapshots"]
    indices = {str(index): index for index in range(count)}
    snapshots: list[dict[str, npt.NDArray[np.float32]]] = [{} for _ in range(count)]
    for name, array in tensors.items():
        prefix, _, rest = name.partition(".")
        index, _, weight = rest.partition(".")
        if prefix != "snapshots" or index not in indices:
            raise ModelFileError(f"tensor {name!r} belongs to none of the {count} snapshots")
        snapshots[indices[index]][weight] = array
    return Model(
        architecture=architecture_from_json(metadata["architecture"]),
        snapshots=tuple(snapshots),
        provenance=metadata["provenance"],
    )


def read_model(path: Path) -> tuple[Model, str]:
    """Return the model in a file, and its digest.

    Raises:
        ModelFileError: the file is not a model; the message names it.
        OSError: the file cannot be read.
    """
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: {size} bytes; a model file has at most {MAX_FILE_BYTES}")
    data = path.read_bytes()
    try:
        return parse_model(data), digest_of(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _metadata(data: bytes) -> dict[str, Any]:
    """Return the checked metadata of a file, without touching its tensors."""
    is_pickle = data.startswith((b"PK", b"\x80"))  # but so can a header's length begin
    if is_pickle and data[8:9] != b"{":
        raise ModelFileError(
            "a PyTorch pickle, which is never loaded as a model; give the authors' files, named .pth, to "
            "`mlrs models import`"
        )
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ModelFileError(f"not a safetensors file, or cut off after {len(data)} bytes")
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(f"its header has {length} bytes; at most {MAX_HEADER_BYTES} are read")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = json.loads(header["__metadata__"][METADATA_KEY])
        json.dumps(metadata, allow_nan=False)  # what cannot be written again is not read
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"no metadata of an mlrs model in its header ({error!r})") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ModelFileError(f"its metadata is not of format {FORMAT}, which this version reads")
    if not isinstance(metadata.get("architecture"), Mapping):
        raise ModelFileError("its metadata lacks the architecture")
    if not isinstance(metadata.get("provenance"), Mapping):
        raise ModelFileError("its metadata lacks the provenance")
    count = metadata.get("snapshots")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 64:
        raise ModelFileError(f"its metadata gives {count!r} snapshots; must be 1 to 64")
    return metadata
