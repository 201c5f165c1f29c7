"""All sequences: which of them were trained, and how to train the rest."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mlrs_bench.cache import digest_of
from mlrs_bench.daemon import serving
from mlrs_bench.errors import DataFileError, UnknownNameError
from mlrs_bench.memory.lineage import Lineage, LineageJob, LineageKey
from mlrs_bench.memory.scenario import REPETITIONS, Scenario, fits
from mlrs_bench.models import ADVISED, find_models
from mlrs_bench.rules import RULES
from mlrs_bench.sources import code_digest
from mlrs_bench.tasks import choose_tasks, collect_tasks
from mlrs_bench.workers import Workers, Workshop

FILES = ("remembered.py", "served.py", "validating.py")
"""The files of methods that results depend on."""
CORE_FILES = ("memory/*.py", "search/*.py", "schedules/*.py", "rescue/*.py")
"""Those of the core."""

Watch = Callable[[int, int, Lineage | None], None]
"""Called with the number of sequences that are done, and of all, and the newest."""


@dataclass(frozen=True, kw_only=True)
class MemoryRequest:
    """Which sequences are wanted. An empty tuple stands for all."""

    file: Path
    """Where they are kept."""
    cache: Path
    """The folder for what takes time to decode."""
    scenarios: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    repetitions: int = REPETITIONS
    cifar10: Path | None = None
    task_file: Path | None = None


class MemoryBench:
    """The sequences of a request, and those that are in its file."""

    def __init__(self, request: MemoryRequest) -> None:
        """Resolve what was asked for.

        Raises:
            BenchError: a name is unknown, or a file cannot be used.
            OSError: the file cannot be read.
        """
        for field, names, known in (
            ("optimizers", request.optimizers, RULES),
            ("scenarios", request.scenarios, [one.value for one in Scenario]),
        ):
            if unknown := [name for name in names if name not in known]:
                raise UnknownNameError(field, unknown[0], known)
        self._request = request
        request.cache.mkdir(parents=True, exist_ok=True)
        available = collect_tasks(cache=request.cache, cifar10=request.cifar10, task_file=request.task_file)
        self._tasks = {task.name: task for task in choose_tasks(available, request.tasks)}
        self._fingerprints = {task.name: task.fingerprint(task.load()) for task in self._tasks.values()}
        self._done = read_lineages(request.file) if request.file.exists() else {}

    def keys(self) -> Iterator[LineageKey]:
        """Yield the sequences that are wanted: whole repetitions first, so that any part is of use."""
        optimizers = self._request.optimizers or tuple(RULES)
        scenarios = [Scenario(name) for name in self._request.scenarios] or list(Scenario)
        for repetition, scenario, task, optimizer in product(
            range(self._request.repetitions), scenarios, self._tasks.values(), optimizers
        ):
            if fits(scenario, task.name, task.horizon, task.batch_size):
                yield LineageKey(
                    scenario=scenario, task=task.name, optimizer=optimizer, repetition=repetition
                )

    def digest(self, key: LineageKey) -> str:
        """Return the digest of all that the result of a sequence depends on."""
        return digest_of(
            {
                "key": vars(key),
                "task": self._fingerprints[key.task],
                "code": code_digest(FILES, CORE_FILES),
            }
        )

    def lineages(self) -> list[Lineage]:
        """Return the sequences that are there."""
        return [found for key in self.keys() if (found := self._done.get(self.digest(key))) is not None]

    def missing(self) -> list[LineageJob]:
        """Return the sequences that are not."""
        jobs = [LineageJob(key, self.digest(key)) for key in self.keys()]
        return [job for job in jobs if job.digest not in self._done]

    def run(self, *, workers: int, watch: Watch) -> None:
        """Make the missing sequences.

        Raises:
            BenchError: the daemon did not start, or a training failed by a defect.
            OSError: the file cannot be written.
            KeyboardInterrupt: after Ctrl-C; the sequences that were finished are kept.
        """
        if not (jobs := self.missing()):
            return
        total = len(jobs) + len(self.lineages())

        def keep(digest: str, lineage: Lineage) -> None:
            self._done[digest] = lineage
            write_lineages(self._request.file, self._done)
            watch(total - len(self.missing()), total, lineage)

        models = find_models(scratch=self._request.cache)
        with serving([models[ADVISED]]) as daemon:
            workshop = Workshop(
                cache=self._request.cache,
                cifar10=self._request.cifar10,
                task_file=self._request.task_file,
                models=models,
                daemon=daemon,
            )
            with Workers(workshop, workers) as processes:
                watch(total - len(jobs), total, None)
                processes.run(jobs, keep)


def read_lineages(file: Path) -> dict[str, Lineage]:
    """Return the sequences in a file, by their digests.

    Raises:
        DataFileError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        return {line["digest"]: Lineage.from_json(line["lineage"]) for line in lines}
    except (gzip.BadGzipFile, EOFError, ValueError, TypeError, KeyError) as error:
        raise DataFileError(
            f"{file}: is no file of sequences, as `mlrs bench memory` writes it: {error}"
        ) from error


def write_lineages(file: Path, lineages: dict[str, Lineage]) -> None:
    """Write sequences to a file, whole or not at all; equal ones give equal bytes.

    Raises:
        OSError: it cannot be written.
    """
    lines = [
        json.dumps({"digest": digest, "lineage": lineage.to_json()})
        for digest, lineage in sorted(lineages.items())
    ]
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    unfinished.replace(file)
