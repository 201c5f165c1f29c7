"""Setting the advice before an optimizer's update: by a hook, and after the closure of a step.

PyTorch calls the hook at the beginning of `optimizer.step()`. Where a closure is given, the loss is known
only after the closure was called, and its advice is set in the optimizer right after that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch.optim import LBFGS, Optimizer

from mlrs.errors import InvalidArgumentError, UsageError

T = TypeVar("T")
DEEPEST = 16
"""The most nested wrappers of an optimizer."""


def unwrapped(optimizer: object) -> Optimizer:
    """Return the innermost optimizer of wrappers that hold it as their attribute `optimizer`."""
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
    """The progress of a scheduler's step."""

    step: int
    is_observed: bool
    """Whether its loss was sent."""
    is_applied: bool
    """Whether its advice is set in the optimizer."""


class Hook:
    """Lets a scheduler set the advice before each update; an optimizer has one hook at a time.

    The hook holds its scheduler weakly. Without a scheduler it does nothing, and stays until another replaces
    it, because Python may collect the scheduler while PyTorch iterates over the hooks.

    Attributes:
        is_known: whether a closure is running whose loss for this step is already observed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        apply: Callable[[], None],
        progress: Callable[[], Progress],
        updated: Callable[[], None],
    ) -> None:
        """Replace the optimizer's hook of another scheduler, if it has one.

        An error instead would break notebook cells that are run again, since the notebook may hold the
        earlier scheduler.

        Args:
            optimizer: the optimizer.
            apply: the scheduler's method that sets the advice, once a step.
            progress: the scheduler's method that returns the progress of its step.
            updated: the scheduler's method that is called after each update.
        """
        if (former := _hooks.get(optimizer)) is not None:
            former.remove("another AdvisedLR, made for its optimizer since, sets the learning rates")
        self._apply, self._progress = weakref.WeakMethod(apply), weakref.WeakMethod(progress)
        self._updated = weakref.WeakMethod(updated)
        self.is_known = False
        self._step = -1  # the last step whose loss a closure observed
        self._why: str | None = None
        self._handles = [
            optimizer.register_step_pre_hook(_untraced(self)),
            optimizer.register_step_post_hook(_untraced(self._after)),
        ]
        _hooks[optimizer] = self

    @property
    def is_removed(self) -> bool:
        """Whether the scheduler sets no learning rates any more."""
        return self._why is not None

    def remove(self, why: str) -> None:
        """Stop setting learning rates; `why` is the reason in later errors."""
        for handle in self._handles:
            handle.remove()
        self._why = self._why or why

    def check(self) -> None:
        """Raise `UsageError` if the hook was removed."""
        if self._why is not None:
            raise UsageError(f"this scheduler does not set learning rates any more: {self._why}")

    def __call__(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Set the advice, or let the closure do so; return the replaced arguments, if any."""
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
        if isinstance(optimizer, LBFGS):  # it reads its learning rate before it calls the closure
            evaluated.call_ahead()
        if len(args) > 1:
            return (args[0], evaluated, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluated}

    def _after(self, _optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if (updated := self._updated()) is not None:
            updated()


def _untraced(hook: T) -> T:
    """Return a hook that interrupts the graph of a compiled step, which would trace into it otherwise."""
    disable: Callable[[T], T] = torch.compiler.disable
    return disable(hook)


class Closure:
    """A closure for one step of an optimizer, after whose first call the advice is set.

    Further calls in the same step observe no new loss.
    """

    def __init__(
        self, closure: Callable[[], Any], hook: Hook, apply: Callable[[], None], *, is_known: bool
    ) -> None:
        """`is_known`: an earlier, failed step of the optimizer has observed the loss already."""
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
        """Call it now; the optimizer's first call then returns this result."""
        with torch.enable_grad():
            self._ahead.append(self())


_hooks: weakref.WeakKeyDictionary[Optimizer, Hook] = weakref.WeakKeyDictionary()
