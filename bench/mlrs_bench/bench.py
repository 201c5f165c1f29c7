"""A table of the benchmark: what was requested, which results exist, and how to compute the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlrs_bench.cache import Cache, digest_of, write_cells
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.daemon import serving
from mlrs_bench.errors import UnknownNameError
from mlrs_bench.methods import all_methods, choose_methods
from mlrs_bench.models import OPTIONAL, ModelFile, find_models
from mlrs_bench.plan import Plan, Stage
from mlrs_bench.rules import RULES
from mlrs_bench.sources import code_digest
from mlrs_bench.tasks import choose_tasks, collect_tasks
from mlrs_bench.workers import CellJob, Workers, Workshop

FORMAT = 1
"""Changed when trainings are done differently, so that earlier results no longer count."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which results a table is to have. An empty tuple stands for everything that exists."""

    cache: Path
    """The folder where cells are kept."""
    known: tuple[Path, ...] = ()
    """Files of cells that count as well, as `Cache.write` wrote them."""
    tasks: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: int = 5
    """Trainings of each kind that are evaluated."""
    default_start: bool = False
    """Whether trainings begin at the default LR only, and none at a wrong one."""
    model: str | None = None
    """The network in question: a shipped one's name, or a file."""
    official: Path | None = None
    cifar10: Path | None = None
    task_file: Path | None = None


@dataclass(frozen=True)
class TableProgress:
    """How much of a table is done."""

    tuning: bool
    """Whether tuning trainings are missing."""
    cells: int
    """The number of trainings that are known to be needed so far."""
    cells_done: int
    all: int
    """Steps of all trainings."""
    done: int
    """Steps of those that are done."""


Watch = Callable[[TableProgress, Cell | None], None]
"""Called with the progress and the new cell, if there is one."""


class Table:
    """A table, and the cells of it that are in the cache."""

    def __init__(self, request: Request) -> None:
        """Resolve what was asked for.

        Raises:
            BenchError: a name is unknown, or a file cannot be used.
            OSError: the cache folder cannot be used.
        """
        if unknown := [name for name in request.optimizers if name not in RULES]:
            raise UnknownNameError("optimizers", unknown[0], RULES)
        self._request = request
        self._cache = Cache(request.cache)
        for file in request.known:
            self._cache.learn(file)
        self._digests: dict[CellKey, str] = {}
        self.models = find_models(scratch=request.cache, model=request.model, official=request.official)
        available = collect_tasks(cache=request.cache, cifar10=request.cifar10, task_file=request.task_file)
        methods = choose_methods(all_methods(self.models), request.methods)
        self.plan = Plan(
            tasks=choose_tasks(available, request.tasks),
            optimizers=request.optimizers or tuple(RULES),
            methods=[replace(each, starts=(1.0,)) for each in methods] if request.default_start else methods,
            seeds=request.seeds,
        )
        self._fingerprints = {task.name: task.fingerprint(task.load()) for task in self.plan.tasks}
        self._horizons = {task.name: task.horizon for task in self.plan.tasks}
        self._methods = {method.name: method for method in self.plan.methods}

    def digest(self, key: CellKey) -> str:
        """Return the digest of all that the result of a training depends on."""
        if key not in self._digests:
            self._digests[key] = self._digest(key)
        return self._digests[key]

    def _digest(self, key: CellKey) -> str:
        method = self._methods[key.method]
        return digest_of(
            {
                "format": FORMAT,
                "key": vars(key),
                "task": self._fingerprints[key.task],
                "method": method.identity,
                "code": code_digest(method.files, method.core_files),
            }
        )

    def find(self, key: CellKey) -> Cell | None:
        """Return the cell of a training, if it was done."""
        return self._cache.get(self.digest(key))

    def stage(self) -> Stage:
        """Return the trainings of the table, as far as they are known."""
        return self.plan.stage(self.find)

    @property
    def absent(self) -> dict[str, str]:
        """The methods that are missing because their file was not given, and the option that gives it."""
        return {name: option for name, option in OPTIONAL.items() if name not in self.models}

    def progress(self) -> TableProgress:
        """Return how far the table is."""
        stage = self.stage()
        keys = [*stage.tune, *stage.evaluate, *stage.undecided]
        done = [key for key in keys if self.find(key) is not None]
        return TableProgress(
            tuning=bool(self._missing(stage.tune)),
            cells=len(keys),
            cells_done=len(done),
            all=sum(self._horizons[key.task] for key in keys),
            done=sum(self._horizons[key.task] for key in done),
        )

    def write(self, file: Path) -> int:
        """Write the cells of the table that are there to a file for `known`; return how many.

        Raises:
            OSError: the file cannot be written.
        """
        stage = self.stage()
        found = {self.digest(key): self.find(key) for key in [*stage.tune, *stage.evaluate]}
        cells = {digest: cell for digest, cell in found.items() if cell is not None}
        write_cells(file, cells)
        return len(cells)

    def cells(self) -> list[Cell]:
        """Return the cells of the table that are there, tuning included."""
        stage = self.stage()
        found = (self.find(key) for key in [*stage.tune, *stage.evaluate])
        return [cell for cell in found if cell is not None]

    def run(self, *, workers: int, watch: Watch) -> None:
        """Do the missing trainings: those that tune first, then those that are evaluated.

        Raises:
            BenchError: the daemon did not start, or a training failed by a defect.
            KeyboardInterrupt: after Ctrl-C; what was trained is kept.
        """

        def keep(digest: str, cell: Cell) -> None:
            self._cache.add(digest, cell)
            watch(self.progress(), cell)

        if not self._next():
            return
        with serving(self._served()) as daemon:
            workshop = Workshop(
                cache=self._request.cache,
                cifar10=self._request.cifar10,
                task_file=self._request.task_file,
                models=self.models,
                daemon=daemon,
            )
            with Workers(workshop, workers) as processes:
                watch(self.progress(), None)
                while jobs := self._next():
                    processes.run(jobs, keep)

    def _next(self) -> list[CellJob]:
        """Return what can be trained now."""
        stage = self.stage()
        return self._missing(stage.tune) or self._missing(stage.evaluate)

    def _missing(self, keys: Sequence[CellKey]) -> list[CellJob]:
        return [CellJob(key, self.digest(key)) for key in keys if self.find(key) is None]

    def _served(self) -> list[ModelFile]:
        chosen = {method.model or method.name for method in self.plan.methods}
        return [model for name, model in self.models.items() if name in chosen]
