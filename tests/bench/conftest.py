"""What the tests of the benchmark share: a tiny task, and a daemon that has a network to judge."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mlrs
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.daemon import serving
from mlrs_bench.methods import Method, all_methods
from mlrs_bench.models import find_models
from mlrs_bench.task import Task
from mlrs_bench.tasks.task_file import load_task_file
from mlrs_bench.training import train
from mlrs_core.models.checkpoint import dump_model
from mlrs_core.models.model import Model
from mlrs_core.networks.architecture import Architecture
from mlrs_core.networks.drift.spec import DriftSpec
from tests.bench.watching import Watched

TASKS = Path(__file__).with_name("tiny_tasks.py")
"""A file of tasks that take milliseconds."""
FINDERS = ("torch-lr-finder+linear", "lightning+linear")
"""The methods that follow learning-rate finders of other packages."""
Train = Callable[..., Cell]
Watch = Callable[..., Watched]
DRIFT = DriftSpec(hidden_size=4)
"""A network that goes to a rate of its own, whatever a search found."""
NUMBERS = itertools.count()
"""For names of runs that no other has."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the benchmark does, and leave the number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_network(path: Path, *, seed: int = 0, spec: Architecture = DRIFT) -> Path:
    """Write a network with random weights that takes a starting LR; return its file."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in spec.weight_shapes().items()
    }
    model = Model(architecture=spec, snapshots=(weights,), provenance={"method": "random", "seed": seed})
    path.write_bytes(dump_model(model))
    return path


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network to judge."""
    return write_network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture(scope="session")
def tiny() -> Task:
    """A task of 20 steps."""
    return {task.name: task for task in load_task_file(TASKS, taken=())}["tiny"]


@pytest.fixture(scope="session")
def long() -> Task:
    """A task of 200 steps, with dropout."""
    return {task.name: task for task in load_task_file(TASKS, taken=())}["long"]


@pytest.fixture(scope="session")
def methods(network_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Method]:
    """All methods by name."""
    models = find_models(scratch=tmp_path_factory.mktemp("scratch"), model=str(network_file))
    return {method.name: method for method in all_methods(models)}


@pytest.fixture(scope="session")
def advisor(network_file: Path) -> Iterator[mlrs.Advisor]:
    """The benchmark's own daemon."""
    models = find_models(scratch=network_file.parent, model=str(network_file))
    with serving(models.values()) as daemon, mlrs.connect(daemon.target, timeout_s=20) as connected:
        yield connected


@pytest.fixture
def train_tiny(tiny: Task, methods: dict[str, Method], advisor: mlrs.Advisor) -> Train:
    """Return a function that trains the tiny task once: `(method, **key)` to its cell."""
    splits = tiny.load()

    def run(method: str, *, optimizer: str = "sgd", seed: int = 100, **key: float) -> Cell:
        cell_key = CellKey(task="tiny", optimizer=optimizer, method=method, seed=seed, **key)  # type: ignore[arg-type]
        run_id = f"{method}-{optimizer}-{seed}-{sorted(key.items())}".translate(
            dict.fromkeys(map(ord, "[](), '"))
        )
        return train(cell_key, tiny, splits, methods[method], advisor, run_id)

    return run


@pytest.fixture
def watch_long(long: Task, methods: dict[str, Method], advisor: mlrs.Advisor) -> Watch:
    """Return a function that trains the long task once: `(method, **key)` to what it did."""
    splits = long.load()

    def run(name: str, *, optimizer: str = "sgd", seed: int = 100, **key: float) -> Watched:
        watched = Watched(methods[name].control)
        method = replace(methods[name], control=watched)
        cell_key = CellKey(task="long", optimizer=optimizer, method=name, seed=seed, **key)  # type: ignore[arg-type]
        watched.cell = train(cell_key, long, splits, method, advisor, f"watched-{next(NUMBERS)}")
        return watched

    return run
