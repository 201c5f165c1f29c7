"""The user's daemon: started once, whoever wants it, and whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from urllib.parse import quote

import pytest

from mlrs.local.dashboard import told_url
from mlrs.local.place import LASTING
from tests.support.homes import Home
from tests.support.mounts import filled, small_disk, write_protected

ADVISED = """
import sys
import mlrs
run = mlrs.run("task", horizon=10, optimizer="sgd", timeout_s=60.0, memory=False)
print(run.next_lr(0, float(sys.argv[1]) if len(sys.argv) > 1 else 1.0).hex())
print(run.id)
"""
ADDRESS = "import mlrs; print(mlrs.connect()._connection.addresses)"


def test_a_script_without_an_address_is_advised(home: Home) -> None:
    """The first connection starts a daemon and says so; later ones find it, and all say where to look."""
    first = home.ran(ADVISED)
    with told_url(home.place, "http://127.0.0.1:8265"):
        second = home.ran(ADVISED)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stderr.count("mlrs: starting a daemon for this user") == 1
    assert "starting" not in second.stderr
    assert first.stdout.split()[0] == second.stdout.split()[0]  # the same advice for the same loss
    one, other = first.stdout.split()[1], second.stdout.split()[1]
    assert f"(mlrs runs watch {one}; mlrs dashboard)\n" in first.stderr
    page = f"http://127.0.0.1:8265/run?id={quote(other, safe='')}"
    assert f"(mlrs runs watch {other}; {page})\n" in second.stderr


def test_it_is_closed_to_other_users(home: Home) -> None:
    """The folders of the socket and of the data can be opened by the user alone."""
    assert home.ran(ADVISED).returncode == 0
    for folder in (home.place.folder, home.place.folder.parent, home.place.data_dir):
        assert folder.stat().st_mode & 0o077 == 0


def test_many_processes_start_one(home: Home) -> None:
    """Of 32 processes that want a daemon at once, all are advised, by one daemon."""
    processes = [home.started(ADVISED) for _ in range(32)]
    ended = [(process.communicate(timeout=110), process.returncode) for process in processes]
    assert [status for _, status in ended] == [0] * 32, [err for (_, err), status in ended if status]
    assert len({out.split()[1] for (out, _), _ in ended}) == 32
    assert home.place.log.read_text(encoding="utf-8").count('"event": "listening"') == 1
    assert sum("starting a daemon" in err for (_, err), _ in ended) == 1


STARTED_AND_KILLED = """
import os, signal, sys, time
from mlrs.local import starting
from mlrs.local.place import local_place

point, victim = sys.argv[1:]
place, launch = local_place(), starting.launched
lock = place.data_dir / "daemon.lock"

def killed(process):
    os.kill(process.pid if victim == "daemon" else os.getpid(), signal.SIGKILL)

def launched(place):
    if point == "locked":
        os.kill(os.getpid(), signal.SIGKILL)
    process = launch(place)
    while point == "holds" and not (lock.exists() and lock.read_text()):
        time.sleep(0.001)
    while point == "listens" and not place.socket.exists():
        time.sleep(0.001)
    killed(process)
    return process

starting.launched = launched
starting.started_at(place)
"""


@pytest.mark.parametrize(
    ("point", "victim"),
    [
        ("locked", "starter"),
        ("launched", "starter"),
        ("launched", "daemon"),
        ("holds", "starter"),
        ("holds", "daemon"),
        ("listens", "starter"),
        ("listens", "daemon"),
    ],
)
def test_a_kill_at_any_point_of_the_start_leaves_nothing_in_the_way(
    home: Home, point: str, victim: str
) -> None:
    """After a kill -9 of the process that starts it, or of the daemon, the next script is advised."""
    killed = home.ran(STARTED_AND_KILLED, point, victim)
    if victim == "starter":
        assert killed.returncode == -signal.SIGKILL
    else:
        assert "no daemon could be started: it ended with status -9" in killed.stderr
    ran = home.ran(ADVISED)
    assert ran.returncode == 0, ran.stderr


def test_a_killed_daemon_leaves_a_socket_that_is_not_in_the_way(home: Home) -> None:
    """The socket of a killed daemon is found to be stale, and its runs are still there."""
    run_id = home.ran(ADVISED).stdout.split()[1]
    home.kill_daemon()
    assert home.place.socket.exists()
    assert home.ran(ADVISED).returncode == 0
    assert run_id in home.command("runs", "list").stdout


REVIVED = """
import os, signal, sys, time
import mlrs
from mlrs.local.place import local_place

advisor = mlrs.connect(timeout_s=60.0)
run = advisor.run("task", horizon=40, optimizer="sgd", memory=False, fallback="error")
lrs = []
for step in range(40):
    if sys.argv[1] == "killed" and step in (10, 30):
        os.kill(int((local_place().data_dir / "daemon.lock").read_text()), signal.SIGKILL)
    lrs.append(run.next_lr(step, 2.0 / (1 + step)).hex())
print(lrs)
"""


def test_a_training_starts_it_again(home: Home) -> None:
    """A daemon that is killed during a training is started again by it, and no learning rate changes."""
    undisturbed, killed = home.ran(REVIVED, "undisturbed"), home.ran(REVIVED, "killed")
    assert killed.returncode == 0, killed.stderr
    assert killed.stdout == undisturbed.stdout
    assert killed.stderr.count("starting a daemon") == 2


ASYNCIO = """
import asyncio
import mlrs.aio

async def train():
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1
    ticking = asyncio.create_task(tick())
    async with mlrs.aio.connect() as advisor:
        async with advisor.run("task", horizon=10, optimizer="sgd", memory=False) as run:
            print((await run.next_lr(0, 1.0)).hex(), ticks)
    ticking.cancel()

asyncio.run(train())
"""


def test_an_event_loop_goes_on_while_it_starts(home: Home) -> None:
    """`mlrs.aio` waits for the start without blocking other tasks."""
    ran = home.ran(ASYNCIO)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[1]) > 10


FORKING = """
import os, sys, time
from mlrs.local import starting
from mlrs.local.place import local_place

launch = starting.launched

def launched(place):  # a data loader forks while another thread holds the lock of the start
    child = os.fork()
    if child == 0:
        os.close(1)
        os.close(2)
        time.sleep(600)
        os._exit(0)
    print(child)
    return launch(place)

starting.launched = launched
starting.started_at(local_place())
"""


def test_a_fork_during_the_start_keeps_no_lock(home: Home) -> None:
    """A child that was forked during the start, and lives on, does not keep others from starting a daemon."""
    forked = home.ran(FORKING)
    assert forked.returncode == 0, forked.stderr
    child = int(forked.stdout)
    try:
        home.kill_daemon()
        ran = home.ran("import mlrs.local.starting as s; s.START_S = 20.0\n" + ADVISED)
        os.kill(child, 0)  # it still lives
    finally:
        os.kill(child, signal.SIGKILL)
    assert ran.returncode == 0, ran.stderr


def test_versions_of_the_contract_live_side_by_side(home: Home) -> None:
    """Daemons of two versions of the contract run at once, each with a socket and data of its own."""
    other = "from mlrs.local import place; place.CONTRACT = 'v2'\n"
    assert home.ran(ADVISED).returncode == 0
    served = home.started(other + SERVING, "serve", "--local")
    try:
        assert served.stdout is not None
        assert served.stdout.readline().strip().endswith("/v2/daemon.sock")
        first, second = home.ran(ADVISED), home.ran(other + ADVISED)
        assert [first.returncode, second.returncode] == [0, 0], first.stderr + second.stderr
        assert "/v1/daemon.sock" in first.stderr
        assert "/v2/daemon.sock" in second.stderr
        assert "starting" not in first.stderr + second.stderr
    finally:
        served.terminate()
        served.communicate()


def test_another_session_finds_the_daemon_by_its_data(home: Home) -> None:
    """A process with another runtime folder, as under cron, is advised by the daemon that has the data."""
    assert home.ran(ADVISED).returncode == 0
    other = home.folder / "run"
    other.mkdir(mode=0o700)
    found = home.ran(ADDRESS, XDG_RUNTIME_DIR=str(other))
    assert found.stdout.strip() == home.place.address, found.stderr


def test_a_training_of_another_session_follows_the_daemon(home: Home) -> None:
    """One that found the daemon by its data goes on with the one that it starts at a place of its own."""
    assert home.ran(ADVISED).returncode == 0
    other = home.folder / "run"
    other.mkdir(mode=0o700)
    undisturbed = home.ran(REVIVED, "undisturbed")
    killed = home.ran(REVIVED, "killed", XDG_RUNTIME_DIR=str(other))
    assert killed.returncode == 0, killed.stderr
    assert killed.stdout == undisturbed.stdout
    assert killed.stderr.count("starting a daemon") == 2


AWAY = """
import sys
import mlrs
from mlrs.local import launching
sys.executable += "-missing"
run = mlrs.run("task", horizon=10, initial_lr=0.25, on_unavailable=sys.argv[1], timeout_s=0.2)
print(run.next_lr(0, 1.0))
"""


def test_a_training_begins_though_no_daemon_starts(home: Home) -> None:
    """With `on_unavailable="fallback"` a run begins where its fallback does, and the reason is logged."""
    away, refused = home.ran(AWAY, "fallback"), home.ran(AWAY, "error")
    assert away.stdout.strip() == "0.25", away.stderr
    assert "no daemon can be started" in away.stderr
    assert refused.returncode == 1
    assert "UnavailableError: no daemon can be started" in refused.stderr


def test_a_daemon_that_cannot_be_reached_is_named(home: Home) -> None:
    """A daemon whose socket was removed, and that has a training, is said to be there, with its process."""
    training = home.started(
        "import sys, mlrs\nrun = mlrs.run('t', horizon=9, optimizer='sgd')\nrun.next_lr(0, 1.0)\n"
        "print('open', flush=True)\nsys.stdin.readline()",
        stdin=True,
    )
    try:
        assert training.stdout is not None
        assert training.stdout.readline() == "open\n"
        home.place.socket.unlink()
        ran = home.ran("import mlrs.local.starting as s; s.TAKEN_S = 1.0\n" + ADDRESS)
        assert "cannot be reached, since its socket was removed" in ran.stderr
        assert f"(process {home.holder})" in ran.stderr
    finally:
        training.communicate("\n", timeout=60)


def test_a_full_disk_is_said(home: Home) -> None:
    """Where nothing can be written, the error says so; once there is space, a daemon starts."""
    with small_disk(home.folder / "disk", "16m") as disk:
        with filled(disk):
            ran = home.ran(ADDRESS, XDG_STATE_HOME=str(disk))
        again = home.ran(ADVISED, XDG_STATE_HOME=str(disk))
        assert again.returncode == 0, again.stderr
        assert home.command("stop").returncode == 0
        assert ran.returncode == 1
        assert "no daemon could be started" in ran.stderr
        assert "No space left" in ran.stderr or "disk is full" in ran.stderr


def test_what_is_missing_is_named(home: Home) -> None:
    """Without the packages of the extra, the error names the command that installs them."""
    hidden = "import sys; sys.modules['sqlalchemy'] = None\nimport importlib.util as u\n"
    hidden += "real = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'sqlalchemy' else real(n, *a)\n"
    ran = home.ran(hidden + ADVISED)
    assert "pip install 'mlrs[server]'" in ran.stderr


def test_it_may_be_forbidden(home: Home) -> None:
    """`MLRS_AUTOSTART=0` forbids to start a daemon, and the error says what else to do."""
    ran = home.ran(ADVISED, MLRS_AUTOSTART="0")
    assert "MLRS_AUTOSTART=0 forbids" in ran.stderr
    assert "MLRS_TARGET" in ran.stderr


def test_a_job_on_several_machines_needs_an_address(home: Home) -> None:
    """A job whose processes are on several machines is told to name a daemon that all reach."""
    ran = home.ran(ADVISED, LOCAL_RANK="0", WORLD_SIZE="16", LOCAL_WORLD_SIZE="8")
    assert "several machines" in ran.stderr
    assert home.holder is None


def test_ranks_of_one_machine_share_one(home: Home) -> None:
    """The ranks of a job on one machine get one daemon, which its first rank starts."""
    ranks = [
        home.started(ADVISED, LOCAL_RANK=str(rank), WORLD_SIZE="3", LOCAL_WORLD_SIZE="3")
        for rank in (2, 1, 0)
    ]
    said = [rank.communicate(timeout=100)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], said
    assert ["starting a daemon" in text for text in said] == [False, False, True]


def test_settings_of_other_daemons_are_not_its_own(home: Home) -> None:
    """Variables that set up another daemon do not reach the one that is started on demand."""
    ran = home.ran(ADVISED, MLRS_LISTEN="127.0.0.1:1", MLRS_MODEL="none", MLRS_DATA_DIR="/nowhere")
    assert ran.returncode == 0, ran.stderr


def test_it_is_stopped_by_a_command(home: Home) -> None:
    """`mlrs stop` ends it with everything stored; a second one says that none runs."""
    assert home.ran(ADVISED).returncode == 0
    assert home.command("health").stdout.startswith("SERVING")
    holder = home.holder
    assert home.command("stop").stdout.startswith(f"stopped (process {holder})")
    assert home.command("stop").stdout == "no daemon of this user runs on this machine\n"


def test_a_second_one_says_where_the_first_is(home: Home) -> None:
    """`mlrs serve --local` beside a daemon that runs ends with an error that names its process."""
    assert home.ran(ADVISED).returncode == 0
    second = home.command("serve", "--local")
    assert second.returncode == 75
    assert f"process {home.holder}" in second.stderr


SERVING = "from mlrs_cli.__main__ import main; main()"


def test_it_ends_when_it_is_unused(home: Home) -> None:
    """Its last stream ended, a daemon ends by itself, and the next script starts another."""
    waiting = home.started("import mlrs, sys; print(); sys.stdin.readline()\n" + ADVISED, stdin=True)
    assert waiting.stdout is not None
    waiting.stdout.readline()  # all is imported, so that it connects before the daemon ends
    served = home.started(SERVING, "serve", "--local", "--exit-after-idle-s", "2")
    assert served.stdout is not None
    assert served.stdout.readline().startswith("mlrs is listening")
    _, said = waiting.communicate("\n", timeout=60)
    assert "starting a daemon" not in said
    assert served.wait(30) == 0
    served.communicate()
    again = home.ran(ADVISED)
    assert again.returncode == 0
    assert "starting a daemon" in again.stderr


def test_a_removed_socket_ends_it(home: Home) -> None:
    """A daemon whose socket was removed, as by the end of a login session, ends, and another one starts."""
    assert home.ran(ADVISED).returncode == 0
    holder = home.holder
    home.place.socket.unlink()
    ran = home.ran(ADVISED)
    assert ran.returncode == 0, ran.stderr
    assert home.holder not in (None, holder)


def test_a_socket_of_something_else_is_not_taken_for_a_daemon(home: Home) -> None:
    """A process of another kind at the socket's path is not taken for a daemon, and is not pushed aside."""
    assert home.ran(ADVISED).returncode == 0
    place = home.place
    home.kill_daemon()
    place.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place.socket))
        other.listen()
        ran = home.ran("import mlrs.local.starting as s; s.ANSWER_S = 0.2\n" + ADDRESS)
        assert "another process listens on" in ran.stderr


def test_a_read_only_home_is_no_obstacle(home: Home) -> None:
    """Where the state folder cannot be written, the data goes to /var/tmp."""
    with small_disk(home.folder / "disk") as disk, write_protected(disk):
        found = home.ran(
            "from mlrs.local.place import local_place; print(local_place().data_dir)",
            XDG_STATE_HOME=str(disk / "state"),
        )
    assert Path(found.stdout.strip()).is_relative_to(LASTING), found.stderr


FAILING = """
import logging, os, signal, sys
import mlrs
from mlrs.local import starting
from mlrs.local.place import local_place

logging.basicConfig()
starts, launch = [], starting.launched
run = mlrs.run("task", horizon=50, optimizer="sgd", timeout_s=60.0, memory=False)
run.next_lr(0, 1.0)
sys.executable = sys.executable + "-missing"
starting.launched = lambda place: (starts.append(place), launch(place))[1]
os.kill(int((local_place().data_dir / "daemon.lock").read_text()), signal.SIGKILL)
for step in range(1, 50):
    run.next_lr(step, 1.0, timeout_s=0.1)
print(len(starts))
"""


def test_a_start_that_fails_is_not_repeated_at_once(home: Home) -> None:
    """A training whose daemon cannot be started again goes on with its fallback, and tries seldom."""
    ran = home.ran(FAILING)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == 1
    assert ran.stderr.count("does not start again: no daemon can be started") == 1
