"""Train 256 small networks as one batched PyTorch model, each with its own advice.

The networks differ in their initial weights, their batches and their initial learning rates, which span three
decades. They are one model under `torch.vmap` and one sweep, which sends one message a step. Then the same
networks train at their initial learning rates throughout. The script starts a daemon, or uses a running one:

python examples/sweep.py [--address HOST:PORT] [--networks 256] [--steps 400]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from demo import daemon
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from support.digits import load_split
from torch.nn import functional

import mlrs

mpl.use("Agg")
from matplotlib import pyplot as plt

BATCH_SIZE, HIDDEN, CLASSES = 32, 32, 10
Rates = NDArray[np.float64]
console = Console()


class Networks:
    """Two-layer networks side by side: every tensor has one more dimension in front, the network."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        (images, labels), _ = load_split(seed)
        self._images, self._labels = torch.tensor(images), torch.tensor(labels)
        self._batches = generator
        sizes = [(64, HIDDEN), (HIDDEN, CLASSES)]
        self.parameters = [
            torch.randn(count, *size, generator=generator) / size[0] ** 0.5 for size in sizes
        ] + [torch.zeros(count, size[1]) for size in sizes]
        self._gradients = torch.vmap(torch.func.grad_and_value(self._loss))
        self._losses = torch.vmap(self._loss, in_dims=(0, None, None))

    @staticmethod
    def _loss(parameters: list[torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        first, second, first_bias, second_bias = parameters
        hidden = torch.relu(images @ first + first_bias)
        return functional.cross_entropy(hidden @ second + second_bias, labels)

    def look(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the gradients of a batch of its own for each network, and the losses, (networks,)."""
        count = len(self.parameters[0])
        batch = torch.randint(len(self._labels), (count, BATCH_SIZE), generator=self._batches)
        gradients, losses = self._gradients(self.parameters, self._images[batch], self._labels[batch])
        return gradients, losses

    def update(self, gradients: list[torch.Tensor], lrs: Rates) -> None:
        """Step with a learning rate for each network."""
        rates = torch.tensor(lrs, dtype=torch.float32)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.sub_(rates.reshape(-1, *[1] * (parameter.dim() - 1)) * gradient)

    def final_losses(self) -> NDArray[np.float32]:
        """Return the loss of each network on all training images."""
        with torch.no_grad():
            return self._losses(self.parameters, self._images, self._labels).numpy()


def train(
    networks: Networks, steps: int, lrs_of: Callable[[int, torch.Tensor], Rates], title: str
) -> tuple[NDArray[np.float64], float]:
    """Train; return the learning rates, (steps, networks), and the seconds a step spent on advice."""
    rates, spent_s = [], 0.0
    for step in track(range(steps), title, console=console):
        gradients, losses = networks.look()
        began = time.perf_counter()
        rates.append(lrs_of(step, losses))
        spent_s += time.perf_counter() - began
        networks.update(gradients, rates[-1])
    return np.array(rates), spent_s / steps


def draw(starts: Rates, rates: Rates, finals: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Draw what each network was advised, and where it ended by the rate it started from."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    order = np.argsort(starts)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(starts)))
    for colour, index in zip(colours, order, strict=True):
        left.plot(rates[:, index], color=colour, linewidth=0.4, alpha=0.6)
    left.set(yscale="log", xlabel="step", ylabel="learning rate", title="advice, by the rate to start from")
    for name, losses in finals.items():
        right.plot(starts[order], np.nan_to_num(losses, nan=np.inf)[order], ".", markersize=4, label=name)
    right.set(xscale="log", yscale="log", xlabel="learning rate to start from", ylabel="final training loss")
    right.set_title("where the networks ended")
    right.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train both ways; print a table, save a picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="a daemon, HOST:PORT; by default one is started")
    parser.add_argument("--networks", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count, steps = arguments.networks, arguments.steps
    starts = 10 ** np.random.default_rng(arguments.seed).uniform(-3, 0, count)
    advised = Networks(count, arguments.seed)
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = arguments.address or stack.enter_context(daemon(data_dir))
        advisor = stack.enter_context(mlrs.connect(address))
        ids = [f"sweep-{uuid.uuid4().hex[:8]}/{index}" for index in range(count)]
        sweep = stack.enter_context(
            advisor.sweep(ids, horizon=steps, num_classes=CLASSES, optimizer="sgd", initial_lr=starts)
        )
        rates, advice_s = train(advised, steps, sweep.next_lrs, "advised")
        sweep.finish()
    constant = Networks(count, arguments.seed)
    train(constant, steps, lambda _step, _losses: starts, "constant")
    finals = {"advised": advised.final_losses(), "constant": constant.final_losses()}
    table = Table("", "best", "median", "worst", title=f"final training loss of {count} networks")
    for name, losses in finals.items():
        values = np.nan_to_num(losses, nan=np.inf)
        table.add_row(name, *(f"{value:.4g}" for value in np.quantile(values, [0, 0.5, 1])))
    console.print(table)
    console.print(f"advice for all {count}: {advice_s * 1e3:.2f} ms a step")
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(starts, rates, finals, arguments.out / "sweep.png")
    console.print(f"picture: {arguments.out / 'sweep.png'}")


if __name__ == "__main__":
    main()
