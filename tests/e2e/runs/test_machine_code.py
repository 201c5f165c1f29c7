"""Machine code in a real daemon: what is compiled before it listens, and what when a run needs it first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon

WITHIN_S = 120.0
"""How long to wait for what must come."""
HELD = {"MLRS_FAILPOINT": "kernels.make=pause:600"}
"""The process that compiles does not begin to."""


@pytest.fixture(scope="module")
def plain_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kernel cache with what a plain run needs, and nothing else."""
    cache = tmp_path_factory.mktemp("plain") / "cache"
    command = [sys.executable, "-m", "mlrs_server.live.warmup", "plain", "drift"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        assert process.wait(WITHIN_S) == 0
    return cache


@pytest.fixture
def cache(plain_cache: Path, tmp_path: Path) -> Path:
    """Return a copy of it, which a test may change."""
    return shutil.copytree(plain_cache, tmp_path / "cache")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """Return threads for calls that wait."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


def daemon_with(cache: Path, folder: Path, **environment: str) -> Daemon:
    """Return a daemon that keeps machine code in a folder."""
    variables = {"NUMBA_CACHE_DIR": str(cache), **environment}
    return Daemon(folder, "--log-format", "json", environment=variables)


def events(daemon: Daemon, name: str) -> list[dict[str, object]]:
    """Return the entries of a daemon's log about an event."""
    found = map(json.loads, daemon.log.read_text(encoding="utf-8").splitlines())
    return [entry for entry in found if entry["event"] == name]


def compiler_of(pid: int) -> int | None:
    """Return the process that compiles for a daemon, if there is one."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended, or is no process
            if b"mlrs_server.live.warmup" in (folder / "cmdline").read_bytes():
                parent = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[1]
                if int(parent) == pid:
                    return int(folder.name)
    return None


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def opened(advisor: mlrs.Advisor, task: str, **options: object) -> float:
    """Open a run; return the learning rate of its first step."""
    with advisor.run(task, horizon=100, **options) as run:  # type: ignore[arg-type]
        return run.next_lr(0, 2.0)


@pytest.mark.parametrize(
    "options",
    [
        {"rescue": True},
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ({"meta": mlrs.Meta(every=5)}, {"model": "paper"})
        ),
    ],
)
def test_a_run_that_needs_other_code_stalls_no_step_of_another(
    tmp_path: Path, cache: Path, executor: ThreadPoolExecutor, options: dict[str, object]
) -> None:
    """While its code is not there yet, opening a run waits, and steps of another run are answered."""
    with daemon_with(cache, tmp_path / "d", **HELD) as daemon, mlrs.connect(daemon.address) as advisor:
        with advisor.run("plain", horizon=100) as run:
            run.next_lr(0, 2.0)
            other: Future[float] = executor.submit(opened, advisor, "other", **options)
            until(lambda: compiler_of(daemon.pid))
            for step in range(1, 60):
                run.observe(step, 2.0 - 0.01 * step)
                assert run.next_lr(step, 2.0 - 0.01 * step) > 0
            assert not other.done()
            compiler = compiler_of(daemon.pid)
            assert compiler is not None
            os.kill(compiler, signal.SIGKILL)
            assert other.result(WITHIN_S) > 0
            run.next_lr(60, 1.0)
            assert run.fallback_steps == 0
        assert [event["status"] for event in events(daemon, "kernels_not_made")] == [-signal.SIGKILL]
        assert not events(daemon, "kernels_ready")[-1]["by_another_process"]


def test_another_process_compiles_what_a_run_needs_first(tmp_path: Path, cache: Path) -> None:
    """It is compiled once: the daemon loads it, and so does the next one, which says nothing of compiling."""
    daemon = daemon_with(cache, tmp_path / "d")
    with daemon, mlrs.connect(daemon.address) as advisor:
        first = opened(advisor, "a", rescue=True, memory=False)
        assert [event["part"] for event in events(daemon, "compiling_kernels")] == ["rescue"]
        assert events(daemon, "kernels_ready")[-1]["by_another_process"]
        assert daemon.stop() == 0
        daemon.start()
        assert opened(advisor, "b", rescue=True, memory=False) == first
        assert len(events(daemon, "compiling_kernels")) == 1


@pytest.mark.parametrize("end", [pytest.param(Daemon.stop, marks=pytest.mark.slow), Daemon.kill])
def test_a_daemon_that_ends_ends_what_compiles_for_it(
    tmp_path: Path, cache: Path, executor: ThreadPoolExecutor, end: Callable[[Daemon], object]
) -> None:
    """A compiling process ends with its daemon, drained or killed."""
    daemon = daemon_with(cache, tmp_path / "d", **HELD)
    with daemon, mlrs.connect(daemon.address) as advisor:
        waiting = executor.submit(opened, advisor, "a", rescue=True)
        until(lambda: compiler_of(daemon.pid))
        compiler = compiler_of(daemon.pid)
        end(daemon)
        until(lambda: not Path(f"/proc/{compiler}").exists())
        assert waiting.exception(WITHIN_S) is not None


@pytest.mark.slow
def test_two_daemons_start_on_one_empty_cache(tmp_path: Path) -> None:
    """Both advise the same to the bit, whoever compiles what; a later one compiles nothing."""
    daemons = [daemon_with(tmp_path / "cache", tmp_path / name) for name in "abc"]
    rates = []
    with ExitStack() as stack:
        for daemon in daemons[:2]:
            stack.push(daemon.launch())
        for daemon in daemons:
            if daemon is daemons[2]:
                stack.push(daemon.launch())
            daemon.listening()
            with mlrs.connect(daemon.address) as advisor, advisor.run("a", horizon=100) as run:
                rates.append([run.next_lr(step, 2.0 / (step + 1)) for step in range(20)])
                assert run.fallback_steps == 0
            assert daemon.stop() == 0
            assert not events(daemon, "kernel_cache_unusable")
    assert rates[0] == rates[1] == rates[2]
    compiled = [bool(events(daemon, "compiling_kernels")) for daemon in daemons]
    assert any(compiled[:2])
    assert not compiled[2]


def test_a_first_start_compiles_the_code_of_rescue_unasked(tmp_path: Path) -> None:
    """Before any run asks for it, a process begins to; a run with rescue that is then opened is advised."""
    daemon = daemon_with(tmp_path / "cache", tmp_path / "d")
    with ExitStack() as stack:
        stack.push(daemon.launch())
        until(lambda: "rescue" in [event.get("part") for event in events(daemon, "compiling_kernels")])
        daemon.listening()
        with mlrs.connect(daemon.address) as advisor, advisor.run("a", horizon=100) as run:
            run.describe(rescue=True)
            assert run.next_lr(0, 2.0) > 0
            assert run.fallback_steps == 0
        ready = [event for event in events(daemon, "kernels_ready") if event.get("part") == "rescue"]
        assert [event["by_another_process"] for event in ready] == [True]


@pytest.mark.slow
@pytest.mark.timeout(400)  # all kernels are compiled
def test_without_a_folder_for_machine_code_all_of_it_is_compiled_at_the_start(tmp_path: Path) -> None:
    """The daemon says so, and then no run waits for code."""
    sealed = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    with daemon_with(Path("/proc/none"), tmp_path / "d", **sealed) as daemon:
        assert len(events(daemon, "kernels_not_kept")) == 1
        with mlrs.connect(daemon.address) as advisor:
            assert opened(advisor, "a", rescue=True) > 0
            assert opened(advisor, "b", meta=mlrs.Meta(every=5)) > 0
        begun = events(daemon, "compiling_kernels")
        assert {event.get("part", "rescue") for event in begun} == {"rescue"}  # begun before it is known
        assert sum("parts" in event for event in begun) == 1
