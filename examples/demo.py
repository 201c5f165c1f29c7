"""The demo: two training loops in separate processes, advised by one daemon.

A CNN in PyTorch and a logistic regression in plain NumPy train on digits at the same time, first
advised, then with a constant, a cosine and a step schedule with default settings. The table and
the picture show the results, whichever is best. The daemon keeps all of these runs, for `mlrs dashboard`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import mlrs

HERE = Path(__file__).parent
SCHEDULES = ["advised", "constant", "cosine", "step"]
LOOPS = {"PyTorch CNN": "train_torch.py", "NumPy softmax": "train_numpy.py"}
KINDS = {"constant": "constant", "cosine": "cosine", "step": "multi-step"}
"""What the daemon calls the other schedules; `examples/support/schedules.py` has their formulas."""

console = Console()


@dataclass
class Training:
    """One training process and what it reported."""

    loop: str
    schedule: str
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    result: dict[str, float] = field(default_factory=dict)


@contextmanager
def daemon(data_dir: Path) -> Iterator[str]:
    """Run `mlrs serve` on a free port; yield its address."""
    command = [
        sys.executable,
        "-m",
        "mlrs_cli",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        str(data_dir),
    ]
    with (data_dir / "daemon.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                sys.exit(f"the daemon did not start; see {log.name}")
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def task_of(training: Training) -> str:
    """Return the task of a training: what is trained."""
    return f"demo/{Path(LOOPS[training.loop]).stem.removeprefix('train_')}"


def train(training: Training, address: str, steps: int, progress: Progress) -> None:
    """Run one training process, following it on a progress bar."""
    task = progress.add_task(
        f"{training.schedule:9} {training.loop}", total=steps, loss=math.nan, lr=math.nan
    )
    command = [sys.executable, str(HERE / LOOPS[training.loop]), "--schedule", training.schedule]
    command += ["--address", address, "--steps", str(steps)]
    command += ["--task", task_of(training), "--run-id", f"{task_of(training)}/advised"]
    quietly = {**os.environ, "MLRS_QUIET": "1"}  # what runs are called would go through the progress bars
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quietly)
    assert process.stdout is not None
    for line in process.stdout:
        facts = json.loads(line)
        if "step" in facts:
            training.losses.append(facts["loss"])
            training.lrs.append(facts["lr"])
            progress.update(task, completed=facts["step"] + 1, loss=facts["loss"], lr=facts["lr"])
        else:
            training.result = facts
    if process.wait() or not training.result:
        console.print(f"[red]{' '.join(command)} failed with status {process.returncode}")


def train_pair(schedule: str, address: str, steps: int, progress: Progress) -> list[Training]:
    """Train both loops at the same time."""
    pair = [Training(loop, schedule) for loop in LOOPS]
    threads = [threading.Thread(target=train, args=(each, address, steps, progress)) for each in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pair


def keep(trainings: list[Training], address: str) -> None:
    """Have the daemon keep the trainings that it did not advise, to be seen beside the others.

    They become runs that follow the schedules which the trainings followed.
    """
    with mlrs.connect(address, timeout_s=60.0) as advisor:
        for training in (each for each in trainings if each.schedule in KINDS):
            policy = mlrs.Schedule(KINDS[training.schedule], base_lr=training.lrs[0])
            run_id, steps = f"{task_of(training)}/{training.schedule}", len(training.losses)
            with advisor.run(
                task_of(training), id=run_id, policy=policy, horizon=steps, optimizer="sgd"
            ) as run:
                answers = [run.observe(step, loss) for step, loss in enumerate(training.losses)]
                assert all(
                    math.isclose(answer.lr(), lr, rel_tol=1e-6, abs_tol=1e-12)
                    for answer, lr in zip(answers, training.lrs, strict=True)
                ), f"{run_id} did not follow its schedule"
                run.finish()


def show(trainings: list[Training]) -> None:
    """Print what happened."""
    table = Table("training loop", "schedule", "final train loss", "test accuracy", "advice per step")
    for loop in LOOPS:
        for training in (each for each in trainings if each.loop == loop):
            result = training.result
            table.add_row(
                loop,
                training.schedule,
                f"{result['train_loss']:.4f}",
                f"{result['test_accuracy']:.1%}",
                f"{result['advice_s'] * 1e6:.0f} µs",
            )
        table.add_section()
    console.print(table)


def draw(trainings: list[Training], path: Path) -> None:
    """Draw losses and LRs of all trainings."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(LOOPS), figsize=(11, 6.5), sharex=True, layout="constrained")
    colours = dict(zip(SCHEDULES, ["#d1495b", "#8d99ae", "#2e86ab", "#66a182"], strict=True))
    for column, loop in enumerate(LOOPS):
        for training in (each for each in trainings if each.loop == loop):
            style = {"color": colours[training.schedule], "label": training.schedule}
            style["linewidth"] = 2.0 if training.schedule == "advised" else 1.2
            axes[0][column].plot(smooth(training.losses), **style)
            axes[1][column].plot(training.lrs, **style)
        axes[0][column].set_title(loop)
        axes[0][column].set_yscale("log")
        axes[1][column].set_yscale("log")
        axes[1][column].set_ylim(bottom=1e-4)
        axes[1][column].set_xlabel("step")
        for row in range(2):
            axes[row][column].grid(alpha=0.25)
    axes[0][0].set_ylabel("training loss, nats (smoothed)")
    axes[1][0].set_ylabel("learning rate")
    axes[0][0].legend(frameon=False)
    figure.suptitle("Digits, SGD: advised by the daemon, and schedules at common defaults")
    figure.savefig(path, dpi=110)


def smooth(losses: list[float], keep: float = 0.95) -> list[float]:
    """Return the exponential moving average of losses, corrected for its start."""
    average, weight, out = 0.0, 0.0, []
    for loss in losses:
        average = keep * average + (1 - keep) * loss
        weight = keep * weight + (1 - keep)
        out.append(average / weight)
    return out


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    state = arguments.out / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    trainings: list[Training] = []
    columns = [
        TextColumn("{task.description:22}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f} lr {task.fields[lr]:.5f}"),
        TimeElapsedColumn(),
    ]
    with daemon(state) as address:
        console.print(f"one daemon on {address}; two training processes at a time")
        with Progress(*columns, console=console) as progress:
            for schedule in SCHEDULES:
                trainings += train_pair(schedule, address, arguments.steps, progress)
        if not all(training.result for training in trainings):
            sys.exit("a training process failed; see above")
        keep(trainings, address)
    show(trainings)
    picture = arguments.out / "demo.png"
    draw(trainings, picture)
    results = [{"loop": each.loop, "schedule": each.schedule, **each.result} for each in trainings]
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(f"losses and learning rates: {picture}")
    console.print(f"the runs in the dashboard: {dashboard_command(state)}", soft_wrap=True)


def dashboard_command(state: Path) -> str:
    """Return the command that shows the runs, as it works in this folder."""
    mlrs_command = Path(sys.executable).with_name("mlrs")
    if mlrs_command.is_relative_to(Path.cwd()):
        mlrs_command = mlrs_command.relative_to(Path.cwd())
    return shlex.join([str(mlrs_command), "dashboard", "--data-dir", str(state)])


if __name__ == "__main__":
    main()
