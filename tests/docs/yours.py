"""What the pages leave to their readers, for the blocks of each page: models, batches, functions.

A block of a page that shows a whole script finds here only what it calls the reader's own. A block that shows
some lines of one finds also what the lines before it would have made, such as `advisor` or `run`. Where a
page's lines are the body of a loop over `step`, `STEPS` says for how many steps they are run.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import mlrs
from mlrs.torch import AdvisedLR, MetaStep
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.problem import Problem, batched
from mlrs_train.tasks import BaseTask, Batch, Examples, Params, module_task
from tests.docs.blocks import Block

Names = dict[str, Any]
Connect = Callable[[], mlrs.Advisor]
FEW_STEPS = 20
"""How many steps of a loop of a thousand are taken."""
STEPS = 5
"""For how many steps lines are run that are the body of a loop over `step`."""


def few(*bounds: int) -> range:
    """Return a range, of which `FEW_STEPS` where it has a thousand or more."""
    whole = range(*bounds)
    return whole if len(whole) < 1000 else whole[:FEW_STEPS]


def training() -> Names:
    """Return a small model, what it is trained on, and with what."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(8)]
    model = nn.Linear(4, 2)
    return {
        "torch": torch,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": batches,
        "validation_batches": itertools.cycle(batches),
    }


def loops(_: Connect) -> Names:
    """The README, and the pages about loops: whole scripts, but for the framework's own lines."""
    saved: list[Names] = []

    def loss_at(step: int) -> float:
        return 2.5 / (1 + 0.05 * step)

    return training() | {
        "CosineAnnealingLR": torch.optim.lr_scheduler.CosineAnnealingLR,
        "loss_fn": functional.cross_entropy,
        "batch_loss": lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        "train_batch": loss_at,
        "train_members": lambda step: np.full(256, loss_at(step)),
        "update_weights": np.asarray,
        "load_checkpoint": lambda: saved[-1] if saved else {},
        "save_checkpoint": saved.append,
    }


def distributed(connect: Connect) -> Names:
    """Distributed training: lines of a rank's script, of a job with one rank."""
    return training() | {
        "dist": torch.distributed,
        "mlrs": mlrs,
        "AdvisedLR": AdvisedLR,
        "advisor": connect(),
        "rank": 0,
        "world_size": 1,
        "loss": 2.3,
        "batch": [0, 1, 2],
    }


def meta_mode(connect: Connect) -> Names:
    """Meta mode: a whole script for PyTorch, and the body of a loop on trees of arrays."""
    run = connect().run("trees", horizon=100, meta=True)
    return training() | {
        "cross_entropy": functional.cross_entropy,
        "run": run,
        "loss": 2.3,
        "weights": np.ones(3),
        "gradients": np.full(3, 0.1),
        "state": None,
        "tree_map": lambda function, *trees: function(*trees),
        "validation_gradient": lambda weights: 0.1 * weights,
    }


def meta_training(_: Connect) -> Names:
    """Meta-training: modules of the repository, without their imports."""
    return {
        "torch": torch,
        "nn": nn,
        "Tensor": torch.Tensor,
        "binary_cross_entropy_with_logits": functional.binary_cross_entropy_with_logits,
        "Draw": Draw,
        "Problem": Problem,
        "batched": batched,
        "Batch": Batch,
        "Examples": Examples,
        "Params": Params,
        "BaseTask": BaseTask,
        "module_task": module_task,
    }


def frameworks(_: Connect) -> Names:
    """The pages of the frameworks: whole scripts, but for models, batches and losses."""
    return training() | {"loss_fn": functional.cross_entropy}


def tabular(_: Connect) -> Names:
    """The pages of scikit-learn, XGBoost and LightGBM: the data is the reader's."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(64, 3)), rng.integers(2, size=64)
    return {
        "batches": [(features[at : at + 16], labels[at : at + 16]) for at in range(0, 64, 16)],
        "X_train": features[:48],
        "y_train": labels[:48],
        "X_test": features[48:],
        "y_test": labels[48:],
        "parameters": {"objective": "binary:logistic"},
    }


def plain(_: Connect) -> Names:
    """Loops without a framework: what plays and learns is the reader's."""
    return {"play": lambda policy: policy, "policy": SimpleNamespace(total=20.0), "update": lambda *_: None}


def writers(connect: Connect) -> Names:
    """Experiment trackers: the folder is the reader's."""
    return client(connect) | {"folder": mkdtemp()}


def schedules(connect: Connect) -> Names:
    """Schedules: `control` is the reader's, `advisor` of the block before."""
    return {"advisor": connect(), "control": True}


def client(connect: Connect) -> Names:
    """The client's docstrings: lines of scripts, all but the framework's and the first ones."""
    advisor = connect()
    return training() | {
        "mlrs": mlrs,
        "AdvisedLR": AdvisedLR,
        "Meta": mlrs.Meta,
        "MetaStep": MetaStep,
        "Schedule": mlrs.Schedule,
        "advisor": advisor,
        "run": advisor.run("docstrings", horizon=100, meta=True),
        "loss": 2.3,
        "losses": np.full(256, 2.3),
        "rates": np.full(256, 0.1),
        "loss_fn": functional.cross_entropy,
        "train_batch": lambda step: 2.3 / (1 + step),
    }


def meta_step(connect: Connect) -> Names:
    """The docstring of `MetaStep`: its loss is that of a batch under a model."""
    return client(connect) | {
        "loss_fn": lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1])
    }


def rescue(_: Connect) -> Names:
    """The page about rescue: a whole script, and the first lines of another."""
    return training()


def search(_: Connect) -> Names:
    """The page about searches: whole scripts, but for models, batches and steps."""
    here = training()
    return here | {
        "batches": here["loader"] * 9,
        "batch_loss": lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        "state": np.ones(3),
        "train_step": lambda state, _, learning_rate: (
            state - learning_rate * 2 * state,
            float(state @ state),
        ),
        "loss_of": lambda state, _: float(state @ state),
    }


class Descent:
    """Gradient descent on `weight**2`, as a loop that a search makes trials with."""

    weight = 5.0

    def save(self) -> None:
        """Save the weight."""
        self.saved = self.weight

    def restore(self) -> None:
        """Put it back."""
        self.weight = self.saved

    def step(self, _: int, learning_rate: float) -> float:
        """Make an update."""
        loss = self.evaluate()
        self.weight -= learning_rate * 2.0 * self.weight
        return loss

    def evaluate(self) -> float:
        """Return the loss."""
        return self.weight**2


def suggesting(_: Connect) -> Names:
    """The docstring of `suggest`: the loop and what trains are the reader's."""
    return {"mlrs": mlrs, "loop": Descent(), "train": float}


def nothing(_: Connect) -> Names:
    """All other pages show whole scripts."""
    return {}


PAGES: dict[str, Callable[[Connect], Names]] = {
    "README.md": loops,
    "docs/guides/checkpoints.md": loops,
    "docs/guides/distributed.md": distributed,
    "docs/guides/frameworks/boosting.md": tabular,
    "docs/guides/frameworks/plain.md": plain,
    "docs/guides/frameworks/scikit-learn.md": tabular,
    "docs/guides/local-daemon.md": loops,
    "docs/guides/meta-mode.md": meta_mode,
    "docs/guides/meta-training.md": meta_training,
    "docs/guides/rescue.md": rescue,
    "docs/guides/schedules.md": schedules,
    "docs/guides/search.md": search,
    "docs/guides/sweeps.md": loops,
    "docs/guides/writers.md": writers,
    "docs/start/first-hour.md": loops,
    "docs/start/three-lines.md": loops,
    "client/mlrs/api/suggesting.py": suggesting,
    "client/mlrs/lightgbm.py": tabular,
    "client/mlrs/meta.py": meta_mode,
    "client/mlrs/sklearn/__init__.py": tabular,
    "client/mlrs/torch/meta_step.py": meta_step,
    "client/mlrs/writers.py": writers,
    "client/mlrs/xgboost.py": tabular,
}


def steps_of(block: Block) -> int:
    """Return how often a block is run: once, unless it is the body of a loop over `step`."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    nodes = ast.walk(compile(block.text, block.page, "exec", flags))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    is_whole = "advisor" in names or "for step in" in block.text
    return STEPS if "step" in names and not is_whole else 1


def names_of(page: str, connect: Connect) -> Names:
    """Return what the blocks of a page find."""
    others = client if page.startswith("client/") else frameworks if "/frameworks/" in page else nothing
    return {"__name__": "__main__", "range": few} | PAGES.get(page, others)(connect)


def logistic(names: Names) -> None:
    """Draw the family of tasks that a block adds, and compute its losses."""
    problem = names["logistic"](Draw(0))
    losses, _ = problem.value_and_grad(problem.copies(3), problem.train.take(torch.arange(32)))
    assert losses.isfinite().all()


def wine(names: Names) -> None:
    """Make the task that a block adds, and compute its loss."""
    task = names["wine_mlp"](torch.Generator().manual_seed(0))
    batch = task.train.take(torch.arange(task.batch_size))
    assert task.loss(task.init(torch.Generator().manual_seed(0)), batch).isfinite()


def moons(names: Names) -> None:
    """Load the data of the task that a block adds, and put it through its network."""
    (task,) = names["TASKS"]
    assert task.load() is not None
    assert task.network()(torch.zeros(1, 2)).shape == (1, 2)


AFTERWARDS: dict[str, Callable[[Names], None]] = {"logistic": logistic, "wine_mlp": wine, "TASKS": moons}
"""By a name that a block makes: what is tried of it then."""


def try_out(names: Names) -> None:
    """Try what a block made."""
    for name, trial in AFTERWARDS.items():
        if name in names:
            trial(names)
