"""What a result depends on that is code: as text and digests, so that changed code is seen.

Functions are followed into their closures and defaults, partials into their arguments and objects into
their fields; not into the functions that they call.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import metadata, resources
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import Tensor

TRAINING_FILES = ("training.py", "rules.py", "curve.py", "methods/method.py")
"""The benchmark's own files that all results depend on; tasks have fingerprints of their own."""
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""What differs between two `repr` of the same object."""
DEPTH = 6
"""How far values are followed: further ones count by their type, so that cycles end."""


@functools.cache
def code_digest(files: tuple[str, ...], core_files: tuple[str, ...]) -> str:
    """Return a digest of what trains here, of some files of `mlrs_core`, and of the libraries that compute.

    Args:
        files: the files of a method in `mlrs_bench.methods`.
        core_files: patterns of the files in `mlrs_core`.
    """
    own, core = (Path(str(resources.files(package))) for package in ("mlrs_bench", "mlrs_core"))
    state = hashlib.sha256(digest_of_files(core, core_files).encode())
    methods = [f"methods/{file}" for file in files]
    state.update(digest_of_files(own, [*TRAINING_FILES, *methods]).encode())
    for package in ("numpy", "torch"):
        state.update(f"{package} {metadata.version(package)}".encode())
    return state.hexdigest()


def digest_of_files(folder: Path, patterns: Iterable[str]) -> str:
    """Return a digest of the names and contents of a folder's files that match."""
    state = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        content = path.read_bytes()
        state.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        state.update(content)
    return state.hexdigest()


def described(value: object, depth: int = DEPTH) -> str:
    """Return text that is the same in every process, and another one for another function or value."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.tolist()}"
    parts = _parts(value)
    if parts is None:
        return ADDRESS.sub("", repr(value))
    inner = [described(part, depth - 1) for part in parts] if depth else []
    if isinstance(value, Mapping | set | frozenset):
        inner.sort()
    return f"{type(value).__qualname__}({', '.join(inner)})"


def source_of(value: Any) -> str:
    """Return the source of a function or class; its name, if it was not written in Python."""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return f"{getattr(value, '__module__', '')}.{name}"


def _parts(value: object) -> list[Any] | None:
    """Return what a value consists of; `None` where `repr` says all."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [source_of(value), value.__defaults__, value.__kwdefaults__, *cells]
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return [source_of(value)]
    return [source_of(type(value)), vars(value)] if callable(value) and hasattr(value, "__dict__") else None
