"""What the memory of a task adds to opening a run of it: 10,000 remembered runs against none, over gRPC.

python -m performance.daemon.open_with_memory
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

import grpc
import numpy as np

from mlrs_core.config import Optimizer
from mlrs_core.memory import Ending, PastRun
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.storage import open_store
from mlrs_server.storage.past_runs import pack
from mlrs_server.storage.tables import past_runs
from mlrs_server.system.data_folder import STORE_FILE
from performance.shared import servers

REMEMBERED, ROUNDS = 10_000, 300
"""The runs of the task that are remembered; and how often a run of each kind is opened."""
HORIZON = 1000
KINDS = {
    "without memory": ("task", pb.EXPLORE_UNSPECIFIED),
    "first run of a task": ("new", pb.EXPLORE_CAREFUL),
    f"{REMEMBERED:,} remembered runs": ("task", pb.EXPLORE_CAREFUL),
}
"""What is opened: a run of this task, with this part in its memory."""


def remember(folder: Path) -> None:
    """Fill a store with past runs of one task, whose rates and losses are drawn at random."""
    chance = np.random.default_rng(0)
    octaves = chance.normal(-8.0, 1.5, REMEMBERED)
    losses = 0.3 + 0.02 * (octaves + 8.0) ** 2 + chance.normal(0.0, 0.01, REMEMBERED)
    rows = [
        {
            "task": "task",
            "run_key": key + 1,
            "time": float(key),
            "record": pack(
                PastRun(
                    run_id=f"task/{key}",
                    ending=Ending.REACHED,
                    policy="wsd",
                    learning_rate=float(2.0**octave),
                    searched=key == 0,
                    optimizer=Optimizer.ADAMW,
                    horizon=HORIZON,
                    validation_loss=float(loss),
                )
            ),
        }
        for key, (octave, loss) in enumerate(zip(octaves, losses, strict=True))
    ]
    folder.mkdir()
    with closing(open_store(folder / STORE_FILE)) as store, store.transaction() as connection:
        connection.execute(past_runs.insert(), rows)
        store.give_keys_after(connection, REMEMBERED)


def measure(rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds of opening a run, of each kind in turn."""
    taken: dict[str, list[float]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        data = Path(folder) / "data"
        remember(data)
        with (
            servers.daemon("--data-dir", str(data), unix=True) as daemon,
            grpc.insecure_channel(daemon.address) as channel,
        ):
            stub = AdvisorServiceStub(channel)
            for number in range(rounds + 20):
                for name, (task, explore) in KINDS.items():
                    request = pb.OpenRunRequest(
                        run_id=f"run-{number}-{len(taken[name])}-{task}-{explore}",
                        task=task if explore == pb.EXPLORE_UNSPECIFIED or task == "task" else f"new-{number}",
                        explore=explore,
                        config=pb.RunConfig(horizon=HORIZON, optimizer=pb.OPTIMIZER_ADAMW),
                    )
                    began = time.perf_counter()
                    opened = stub.OpenRun(request)
                    taken[name].append(1e3 * (time.perf_counter() - began))
                    assert opened.run.config.recalled.decided == (name == list(KINDS)[-1])
                    stub.DeleteRun(pb.DeleteRunRequest(run_id=request.run_id))
    return {name: np.array(values[20:]) for name, values in taken.items()}


def main() -> None:
    """Measure, and print medians, and ratios to a run without memory with their intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: a try, not a measurement")
    taken = measure(30 if parser.parse_args().quick else ROUNDS)
    base = taken["without memory"]
    chance = np.random.default_rng(0)
    for name, values in taken.items():
        picks = chance.integers(len(values), size=(2000, len(values)))
        ratios = np.median(values[picks], axis=1) / np.median(base[picks], axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        ratio = np.median(values) / np.median(base)
        print(f"{name:24} {np.median(values):6.2f} ms  x{ratio:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
