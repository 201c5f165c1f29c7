"""The paper's network in plain Python: an oracle of its equations, and the traces that it makes.

Written from the paper (Shu et al. 2022, section 3 and eq. 5) and from what the authors' two programs do, in
double precision, one number at a time. It shares no code with the kernel, the torch module or the scale
rule: it even reads model files by itself.

    python -m tests.core.networks.paper_oracle

writes `paper_traces.json` anew: losses, the network's output sigma, and the learning rates under the
authors' scale rule, of small networks, whose weights are in it, and of the shipped `paper`.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("paper_traces.json")
SHIPPED = Path(__file__).parents[3] / "mlrs_core" / "models" / "paper.safetensors"
HORIZON = 60
"""Steps of a trace."""
CLASSES = 10
"""Of the task of a trace."""
UNIT = 64
"""Weights of small networks are whole numbers over this: exact in single precision, and short."""

Vector = list[float]
Matrix = list[Vector]
Snapshot = Mapping[str, Any]
"""Weights by the authors' names: matrices and vectors."""


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + math.exp(-x))


def affine(weights: Snapshot, name: str, x: Vector) -> Vector:
    """Return W x + b."""
    rows: Matrix = weights[f"{name}.weight"]
    bias: Vector = weights[f"{name}.bias"]
    return [
        math.fsum(weight * value for weight, value in zip(row, x, strict=True)) + add
        for row, add in zip(rows, bias, strict=True)
    ]


def perceptron(weights: Snapshot, name: str, x: Vector) -> Vector:
    """Return W2 max(W1 x + b1, 0) + b2."""
    between = [max(value, 0.0) for value in affine(weights, f"{name}.0", x)]
    return affine(weights, f"{name}.2", between)


def cell(weights: Snapshot, name: str, layout: str, x: Vector, h: Vector, c: Vector) -> tuple[Vector, Vector]:
    """Return the next hidden and cell state: c' = f c + i g, h' = o tanh(c')."""
    below, before = perceptron(weights, f"{name}.fc_i2h", x), perceptron(weights, f"{name}.fc_h2h", h)
    gates = [one + other for one, other in zip(below, before, strict=True)]
    size = len(h)
    parts = {gate: gates[index * size : (index + 1) * size] for index, gate in enumerate(layout)}
    offset = 1.0 if layout == "ifog" else 0.0  # the authors' meta-train program
    kept = [
        sigmoid(forget - offset) * old + sigmoid(take) * math.tanh(new)
        for forget, old, take, new in zip(parts["f"], c, parts["i"], parts["g"], strict=True)
    ]
    return [sigmoid(out) * math.tanh(value) for out, value in zip(parts["o"], kept, strict=True)], kept


def gamma(loss: float, classes: int) -> float:
    """Return the upper bound of the learning rate, by the authors' rule."""
    return abs(math.sqrt(loss) * math.log(loss * classes) / classes**0.25) / 4


@dataclass(frozen=True)
class Network:
    """A network of the paper."""

    name: str
    layout: str
    """The order of the gates: `ifgo` or `ifog`."""
    snapshots: Sequence[Snapshot]
    """In the order of the horizon; each has an equal part of it."""

    @property
    def cells(self) -> list[str]:
        """The authors' names of its cells."""
        numbers = {name.split(".")[1] for name in self.snapshots[0] if name.startswith("layer2.")}
        return ["layer1", *(f"layer2.{number}" for number in sorted(numbers))]

    def trace(self, losses: Sequence[float], used: Sequence[int]) -> tuple[Vector, Vector]:
        """Return sigma at each loss, and the learning rate: sigma times gamma of the snapshot's first loss.

        Args:
            losses: of one run, in nats.
            used: the number of the snapshot at each.
        """
        size = len(self.snapshots[0]["layer3.weight"][0])
        state = {name: ([0.0] * size, [0.0] * size) for name in self.cells}
        sigmas, rates, scale = [], [], math.nan
        for step, (loss, number) in enumerate(zip(losses, used, strict=True)):
            weights, x = self.snapshots[number], [loss]
            if step == 0 or number != used[step - 1]:
                scale = gamma(loss, CLASSES)
            for name in self.cells:
                state[name] = cell(weights, name, self.layout, x, *state[name])
                x = state[name][0]
            (score,) = affine(weights, "layer3", x)
            sigmas.append(sigmoid(score))
            rates.append(scale * sigmas[-1])
        return sigmas, rates


def thirds(count: int) -> list[int]:
    """Return the snapshot of each step by the transfer rule: `count` equal parts of the horizon."""
    return [min(step // (HORIZON // count), count - 1) for step in range(HORIZON)]


def small_network(layout: str, layers: int, seed: int) -> Network:
    """Return a network with 4 hidden units and three snapshots of random weights."""
    numbers = random.Random(seed)  # noqa: S311 -- not a secret
    size, half = 4, 2

    def vector(length: int) -> Vector:
        return [numbers.randint(-UNIT, UNIT) / UNIT for _ in range(length)]

    def snapshot() -> Snapshot:
        weights: dict[str, Any] = {}
        for layer in range(layers):
            cell = "layer1" if layer == 0 else f"layer2.{layer - 1}"
            for part, inputs in (("fc_i2h", 1 if layer == 0 else size), ("fc_h2h", size)):
                weights[f"{cell}.{part}.0.weight"] = [vector(inputs) for _ in range(half)]
                weights[f"{cell}.{part}.0.bias"] = vector(half)
                weights[f"{cell}.{part}.2.weight"] = [vector(half) for _ in range(4 * size)]
                weights[f"{cell}.{part}.2.bias"] = vector(4 * size)
        weights["layer3.weight"], weights["layer3.bias"] = [vector(size)], vector(1)
        return weights

    return Network(f"{layout}, {layers} layers", layout, [snapshot() for _ in range(3)])


def shipped_network() -> Network:
    """Return the shipped `paper`, read without any code of mlrs."""
    data = SHIPPED.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = json.loads(header.pop("__metadata__")["mlrs"])
    snapshots: list[dict[str, Any]] = [{} for _ in range(metadata["snapshots"])]
    for name, tensor in header.items():
        start, end = (8 + length + index for index in tensor["data_offsets"])
        numbers = list(struct.unpack(f"<{(end - start) // 4}f", data[start:end]))
        _, index, *rest = name.split(".")
        width = tensor["shape"][-1]
        is_matrix = len(tensor["shape"]) == 2
        rows = [numbers[at : at + width] for at in range(0, len(numbers), width)] if is_matrix else numbers
        snapshots[int(index)][authors_name(".".join(rest))] = rows
    return Network("the shipped paper", metadata["architecture"]["gate_layout"], snapshots)


def authors_name(name: str) -> str:
    """Return the authors' name of one of our weights."""
    first, _, rest = name.partition(".")
    if first == "head":
        return f"layer3.{rest}"
    layer, _, rest = rest.partition(".")
    return f"layer1.fc_{rest}" if layer == "0" else f"layer2.{int(layer) - 1}.fc_{rest}"


def losses_of(seed: int) -> Vector:
    """Return losses that fall from ln 10 with noise; the scale rule needs no guard at any."""
    numbers = random.Random(seed)  # noqa: S311 -- not a secret
    return [
        round((0.4 + 1.9 * math.exp(-step / 25)) * numbers.uniform(0.85, 1.2), 4) for step in range(HORIZON)
    ]


def networks() -> list[Network]:
    """Return the networks that traces are made of."""
    small = [
        small_network(layout, layers, seed)
        for seed, (layout, layers) in enumerate(
            (layout, layers) for layout in ("ifgo", "ifog") for layers in (1, 3)
        )
    ]
    return [*small, shipped_network()]


def cases() -> list[dict[str, Any]]:
    """Return the traces as JSON values."""
    made = []
    for number, network in enumerate(networks()):
        losses, used = losses_of(number), thirds(len(network.snapshots))
        sigmas, rates = network.trace(losses, used)
        stored: dict[str, Any] = {"name": network.name, "gate_layout": network.layout}
        if network.name.startswith("if"):
            stored["weights"] = [scaled(snapshot) for snapshot in network.snapshots]
        made.append({**stored, "losses": losses, "sigma": sigmas, "learning_rate": rates})
    return made


def scaled(snapshot: Snapshot) -> dict[str, Any]:
    """Return weights as whole numbers over `UNIT`."""

    def whole(values: Any) -> Any:
        return [whole(value) for value in values] if isinstance(values, list) else round(values * UNIT)

    return {name: whole(values) for name, values in snapshot.items()}


def main() -> None:
    """Write the traces."""
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases())
    FILE.write_text(
        f'{{"horizon":{HORIZON},"num_classes":{CLASSES},"weights_over":{UNIT},"cases":[\n{lines}\n]}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
