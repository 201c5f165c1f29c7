"""The paper's network as a torch module: slow, obvious, differentiable.

The oracle of the kernel, and what meta-training trains.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mlrs_core.networks.architecture import Weights
from mlrs_core.networks.paper.spec import PaperSpec

State = list[tuple[Tensor, Tensor]]
"""Hidden and cell state of each layer, (n, H) each."""


class PaperCell(nn.Module):
    """One LSTM cell of the paper: gates from two perceptrons instead of two matrices."""

    def __init__(self, inputs: int, spec: PaperSpec) -> None:
        """Build a cell for inputs of this width."""
        super().__init__()
        hidden, half = spec.hidden_size, spec.hidden_size // 2
        self.layout = spec.gate_layout
        self.i2h = nn.Sequential(nn.Linear(inputs, half), nn.ReLU(), nn.Linear(half, 4 * hidden))
        self.h2h = nn.Sequential(nn.Linear(hidden, half), nn.ReLU(), nn.Linear(half, 4 * hidden))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (n, inputs), state and result (n, H) twice (Shu et al., eq. 5)."""
        hidden, memory = state
        gates = dict(zip(self.layout, (self.i2h(x) + self.h2h(hidden)).chunk(4, dim=1), strict=True))
        offset = 1.0 if self.layout == "ifog" else 0.0
        forget = torch.sigmoid(gates["f"] - offset)
        memory = forget * memory + torch.sigmoid(gates["i"]) * torch.tanh(gates["g"])
        return torch.sigmoid(gates["o"]) * torch.tanh(memory), memory


class PaperNet(nn.Module):
    """The whole network, before gamma."""

    def __init__(self, spec: PaperSpec) -> None:
        """Build it with torch's default initialisation."""
        super().__init__()
        self.spec = spec
        widths = [1] + [spec.hidden_size] * (spec.num_layers - 1)
        self.layers = nn.ModuleList(PaperCell(width, spec) for width in widths)
        self.head = nn.Linear(spec.hidden_size, 1)

    def init_state(self, n: int) -> State:
        """Return the states of n runs before their first step."""
        zeros = torch.zeros(n, self.spec.hidden_size, dtype=self.head.weight.dtype)
        return [(zeros, zeros) for _ in self.layers]

    def forward(self, losses: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance n runs by one step.

        Args:
            losses: (n,), nats.
            state: as `init_state` or the step before gave it.

        Returns:
            sigma, (n,), in (0, 1): the learning rate over gamma; and the new state.
        """
        x = losses.unsqueeze(1)
        moved = []
        for cell, before in zip(self.layers, state, strict=True):
            after = cell(x, before)
            moved.append(after)
            x = after[0]
        return torch.sigmoid(self.head(x)).squeeze(1), moved


def weights_of(net: PaperNet) -> Weights:
    """Return a copy of the network's weights as float32 arrays, by name."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32) for name, tensor in net.state_dict().items()
    }


def net_with(spec: PaperSpec, weights: Weights | Mapping[str, np.ndarray]) -> PaperNet:
    """Return a network with these weights."""
    net = PaperNet(spec)
    net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return net
