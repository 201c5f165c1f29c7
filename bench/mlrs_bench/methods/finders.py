"""Learning-rate finders of other packages, each followed by a straight line to 0.

Both raise the learning rate from step to step in one pass of 100 steps, over which the loss first falls and
then explodes, and suggest the learning rate at which it fell fastest; then they put the weights back.

* `torch-lr-finder` (Silva), a port of fast.ai's; the range is its example's, 1e-7 to 10.
* `lightning`, `Tuner.lr_find` with its defaults, 1e-8 to 1. Since 2.5.3 its suggestion takes the slope over
  the learning rate itself instead of its logarithm, a known defect that leads to rates near the lowest; so
  the suggestion is made here from its measurements, as releases before did.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np
import torch

from mlrs_bench.errors import BenchError
from mlrs_bench.methods.method import Method, Training
from mlrs_bench.methods.served import WARMUP_SHARE, AdvisedTraining

STEPS = 100
"""Steps of a pass; the default of both packages."""
LOWEST, HIGHEST = 1e-7, 10.0
"""The range of torch-lr-finder."""


def finder_methods(core_files: tuple[str, ...]) -> list[Method]:
    """Return the methods, each with its package's version as its identity.

    Args:
        core_files: the files of `mlrs_core` that a served schedule depends on.
    """
    return [
        Method(
            name=f"{package}+linear",
            about=f"the learning rate that {package} suggests, then down along a line; its steps are charged",
            control=_followed_by_linear(find),
            identity=f"{package} {version(package)}{' 2' if package == 'lightning' else ''}",
            least_horizon=STEPS + 1,
            files=("finders.py", "served.py"),
            core_files=core_files,
        )
        for package, find in {"torch-lr-finder": _steepest, "lightning": _lightning}.items()
    ]


def _followed_by_linear(find: Callable[[Training], float | None]) -> Callable[[Training], AdvisedTraining]:
    def control(training: Training) -> AdvisedTraining:
        if training.task.horizon <= STEPS:
            raise BenchError(f"the finder takes {STEPS} steps, and the task has {training.task.horizon}")
        state = {name: value.clone() for name, value in training.network.state_dict().items()}
        generator = torch.get_rng_state()
        training.network.train()
        with _quiet():
            found = find(training)
        training.network.load_state_dict(state)
        torch.set_rng_state(generator)
        usable = found is not None and math.isfinite(found) and found > 0.0
        horizon = training.task.horizon - STEPS
        advised = AdvisedTraining(
            training,
            policy="linear",
            base_lr=found if usable else training.rule.default_lr,
            warmup=math.ceil(WARMUP_SHARE * horizon),
            horizon=horizon,
        )
        advised.spent = STEPS
        return advised

    return control


def _steepest(training: Training) -> float | None:
    """Return what torch-lr-finder suggests."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder, TrainDataLoaderIter

    optimizer = training.rule.build(training.network.parameters(), LOWEST, training.weight_decay)
    batches = TrainDataLoaderIter(_listed(training))
    finder = LRFinder(training.network, optimizer, training.task.loss, device="cpu")
    finder.range_test(batches, end_lr=HIGHEST, num_iter=STEPS)
    suggested = finder.plot(ax=Figure().subplots(), suggest_lr=True)
    return float(suggested[1]) if isinstance(suggested, tuple) and suggested[1] is not None else None


def _lightning(training: Training) -> float | None:
    """Return what Lightning's tuner suggests."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.tuner.tuning import Tuner
    from torch.utils.data import DataLoader

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.lr = training.network, training.rule.default_lr

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            inputs, targets = batch
            return training.task.loss(self.network(inputs), targets)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return training.rule.build(self.network.parameters(), self.lr, training.weight_decay)

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=STEPS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        batches: Any = DataLoader(_listed(training), batch_size=None)
        finder = Tuner(trainer).lr_find(Module(), train_dataloaders=batches, num_training=STEPS)
        return None if finder is None else _steepest_of(finder.results)


def _steepest_of(results: dict[str, list[float]], skipped: int = 10) -> float | None:
    """Return the learning rate at which the loss fell fastest, over equal steps of its logarithm."""
    known = list(zip(results["lr"], results["loss"], strict=True))[skipped:-1]
    finite = [(rate, loss) for rate, loss in known if math.isfinite(loss)]
    if len(finite) < 2:
        return None
    rates, losses = zip(*finite, strict=True)
    return float(rates[int(np.gradient(losses).argmin())])


def _listed(training: Training) -> Any:
    """Return as many of the training's batches as a pass takes, in place of a dataset."""
    return list(islice(training.batches(), STEPS + 5))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the packages from talking."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
