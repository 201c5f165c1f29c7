"""How a scheduler is heard before an optimizer's updates: by a hook, and within the closures of its steps.

PyTorch calls the hook at the beginning of `optimizer.step()`. Where a closure is given, the loss is not known
then: it is once the closure was called, and the advice for it is put into the optimizer right after that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.optim import LBFGS, Optimizer

from mlrs.errors import InvalidArgumentError, UsageError

DEEPEST = 16
"""How many wrappers deep an optimizer is looked for."""


def unwrapped(optimizer: object) -> Optimizer:
    """Return the optimizer that makes the updates, out of wrappers that have it as their `optimizer`."""
    found, inner = None, optimizer
    for _ in range(DEEPEST):
        if isinstance(inner, Optimizer):
            found = inner
        inner = getattr(inner, "optimizer", None)
    if found is None:
        raise InvalidArgumentError(
            "optimizer must be a torch.optim.Optimizer, or hold one as its attribute optimizer; is"
            f" {type(optimizer).__name__}",
            field="optimizer",
        )
    return found


class Progress(NamedTuple):
    """How far a scheduler's step has come."""

    step: int
    is_observed: bool
    """Whether its loss was sent."""
    is_applied: bool
    """Whether its advice is in the optimizer."""


class Hook:
    """Has a scheduler, as long as it lives, fill in the advice before each update; one hook an optimizer.

    The hook of a scheduler that is gone stays, and does nothing, until another takes its place: Python may
    collect the scheduler while PyTorch goes through the hooks.

    Attributes:
        is_known: whether a closure is called that has observed the loss of this step.
    """

    def __init__(
        self, optimizer: Optimizer, apply: Callable[[], None], progress: Callable[[], Progress]
    ) -> None:
        """Take the place of the hook that the optimizer has from another scheduler, if it has one.

        To refuse instead would make a notebook's cell fail that is run again, as the notebook may still hold
        the scheduler of before.

        Args:
            optimizer: the optimizer.
            apply: the scheduler's method that fills in the advice, once a step.
            progress: its method that says how far the step has come.
        """
        if (former := _hooks.get(optimizer)) is not None:
            former.remove("another AdvisedLR, made for its optimizer since, sets the learning rates")
        self._apply, self._progress = weakref.WeakMethod(apply), weakref.WeakMethod(progress)
        self.is_known = False
        self._step = -1  # whose loss a closure observed, last
        self._why: str | None = None
        self._handle = optimizer.register_step_pre_hook(self)
        _hooks[optimizer] = self

    @property
    def is_removed(self) -> bool:
        """Whether the scheduler is not heard any more."""
        return self._why is not None

    def remove(self, why: str) -> None:
        """Do not have the scheduler heard any more; `why` is what it tells its users."""
        self._handle.remove()
        self._why = self._why or why

    def check(self) -> None:
        """Raise `UsageError` if the hook was removed."""
        if self._why is not None:
            raise UsageError(f"this scheduler does not set learning rates any more: {self._why}")

    def __call__(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Fill in the advice, or have the closure do so; return the arguments to go on with, if others."""
        apply, progress = self._apply(), self._progress()
        if apply is None or progress is None:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # the optimizer is the first
        step, is_observed, is_applied = progress()
        if not callable(closure) or (is_observed and self._step != step):
            apply()
            return None
        evaluated = Closure(closure, self, apply, is_known=is_observed and not is_applied)
        self._step = step
        if isinstance(optimizer, LBFGS):  # it looks at its learning rate before it calls the closure
            evaluated.call_ahead()
        if len(args) > 1:
            return (args[0], evaluated, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluated}


class Closure:
    """A closure, for one step of an optimizer: called first, it has the advice for its loss filled in.

    What it observes when it is called again is no loss of another step, and is not sent.
    """

    def __init__(
        self, closure: Callable[[], Any], hook: Hook, apply: Callable[[], None], *, is_known: bool
    ) -> None:
        """`is_known`: a step of the optimizer that failed has observed the loss already."""
        self._closure, self._hook, self._apply, self._is_known = closure, hook, apply, is_known
        self._ahead: list[Any] = []

    def __call__(self) -> Any:
        """Call it."""
        if self._ahead:
            return self._ahead.pop()
        before = self._hook.is_known
        self._hook.is_known = before or self._is_known
        try:
            result = self._closure()
        finally:
            self._hook.is_known = before
        self._is_known = True
        self._apply()  # once a step
        return result

    def call_ahead(self) -> None:
        """Call it now, as the optimizer would; the optimizer's first call returns what came of it."""
        with torch.enable_grad():
            self._ahead.append(self())


_hooks: weakref.WeakKeyDictionary[Optimizer, Hook] = weakref.WeakKeyDictionary()
