"""Runs of every kind that pages show, made with the public client."""

from __future__ import annotations

import math
import random

import mlrs
from mlrs.types import Signals
from tests.support.runs import open_run

LONG = "vision/resnet/long"
STEPS = 6000
"""The steps of `LONG`: several in each bucket of a page."""
SPIKE = 3001
"""The step of `LONG` with a loss far above all others."""
HELD = range(1200, 1210)
"""The steps of `LONG` whose losses are not finite."""
NOTE = "A seed that was lucky.\nKept for the paper."
MARKUP = '<img src=x onerror="document.title=`broken`"><script>document.title="broken"</script>'
"""Text that is no markup, whatever it looks like."""
HOSTILE = f"{MARKUP}\n\t&lt;b&gt; \u202edesrever ]8;;http://example.com\\ [31m"
"""More of it, for notes, which may have several lines."""
TASK = "letters"
"""A task with memory."""


def make_runs(advisor: mlrs.Advisor) -> None:
    """Make all of them."""
    for make in (long, rewound, rescued, searched, adapted, ranked, diverged, remembered, marked_up):
        make(advisor)


def long(advisor: mlrs.Advisor) -> None:
    """Make a run of many steps, with losses that are held, a spike, signals and validation losses."""
    chance = random.Random(0)  # noqa: S311 # it makes losses, not secrets
    policy = mlrs.Schedule("cosine", base_lr=0.1, warmup=500)
    run = open_run(advisor, LONG, policy=policy, horizon=10_000, optimizer="sgd", batch_size=128, note=NOTE)
    for step in range(STEPS):
        loss = 2.5 * math.exp(-step / 1500) + 0.1 + 0.05 * chance.random()
        if step == SPIKE:
            loss = 50.0
        if step % 400 == 399:
            run.validate(step, loss + 0.2)
        run.observe(step, math.nan if step in HELD else loss, signals=Signals(grad_norm2=1 + chance.random()))
    run.observe(STEPS, 0.2).lr()
    advisor.update_run(LONG, set_tags={"team": "vision", "seed": "3"})


def rewound(advisor: mlrs.Advisor) -> None:
    """Make a run that goes back to a checkpoint, as another process."""
    for first, end in ((0, 40), (25, 60)):
        options = {"resume_from": first} if first else {"policy": "constant", "horizon": 100}
        with advisor.run("task", id="rewound", memory=False, **options) as run:
            for step in range(first, end):
                run.next_lr(step, 1 + 1 / (1 + step))


def rescued(advisor: mlrs.Advisor) -> None:
    """Make a run that blows up, is asked to go back, and does."""
    run = open_run(advisor, "rescued", policy="constant", horizon=200, rescue=True)
    restored = False
    for step in range(100):
        loss = math.nan if step in {60, 61} else 2.0 / (1 + step)
        restored = run.observe(step, loss, restored=restored).advice().restore


def searched(advisor: mlrs.Advisor) -> None:
    """Make a run that begins with a search."""
    run = open_run(advisor, "searched", horizon=400, optimizer="sgd")
    run.search(Descent())
    for step in range(20):
        run.next_lr(step, 1 / (1 + step))


class Descent:
    """Gradient descent on `1.5 * weight**2`."""

    def __init__(self) -> None:
        self.weight = 5.0

    def save(self) -> None:
        """Keep the weight."""
        self._saved = self.weight

    def restore(self) -> None:
        """Put it back."""
        self.weight = self._saved

    def step(self, _: int, learning_rate: float) -> float:
        """Make an update; return the loss before it."""
        loss = self.evaluate()
        self.weight -= learning_rate * 3.0 * self.weight
        return loss

    def evaluate(self) -> float:
        """Return the loss."""
        return 1.5 * self.weight**2


def adapted(advisor: mlrs.Advisor) -> None:
    """Make a run in meta mode."""
    run = open_run(advisor, "adapted", horizon=60, num_classes=10, meta=mlrs.Meta(every=5))
    for step in range(60):
        loss = 2.0 / (1 + step)
        run.next_lr(step, loss)
        if step % 5 == 4:
            run.adapt(step, 0.5, validation_loss=loss + 0.3)


def ranked(advisor: mlrs.Advisor) -> None:
    """Make a run of two ranks, the second of which is missing from a few steps."""
    options = {"policy": "constant", "world_size": 2, "straggler_timeout_s": 0.01, "quorum": 0.5}
    ranks = [advisor.run("task", id="ranked", rank=rank, memory=False, **options) for rank in range(2)]
    for step in range(12):
        pending = [run.observe(step, 1 / (1 + step)) for run in ranks[: 1 if step > 8 else 2]]
        for each in pending:
            each.lr()


def diverged(advisor: mlrs.Advisor) -> None:
    """Make a run that diverges."""
    run = open_run(advisor, "diverged", policy="constant", base_lr=60.0)
    for step in range(30):
        run.next_lr(step, 1.5**step if step < 15 else math.nan)


def remembered(advisor: mlrs.Advisor) -> None:
    """Make a task's runs, which end better from one learning rate than from another."""
    for number in range(5):
        with advisor.run(TASK, id=f"{TASK}/{number}", horizon=20, optimizer="sgd", explore="full") as run:
            for step in range(20):
                lr = run.next_lr(step, 2 / (1 + step))
            run.finish(metric=(math.log10(lr + 1e-3) + 1) ** 2)


def marked_up(advisor: mlrs.Advisor) -> None:
    """Make a run whose tags and note look like markup."""
    run = open_run(advisor, "marked-up", policy="constant", tags={"danger": MARKUP}, note=HOSTILE)
    run.next_lr(0, 1.0)
    run.finish()
