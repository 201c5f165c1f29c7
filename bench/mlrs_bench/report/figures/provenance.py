"""What was measured, with what: networks, packages, seeds, and the machine that wrote the report."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.methods import ordered

PACKAGES = ("mlrs", "torch", "numpy", "scikit-learn")
"""What every training depends on; methods of other packages name theirs in their identity."""


@dataclass(frozen=True)
class Measured:
    """What the cells say about themselves."""

    identities: Mapping[str, tuple[str, ...]]
    """By method; more than one where cells were measured with different versions."""
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]


@dataclass(frozen=True)
class Machine:
    """Where a report was written."""

    platform: str
    cpu: str
    packages: Mapping[str, str]
    """Versions by name, with Python's."""


def measured(cells: Iterable[Cell]) -> Measured:
    """Return what set the learning rates, exactly, and the seeds that there are."""
    cells = tuple(cells)
    return Measured(
        identities={
            method: tuple(sorted({cell.identity for cell in cells if cell.method == method}))
            for method in ordered(cell.method for cell in cells)
        },
        seeds=_seeds(cells, "eval"),
        tuning_seeds=_seeds(cells, "tune"),
    )


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Return this machine; its CPU as the system names it, or its architecture."""
    installed = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    return Machine(
        platform=platform.platform(),
        cpu=_cpu(cpuinfo),
        packages={"Python": platform.python_version(), **installed},
    )


def command_line(words: Sequence[str]) -> str:
    """Return the command of these words, the program without its folder, quoted as a shell needs."""
    return shlex.join([Path(words[0]).name, *words[1:]])


def _seeds(cells: Iterable[Cell], purpose: str) -> tuple[int, ...]:
    return tuple(sorted({cell.seed for cell in cells if cell.purpose == purpose}))


def _cpu(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models and models[0] else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
