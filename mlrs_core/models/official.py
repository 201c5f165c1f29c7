"""Import of the weights that the MLR-SNet authors published: torch files, one per snapshot.

Needs torch, and is the only module that reads its files; with `weights_only=True`, nothing in them
runs. The daemon never imports this module.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mlrs_core.errors import InvalidFieldError, ModelFileError
from mlrs_core.models.model import Model
from mlrs_core.networks import Weights
from mlrs_core.networks.paper import GateLayout, PaperSpec


def import_official(paths: Sequence[Path], *, gate_layout: GateLayout) -> Model:
    """Return the authors' files, one per snapshot and in that order, as a model.

    Args:
        paths: files that hold a state dict with the authors' names.
        gate_layout: `ifgo` for weights of their meta-test code, `ifog` for their meta-train code;
            the files do not say.

    Raises:
        ModelFileError: there is no file, one is not such a state dict, or they differ in shape.
        OSError: a file cannot be read.
    """
    if not paths:
        raise ModelFileError("a model needs at least one file")
    contents = [path.read_bytes() for path in paths]
    snapshots = [_read(path, data) for path, data in zip(paths, contents, strict=True)]
    specs = [_spec_of(path, weights, gate_layout) for path, weights in zip(paths, snapshots, strict=True)]
    for path, spec in zip(paths, specs, strict=True):
        if spec != specs[0]:
            raise ModelFileError(f"{path}: {spec} differs from the first file's {specs[0]}")
    provenance = {
        "method": "imported from the authors' files",
        "files": [
            {"name": path.name, "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in zip(paths, contents, strict=True)
        ],
    }
    return Model(architecture=specs[0], snapshots=tuple(snapshots), provenance=provenance)


def _read(path: Path, data: bytes) -> Weights:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the legacy format that these files have
            loaded: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever a broken file makes it trip over
        # Its message is not passed on: torch's advice is to load the file in the way that runs code.
        raise ModelFileError(
            f"{path}: not a torch file of plain tensors ({type(error).__name__}); nothing in it was run. "
            "Take the file from where the authors published it"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ModelFileError(f"{path}: must hold a state dict of tensors, holds {type(loaded).__name__}")
    return {_rename(path, str(name)): _array(path, name, value) for name, value in loaded.items()}


def _array(path: Path, name: str, value: torch.Tensor) -> npt.NDArray[np.float32]:
    if value.layout != torch.strided or not value.is_floating_point():
        raise ModelFileError(f"{path}: weight {name!r} must be dense and of floats, is {value.dtype}")
    return value.detach().to(torch.float32).numpy()


def _rename(path: Path, name: str) -> str:
    """Return our name of an authors' weight: `layer1` is the first cell, `layer2` holds the others."""
    if match := re.fullmatch(r"layer1\.fc_(i2h|h2h)\.(.+)", name):
        return f"layers.0.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"layer2\.(\d{1,3})\.fc_(i2h|h2h)\.(.+)", name):
        return f"layers.{int(match[1]) + 1}.{match[2]}.{match[3]}"
    if match := re.fullmatch(r"layer3\.(weight|bias)", name):
        return f"head.{match[1]}"
    raise ModelFileError(f"{path}: weight {name!r} is not one of the authors' MLR-SNet")


def _spec_of(path: Path, weights: Weights, gate_layout: GateLayout) -> PaperSpec:
    head = weights.get("head.weight")
    if head is None or head.ndim != 2:
        raise ModelFileError(f"{path}: has no layer3.weight of two dimensions")
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    try:
        return PaperSpec(hidden_size=head.shape[1], num_layers=len(layers), gate_layout=gate_layout)
    except InvalidFieldError as error:
        raise ModelFileError(f"{path}: {error}") from error
