"""The state of an unfinished training as a file: tensors and plain values, never code.

A checkpoint replaces the one before it in one move, so that a training killed at any moment leaves a
whole one behind.
"""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from mlrs_train.errors import CheckpointError

FORMAT = 1
"""The version of the layout."""


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that it holds either what it held or all of `data`, whatever happens."""
    fresh = path.with_name(f"{path.name}.part")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Write tensors and plain values to a file, in one move."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **contents}, buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is cut off, damaged, of another format, or holds more than tensors
            and plain values.
        OSError: the file cannot be read.
    """
    data = io.BytesIO(path.read_bytes())  # of a file that is cut off, torch would say "invalid argument"
    try:
        contents = torch.load(data, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint at all: it cannot be resumed; train anew in another folder"
        ) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}, which this version reads")
    return contents
