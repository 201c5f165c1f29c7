"""The loops of the pages, run twice, killed, started again; scripts whose daemon is late, away, or gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon, write_random_model

DOCS = Path(__file__).parents[3] / "docs"
PAGES = (DOCS / "start" / "three-lines.md", DOCS / "guides" / "checkpoints.md")
"""The pages whose loops these are."""
YOURS = """
import json, os, pathlib
file = pathlib.Path(__file__).with_suffix(".json")
def load_checkpoint():
    return json.loads(file.read_text()) if file.exists() else {}
def save_checkpoint(saved):
    file.with_suffix(".part").write_text(json.dumps(saved))
    os.replace(file.with_suffix(".part"), file)
def train_batch(step):
    return 2.5 / (1 + 0.05 * step) + 0.1 * ((step * 7919) % 13) / 13
def update_weights(lr):
    print(step, lr.hex(), flush=True)
"""
TORCH = """
import os, sys, torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Linear(4, 2)
loss_fn = nn.CrossEntropyLoss()
batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(60)]
file = __file__ + ".pt"
"""
RESUMES = """
saved = torch.load(file, weights_only=True) if os.path.exists(file) else {}
for name, part in {"model": model, "optimizer": optimizer, "scheduler": scheduler}.items():
    if saved:
        part.load_state_dict(saved[name])
loader = batches[scheduler.last_epoch:]
"""
SAVES = """
    print(scheduler.last_epoch - 1, loss.item().hex(), scheduler.get_last_lr()[0].hex(), flush=True)
    if scheduler.last_epoch % 20 == 0 and "checkpoint" in sys.argv:
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file + ".part")
        os.replace(file + ".part", file)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file."""
    return write_random_model(tmp_path / "model.safetensors")


def blocks(language: str) -> list[str]:
    """Return the pages' blocks of code in a language."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    return [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def plain(word: str, *, without: str = "") -> str:
    """Return the pages' plain loop that has a word in it, without memory: its runs are compared."""
    (found,) = [
        block
        for block in blocks("python")
        if "train_batch" in block and word in block and not (without and without in block)
    ]
    return YOURS + found.replace('run("my-task", ', 'run("my-task", memory=False, ')


def pytorch() -> str:
    """Return the pages' PyTorch loop, in a script that saves, and goes on from, a checkpoint."""
    (diff,) = blocks("diff")
    code = "".join(line[1:] for line in diff.splitlines(keepends=True) if not line.startswith("-"))
    before, loop = code.split("for x, y in loader:\n")
    return TORCH + before + RESUMES + "for x, y in loader:\n" + loop + SAVES


class Script:
    """A script of a user's, at a daemon's address."""

    def __init__(self, path: Path, text: str, address: str, *arguments: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._command = [sys.executable, str(path), *arguments]
        self._environment = {**os.environ, "MLRS_TARGET": address}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Run it; killed at the end if it still runs."""
        with subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, kill_after: int | None = None) -> list[list[str]]:
        """Run it to its end, or kill it after so many lines; return the words of each line."""
        seen: list[list[str]] = []
        with self.running() as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                seen.append(line.split())
                if len(seen) == kill_after:
                    return seen
            assert process.wait() == 0, process.stderr.read()
        return seen


def records(daemon: Daemon, task: str) -> dict[str, list[str]]:
    """Return the learning rates of every run of a task, as the daemon has them."""
    with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
        return {
            run.id: [lr.hex() for chunk in advisor.watch(run.id) for lr in chunk.learning_rates]
            for run in advisor.runs(prefix=f"{task}/")
        }


def test_the_plain_loop_run_twice_and_killed(tmp_path: Path, model: Path) -> None:
    """Without a checkpoint every start is a new run, with the schedule from its beginning."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        script = Script(tmp_path / "script.py", plain("range(1000)"), daemon.address)
        starts = [script.run(kill_after) for kill_after in (None, 40, None)]
        found = records(daemon, "my-task")
    whole, killed, again = ([lr for _, lr in start] for start in starts)
    assert len(whole) == 1000
    assert again == whole
    assert killed == whole[:40]
    assert len(found) == 3
    assert sorted(len(lrs) for lrs in found.values())[1:] == [1000, 1000]


def test_the_plain_loop_with_a_checkpoint(tmp_path: Path, model: Path) -> None:
    """Killed and started again from its checkpoint, it is one run, with an undisturbed one's rates."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        undisturbed = Script(tmp_path / "whole.py", plain("range(1000)"), daemon.address).run()
        script = Script(tmp_path / "script.py", plain("load_checkpoint"), daemon.address)
        starts = [script.run(kill_after) for kill_after in (150, 30, 320, None)]
        run_id = json.loads((tmp_path / "script.json").read_text())["run_id"]
        assert records(daemon, "my-task")[run_id] == [lr for _, lr in undisturbed]
    begins = [int(start[0][0]) for start in starts]  # a script may be further than what was read of it
    assert begins[0] == 0
    assert begins[1] >= 100
    assert begins == sorted(begins)
    assert all(begin % 100 == 0 for begin in begins)
    for begin, start in zip(begins, starts, strict=True):
        assert start == undisturbed[begin:][: len(start)]


@pytest.mark.parametrize("way", ["checkpoint", pytest.param("none", marks=pytest.mark.slow)])
def test_the_pytorch_loop(tmp_path: Path, model: Path, way: str) -> None:
    """Started again it goes on as its checkpoint's run, bit for bit; without one it is a new run."""
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon:
        undisturbed = Script(tmp_path / "whole.py", pytorch(), daemon.address).run()
        script = Script(tmp_path / "script.py", pytorch(), daemon.address, way)
        starts = [script.run(kill_after) for kill_after in (50, None)]
        found = records(daemon, "resnet18-cifar10")
    assert len(undisturbed) == 60
    begins = 60 - len(starts[1])  # the script may be further than what was read of it
    assert begins in ({40, 60} if way == "checkpoint" else {0})
    assert starts == [undisturbed[:50], undisturbed[begins:]]
    assert len(found) == (2 if way == "checkpoint" else 3)
    assert list(found.values()).count([lr for *_, lr in undisturbed]) == 2


SLOW = """
import pathlib, sys, time
import mlrs
task, stop = "outages", pathlib.Path(sys.argv[1])
advisor = mlrs.connect(timeout_s=0.2, unsent_dir=sys.argv[2])
run = advisor.run(task, id="outages/one", horizon=100_000, num_classes=10, {more})
"""
LOOPS = {
    "plain": SLOW.replace("{more}", 'optimizer="sgd", on_unavailable="fallback"')
    + """
step = 0
while not stop.exists():
    loss = 2.5 / (1 + 0.05 * step) + 0.1 * ((step * 7919) % 13) / 13
    lr = run.next_lr(step, loss)
    print(step, loss.hex(), lr.hex(), flush=True)
    step += 1
    time.sleep(0.002)
run.finish()
advisor.close()
""",
    "torch": SLOW.replace("{more}", "")
    + """
import torch
from mlrs.torch import AdvisedLR
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scheduler = AdvisedLR(optimizer, run)
step = 0
while not stop.exists():
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(2, (8,)))
    scheduler.observe(loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    print(step, loss.item().hex(), scheduler.get_last_lr()[0].hex(), flush=True)
    step += 1
    time.sleep(0.002)
run.finish()
advisor.close()
""",
}


@pytest.mark.parametrize("loop", ["torch", pytest.param("plain", marks=pytest.mark.slow)])
def test_a_script_whose_daemon_comes_and_goes(tmp_path: Path, model: Path, loop: str) -> None:
    """Started before its daemon, away in the middle and at the end: it ends well, and nothing is lost."""
    daemon = Daemon(tmp_path / "data", "--model", str(model))
    with daemon:  # to have an address, and to go away again
        daemon.kill()
        text = LOOPS[loop]
        script = Script(
            tmp_path / "script.py", text, daemon.address, str(tmp_path / "stop"), str(tmp_path / "unsent")
        )
        with script.running() as process:
            assert process.stdout is not None
            assert process.stderr is not None
            seen: list[list[str]] = []
            lines = process.stdout
            # Read all the time: a script that fills the pipe would stand still.
            reader = threading.Thread(target=lambda: seen.extend(line.split() for line in lines))
            reader.start()

            def until(steps: int) -> None:
                """Let the script take so many steps more."""
                end = len(seen) + steps
                while len(seen) < end:
                    time.sleep(0.005)

            def reported(what: str) -> None:
                """Wait for a warning."""
                assert process.stderr is not None
                line = process.stderr.readline()
                warnings.append(line)
                assert what in line

            warnings: list[str] = []
            for _ in range(2):
                until(20)
                reported("no advice in time; going on with the fallback")
                daemon.start()
                reported("the daemon is back and has every loss")
                until(50)
                daemon.kill()
            until(20)
            reported("no advice in time; going on with the fallback")
            (tmp_path / "stop").touch()
            reported("mlrs runs push")
            assert process.stderr.read() == ""
            assert process.wait() == 0
            reader.join()
        (path,) = (tmp_path / "unsent").iterdir()
        daemon.start()
        command = [sys.executable, "-m", "mlrs_cli", "runs", "push", str(path), "--address", daemon.address]
        pushed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (pushed.returncode, pushed.stderr) == (0, "")
        assert pushed.stdout == f"run outages/one: at step {len(seen)}, finished\n"
        with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
            losses = [loss.hex() for chunk in advisor.watch("outages/one") for loss in chunk.losses]
    assert losses == [loss for _, loss, _ in seen]
    assert [int(step) for step, *_ in seen] == list(range(len(seen)))
    first_rate = float.fromhex(seen[0][2])
    assert first_rate == pytest.approx(0.1 if loop == "plain" else 0.05)
