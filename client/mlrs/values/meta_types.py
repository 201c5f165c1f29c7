"""Values of meta mode, in which a run's network is adapted while the run trains."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mlrs.values.checks import MAX_STEPS, member, option, real, whole


class MetaScope(enum.StrEnum):
    """Whose network a run's meta updates adapt. The run always uses a copy of its own."""

    RUN = "run"
    """The run's own copy only."""
    MODEL = "model"
    """The run's own copy; its adapted weights are used when a new version of the model is made."""


class MetaOrder(enum.StrEnum):
    """When in a step the meta update is made."""

    BEFORE_STEP = "before_step"
    """The paper's order: before the optimizer's step, which uses the updated learning rate."""
    AFTER_STEP = "after_step"
    """After the optimizer's step, at the new weights: no virtual step, any optimizer. The update takes effect
    at the next step."""


class MetaOutcome(enum.StrEnum):
    """What a meta update did."""

    APPLIED = "applied"
    """The weights were changed by Adam; `clipped` and `scaled` say whether the update was limited."""
    IDLE = "idle"
    """Nothing changed: the learning rate does not depend on the weights here, or the alignment is 0."""
    FALLBACK = "fallback"
    """The daemon was unreachable: the advised learning rate applies, and the update is sent later."""
    SKIPPED = "skipped"
    """The run had no update: its value in a sweep's alignments was NaN."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Meta:
    """The settings of a run in meta mode; `None` means the daemon's default.

        advisor.run("task", meta=Meta(order="after_step", every=50))

    Set when the run is created, never changed. docs/guides/meta-mode.md has the formulas.
    """

    scope: MetaScope | str | None = option(member, of=MetaScope)
    """Whose network is adapted: a `MetaScope` or its value. Default: `run`."""
    order: MetaOrder | str | None = option(member, of=MetaOrder)
    """When in a step: a `MetaOrder` or its value. Default: `before_step`."""
    every: int | None = option(whole, low=1, high=MAX_STEPS)
    """Steps from one update to the next, for `mlrs.torch.MetaStep`; 1 to 2**53. Default: 5."""
    learning_rate: float | None = option(real, above=0.0, most=1.0)
    """The learning rate of Adam on the network's weights, > 0 and <= 1. Default: 1e-3."""
    weight_decay: float | None = option(real, least=0.0, most=1.0)
    """The weight decay of Adam, added to the gradient; 0 to 1. Default: 1e-4."""
    max_change: float | None = option(real, above=0.0, most=10.0)
    """The largest change of the logarithm of the learning rate by one update; > 0 and <= 10. Default: 0.1."""
    clip: float | None = option(real, least=1.0, most=1e6)
    """Alignments are clipped to this many times their typical size; 1 to 1e6. Default: 10."""
    blow_up: float | None = option(real, least=1.0, most=1e6)
    """Weights are reset to the last good ones when the loss rises by so many of its typical deviations; 1 to
    1e6. Default: 8."""

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None}
        shown = (
            f"{name}={str(value) if isinstance(value, str) else value!r}" for name, value in given.items()
        )
        return f"Meta({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """The result of a meta update."""

    step: int
    """The step of the update."""
    applied: bool
    """Whether the daemon has made the update; false while it is unreachable."""
    updates: int
    """The number of meta updates of the run that this client knows of."""
    learning_rate: float | None
    """The learning rate for the step: with the new weights or, if the update is not made yet, as advised.
    `None`: the update was skipped."""
    outcome: MetaOutcome
    """What it did."""
    log_change: float
    """The change of the logarithm of the learning rate."""
    clipped: bool = False
    """Whether the alignment was clipped first."""
    scaled: bool = False
    """Whether the update was scaled down to keep the change of the learning rate within `max_change`."""
    alignment: float | None = None
    """The alignment, where the daemon computed it."""


@dataclass(frozen=True, kw_only=True)
class MetaStatus:
    """The state of a run's meta updates."""

    updates: int
    """The number of updates."""
    last_step: int | None
    """The step of the newest update, if any."""
    last_alignment: float | None
    """The alignment of the newest update, if any, as it was sent."""
    last_validation_loss: float | None
    """The newest validation loss that was sent with an update, if any."""
    last_log_change: float
    """The change of the logarithm of the learning rate by the newest update."""
    clipped: int
    """The number of alignments that were clipped."""
    scaled: int
    """The number of updates that were scaled down."""
    returns: int
    """The number of times that the weights were reset to the last good ones."""


@dataclass(frozen=True, kw_only=True)
class MetaRecord:
    """A meta update in a run's record."""

    step: int
    """Its step."""
    alignment: float
    """The alignment, as it was sent."""
    validation_loss: float | None
    """The validation loss that was sent with it, if any."""
    outcome: MetaOutcome
    """What it did."""
    learning_rate: float
    """The learning rate for the step under the new weights."""
    log_change: float
    """The change of the logarithm of the learning rate."""
    clipped: bool = False
    """Whether the alignment was clipped first."""
    scaled: bool = False
    """Whether the update was scaled down to keep the change of the learning rate within `max_change`."""
