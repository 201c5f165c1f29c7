"""Meta mode, as users of the client see it: a run's network goes on learning under way."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mlrs.values.checks import MAX_STEPS, member, option, real, whole


class MetaScope(enum.StrEnum):
    """Whose network a run's meta updates train. The run goes on under a copy of its own either way."""

    RUN = "run"
    """The run's own copy, and nobody else's."""
    MODEL = "model"
    """The run's own copy; what it learns counts when a new version of the model is made."""


class MetaOrder(enum.StrEnum):
    """When in a step its meta update is made."""

    BEFORE_STEP = "before_step"
    """The paper's: ahead of the real step, which is taken with the learning rate that the update gives."""
    AFTER_STEP = "after_step"
    """Behind it, where the step led to: no virtual step, any optimizer. It tells from the next step on."""


class MetaOutcome(enum.StrEnum):
    """What a meta update did."""

    APPLIED = "applied"
    """The weights moved, as Adam says but for what `clipped` and `scaled` tell."""
    IDLE = "idle"
    """Nothing moved: the learning rate does not depend on the weights here, or the alignment is 0."""
    FALLBACK = "fallback"
    """The daemon was out of reach: the advised learning rate stands, the update is kept and sent later."""
    SKIPPED = "skipped"
    """There was none of this run: its place in a sweep's alignments was NaN."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Meta:
    """That a run is in meta mode, and how; `None` means the daemon's default.

        advisor.run("task", meta=Meta(order="after_step", every=50))

    Set when the run is created, never changed. docs/meta-mode.md has the formulas.
    """

    scope: MetaScope | str | None = option(member, of=MetaScope)
    """Whose network; a `MetaScope` or its value. Default: `run`."""
    order: MetaOrder | str | None = option(member, of=MetaOrder)
    """When; a `MetaOrder` or its value. Default: `before_step`."""
    every: int | None = option(whole, low=1, high=MAX_STEPS)
    """Steps from one update to the next, for `mlrs.torch.MetaStep`; 1 to 2**53. Default: 5."""
    learning_rate: float | None = option(real, above=0.0, most=1.0)
    """Of Adam on the network's weights, > 0 and <= 1. Default: 1e-3."""
    weight_decay: float | None = option(real, least=0.0, most=1.0)
    """Of Adam, in the gradient; 0 to 1. Default: 1e-4."""
    max_change: float | None = option(real, above=0.0, most=10.0)
    """No update moves the logarithm of the learning rate further; > 0 and <= 10. Default: 0.1."""
    clip: float | None = option(real, least=1.0, most=1e6)
    """An alignment counts within so many times the usual size; 1 to 1e6. Default: 10."""
    blow_up: float | None = option(real, least=1.0, most=1e6)
    """Weights go back to the last good ones when the loss is so many of its usual deviations higher; 1 to
    1e6. Default: 8."""

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None}
        shown = (
            f"{name}={str(value) if isinstance(value, str) else value!r}" for name, value in given.items()
        )
        return f"Meta({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What came of a meta update."""

    step: int
    """The step whose learning rate it is about."""
    applied: bool
    """Whether it was made by now: not while the daemon is out of reach."""
    updates: int
    """The number of meta updates of the run so far, as far as this client knows."""
    learning_rate: float | None
    """The learning rate for the step: under the new weights, or, if it was not made yet, as advised. `None`:
    there is none, since the update was skipped."""
    outcome: MetaOutcome
    """What it did."""
    log_change: float
    """How far it moved the logarithm of the learning rate."""
    clipped: bool = False
    """Whether the alignment was clipped first."""
    scaled: bool = False
    """Whether the update was scaled down, since the learning rate would have moved too far."""
    alignment: float | None = None
    """The alignment, where the daemon computed it."""


@dataclass(frozen=True, kw_only=True)
class MetaStatus:
    """What became of a run's meta updates so far."""

    updates: int
    """How many there were."""
    last_step: int | None
    """The step of the newest, if any."""
    last_alignment: float | None
    """Its alignment, if any, as it was sent."""
    last_validation_loss: float | None
    """The newest validation loss that was sent with one, if any."""
    last_log_change: float
    """How far the newest moved the logarithm of the learning rate."""
    clipped: int
    """How many alignments were clipped."""
    scaled: int
    """How many updates were scaled down."""
    returns: int
    """How often the weights went back to the last good ones."""


@dataclass(frozen=True, kw_only=True)
class MetaRecord:
    """A meta update in a run's record."""

    step: int
    """The step that it is about."""
    alignment: float
    """The alignment, as it was sent."""
    validation_loss: float | None
    """The validation loss that was sent with it, if any."""
    outcome: MetaOutcome
    """What it did."""
    learning_rate: float
    """The learning rate for the step under the new weights."""
    log_change: float
    """How far it moved the logarithm of the learning rate."""
    clipped: bool = False
    """Whether the alignment was clipped first."""
    scaled: bool = False
    """Whether the update was scaled down, since the learning rate would have moved too far."""
