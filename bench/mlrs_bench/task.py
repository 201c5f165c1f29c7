"""A task: what is trained, and how it is judged. The interface for tasks of one's own.

`docs/guides/quality-tasks.md` has an example, and says how to run it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlrs_bench.sources import described, source_of
from mlrs_train.tasks import Examples

__all__ = [
    "Examples",
    "Splits",
    "Task",
    "cross_entropy",
    "default_weight_decay",
    "share_correct",
    "squared_error",
]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The data of a task, the same whenever it is loaded."""

    train: Examples
    """What is trained on; at least a batch."""
    valid: Examples
    """What tuning chooses by."""
    test: Examples
    """What the result is measured on, after the last step."""

    @classmethod
    def of(cls, examples: Examples, train: int, valid: int, test: int) -> Splits:
        """Return the first examples to train on, the next to validate on, and the next to test on."""
        end = train + valid
        return cls(train=examples[:train], valid=examples[train:end], test=examples[end : end + test])


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of logits (..., C) against classes (...)."""
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error."""
    return functional.mse_loss(outputs, targets)


def share_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of targets (...) whose logit in (..., C) is the largest."""
    return (outputs.argmax(-1) == targets).double().mean()


def default_weight_decay() -> dict[str, float]:
    """Return the default weight decay, by optimizer."""
    return {"sgd": 5e-4, "adamw": 0.01}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained: data, network, loss, and for how long.

    The loss is a mean over examples, so that the means of batches can be averaged.
    """

    name: str
    """Letters, digits and hyphens."""
    load: Callable[[], Splits]
    """Loads or draws the data; nothing in it may differ from one call to the next."""
    network: Callable[[], nn.Module]
    """Builds the network. Its weights are drawn from torch's global generator, seeded before."""
    horizon: int
    """Steps of a training."""
    batch_size: int
    """Examples in a step; drawn without replacement until all were seen."""
    num_classes: int | None = None
    """The number of classes of a classification, which methods are given; `None` for other tasks."""
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    """(outputs, targets) to a scalar: what is minimized, and compared on the test examples."""
    loss_name: str = "cross-entropy, nats"
    """What the loss is, for the report."""
    accuracy: Callable[[Tensor, Tensor], Tensor] | None = None
    """(outputs, targets) to a scalar in [0, 1], where there is such a thing."""
    weight_decay: Mapping[str, float] = field(default_factory=default_weight_decay)
    """By optimizer."""
    tuned_at: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The base LRs, ascending, that tuning tries, and no others, by optimizer; the task has rows of these
    optimizers only. Empty: it has rows of all, each with the optimizer's grid, which grows."""
    version: str = "1"
    """Changed when results of before count no longer, for reasons that `fingerprint` does not see."""

    def fingerprint(self, splits: Splits) -> str:
        """Return a digest of what a result of this task depends on.

        Data, first weights, the `forward` of every module, loss, accuracy, settings.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self.network()
        parts = [self.version, str(network), self.horizon, self.batch_size, self.num_classes]
        parts += [sorted(self.weight_decay.items()), described(self.loss), described(self.accuracy)]
        forwards = dict.fromkeys(type(module).forward for module in network.modules())
        parts += map(source_of, forwards)
        state = hashlib.sha256(repr(parts).encode())
        sets = (splits.train, splits.valid, splits.test)
        for tensor in [*network.state_dict().values(), *(t for s in sets for t in (s.inputs, s.targets))]:
            state.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            state.update(tensor.contiguous().numpy().tobytes())
        return state.hexdigest()
