"""Searches while the daemon, or the process that searches, is killed: the decision stays the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

import mlrs
from mlrs_core.config import Optimizer
from mlrs_core.search import SearchSetup, TrialResult, what_next
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.ops.checking import check_runs, check_whole
from mlrs_server.storage import open_store
from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.reliability import save
from tests.support.trainings.searcher import CONFIG, START, STEPS, Valley, loss_of

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60
SOME = pytest.param(2, id="some")
MANY = pytest.param(100, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@dataclass(frozen=True)
class Expected:
    """What a run that nothing happens to has; losses and learning rates as hexadecimal: all of their bits."""

    rate: str
    trials: tuple[tuple[str, int, str], ...]
    """Learning rate, steps and loss of each trial."""
    lrs: tuple[str, ...]
    """The learning rates of the first steps."""


@contextmanager
def connected(daemon: Daemon) -> Iterator[Any]:
    """Yield a stub of a daemon."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        yield AdvisorServiceStub(channel)


class Scene:
    """A daemon under which searches are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = write_random_model(folder / "model.safetensors")
        listen = f"127.0.0.1:{steady_port()}"
        self.daemon = Daemon(folder / "data", "--model", str(self.model), listen=listen)

    def start(self, failpoint: str = "") -> None:
        """Start the daemon, which is to fail at a point."""
        self.daemon.environment = {"MLRS_FAILPOINT": failpoint} if failpoint else {}
        self.daemon.start()

    def revive(self) -> None:
        """Wait until the daemon has killed itself, and start it again."""
        assert self.daemon.wait() == -signal.SIGKILL
        self.start()

    def searched(self, run_id: str) -> Expected:
        """Search for a run, and train its first steps; return what they were told."""
        with mlrs.connect(self.daemon.address, timeout_s=TIMEOUT_S) as advisor:
            run = advisor.run("task", id=run_id, memory=False, **CONFIG)
            loop = Valley()
            before = list(loop.weights)
            found = run.search(loop, start=START)
            assert loop.weights == before
            assert found.learning_rate is not None
            lrs = tuple(run.next_lr(step, loss_of(step)).hex() for step in range(STEPS))
        trials = tuple((one.learning_rate.hex(), one.steps, one.loss.hex()) for one in found.trials)
        return Expected(found.learning_rate.hex(), trials, lrs)

    def check_record(self, stub: Any, run_id: str, expected: Expected, *, attempt: int = 1) -> None:
        """Check that the daemon's record of a search, and of the run after it, is as expected."""
        request = pb.GetSearchRequest(run_id=run_id)
        search = stub.GetSearch(request, timeout=TIMEOUT_S, wait_for_ready=True).search
        trials = tuple((one.learning_rate.hex(), one.steps, one.loss.hex()) for one in search.trials)
        assert (search.attempt, trials, search.WhichOneof("next")) == (attempt, expected.trials, "found")
        assert search.found.learning_rate.hex() == expected.rate
        run = stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=TIMEOUT_S).run
        assert run.config.found == search.found
        assert run.config.schedule.WhichOneof("kind") == "wsd"
        record = list(stub.WatchRun(pb.WatchRunRequest(run_id=run_id), timeout=TIMEOUT_S))
        lrs = [lr.hex() for part in record for lr in part.learning_rates]
        assert lrs == list(expected.lrs)

    def check_store(self) -> None:
        """Stop the daemon, and check its store as `mlrs store check --replay` does."""
        assert self.daemon.stop() == 0
        with closing(open_store(self.daemon.data_dir / "mlrs.sqlite3")) as store:
            assert check_whole(store) == []
            catalog = ModelCatalog(asking(store), default=str(self.model))
            assert [(one.run_id, one.problem) for one in check_runs(store, catalog) if one.problem] == []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A daemon that is to be started."""
    made = Scene(tmp_path)
    yield made
    if made.daemon.address:
        made.daemon.__exit__()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """What a search gives while nothing happens: what the rules of the core find after its trials."""
    scene = Scene(tmp_path_factory.mktemp("undisturbed"))
    with scene.daemon:
        found = scene.searched("run")
        with connected(scene.daemon) as stub:
            scene.check_record(stub, "run", found)
        scene.check_store()
    trials = [
        TrialResult(learning_rate=float.fromhex(rate), steps=steps, loss=float.fromhex(loss))
        for rate, steps, loss in found.trials
    ]
    by_rules: Any = what_next(SearchSetup(horizon=CONFIG["horizon"], optimizer=Optimizer.SGD), trials)
    assert by_rules.learning_rate.hex() == found.rate == max(found.lrs, key=float.fromhex)
    assert {loss == "nan" for _, _, loss in found.trials} == {False, True}
    return found


# ------------------------------------------------------------------------------------ the daemon


@pytest.mark.parametrize(
    ("point", "time"),
    [
        ("search.store", 3),
        ("store.search", -1),
        ("search.stored", 1),
        *(
            pytest.param(point, time, marks=pytest.mark.slow)
            for point, times in (
                ("search.store", (1, 2, 4, 5, -1)),
                ("store.search", (1, 2, 3, 4, 5)),
                ("store.committed", (3, 4, 5, 6, 7)),  # the start of the daemon commits twice
            )
            for time in times
        ),
    ],
)
def test_a_daemon_killed_at_a_point_of_a_search(
    scene: Scene, expected: Expected, point: str, time: int
) -> None:
    """Wherever the daemon is killed as it takes a trial, the search goes on, and decides alike.

    The points are before, in and after the transaction that stores a result; the last one is at the end of a
    search only.
    """
    calls = len(expected.trials) + 1  # the first asks only
    scene.start(f"{point}=kill:{time if time > 0 else calls}")
    with ThreadPoolExecutor(1) as helper:
        revived = helper.submit(scene.revive)
        assert scene.searched("run") == expected
        revived.result(TIMEOUT_S)
    with connected(scene.daemon) as stub:
        scene.check_record(stub, "run", expected)
    scene.check_store()


# -------------------------------------------------------------------------------- both at random


@dataclass
class Searching:
    """A process that searches, which can be killed and started again: `searcher.py` from the outside."""

    name: str
    folder: Path
    address: str
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def journal(self) -> Path:
        """What it writes down."""
        return self.folder / f"{self.name}.journal"

    @property
    def lines(self) -> list[list[str]]:
        """The words of each line that it wrote."""
        if not self.journal.exists():
            return []
        return [line.split() for line in self.journal.read_text(encoding="utf-8").splitlines()]

    def start(self, *options: str) -> None:
        """Start it, the second time from where its journal and the daemon stand."""
        command = [sys.executable, "-m", "tests.support.trainings.searcher", self.name, str(self.journal)]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, self.address, *options],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "MLRS_QUIET": "1"},
            )

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        assert self.process is not None
        return self.process.wait(TIMEOUT_S)

    def wait_until_ready(self) -> None:
        """Wait until it has begun to search."""
        assert self.process is not None
        while ["ready", str(self.process.pid)] not in self.lines:
            assert self.process.poll() is None, (self.folder / f"{self.name}.log").read_text(encoding="utf-8")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def stop(self) -> None:
        """Let it end its present run."""
        self.wait_until_ready()
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        log = self.folder / f"{self.name}.log"
        assert (self.wait(), log.read_text(encoding="utf-8")) == (0, "")

    def is_searching(self) -> bool:
        """Return whether it was in a search as it wrote its last line."""
        return bool(self.lines) and self.lines[-1][0] in {"searching", "again"}

    def made(self, run_id: str) -> list[int]:
        """Return how many trials it made itself of a search, for each time that it was told the end of it."""
        return [int(words[-1]) for words in self.lines if words[:2] == ["found", run_id]]

    def finished(self, expected: Expected) -> list[str]:
        """Check all that it saw; return the runs that it finished."""
        runs = []
        for words in self.lines:
            match words:
                case ["found", _, rate, trials, made]:
                    assert (rate, int(trials)) == (expected.rate, len(expected.trials)), words
                    assert int(made) <= int(trials), words
                case ["begun", _, step]:
                    assert int(step) > 0, words
                case ["lr", _, step, lr]:
                    assert lr == expected.lrs[int(step)], words
                case ["finished", run_id]:
                    runs.append(run_id)
                case ["ready" | "searching" | "again", _]:
                    pass
                case _:
                    raise AssertionError(f"{self.name}: {words}")
        return runs


@contextmanager
def searching(scene: Scene, name: str) -> Iterator[Searching]:
    """Yield a process that searches under a scene's daemon; kill it in the end if it still runs."""
    made = Searching(name, scene.folder, scene.daemon.address)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


@pytest.mark.parametrize("kills", [SOME, MANY])
def test_both_killed_at_random_moments(scene: Scene, expected: Expected, kills: int) -> None:
    """However often daemon and searching processes are killed, each search decides as an undisturbed one."""
    began, slow = time.monotonic(), kills > 2
    chance = random.Random(1)  # noqa: S311  # a test's dice
    hit = 0
    scene.start()
    with searching(scene, "one") as one, searching(scene, "two") as two:
        processes = [one, two] if slow else [one]
        for process in processes:
            process.start()
        for _ in range(kills):
            victim = chance.choice(processes)
            victim.wait_until_ready()
            time.sleep(chance.uniform(0.0, 0.3))
            victim.kill()
            hit += victim.is_searching()
            victim.start()
            chance.choice(processes).wait_until_ready()
            time.sleep(chance.uniform(0.0, 0.3))
            hit += any(process.is_searching() for process in processes)
            scene.daemon.kill()
            scene.daemon.start()
        for process in processes:
            process.stop()
        finished = [run_id for process in processes for run_id in process.finished(expected)]
    with connected(scene.daemon) as stub:
        for run_id in finished:
            scene.check_record(stub, run_id, expected)
    scene.check_store()
    assert len(finished) >= len(processes)
    if slow:
        assert hit > kills // 2
        save(
            "search_killed",
            "pytest -m slow tests/e2e/runs/test_search_killed.py -k random",
            began,
            time.monotonic(),
            kills_of_the_daemon=kills,
            kills_of_clients=kills,
            kills_in_a_search=hit,
            runs=len(finished),
            wrong_decisions=0,
        )


# ---------------------------------------------------------------------------------- the client


@pytest.mark.parametrize(
    "update", [1, 15, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 21, 2))]
)
def test_a_process_killed_in_a_search_goes_on(scene: Scene, expected: Expected, update: int) -> None:
    """Started again with the same start, a process makes only the trials whose results the daemon lacks."""
    scene.start()
    with searching(scene, "run") as process, connected(scene.daemon) as stub:
        known = killed(process, stub, update)
        assert (known.attempt, known.WhichOneof("next")) == (1, "trial")
        process.start()
        process.stop()
        assert process.finished(expected)[0] == "run/0"
        assert process.made("run/0") == [len(expected.trials) - len(known.trials)]
        scene.check_record(stub, "run/0", expected)
    scene.check_store()


def test_a_process_that_begins_anew_says_so(scene: Scene, expected: Expected) -> None:
    """With another start the second process makes all trials, and the record says that it is attempt 2."""
    scene.start()
    with searching(scene, "run") as process, connected(scene.daemon) as stub:
        known = killed(process, stub, 15, "--start", "")
        assert (known.attempt, known.WhichOneof("next")) == (1, "trial")
        assert known.trials
        process.start("--start", "")
        process.stop()
        assert process.finished(expected)[0] == "run/0"
        assert process.made("run/0") == [len(expected.trials)]
        scene.check_record(stub, "run/0", expected, attempt=2)
    scene.check_store()


def killed(process: Searching, stub: Any, update: int, *options: str) -> pb.Search:
    """Let a process begin a search and kill itself at an update; return the search as the daemon knows it."""
    process.start("--dies-at", str(update), *options)
    assert process.wait() == -signal.SIGKILL
    search: pb.Search = stub.GetSearch(pb.GetSearchRequest(run_id="run/0"), timeout=TIMEOUT_S).search
    return search
