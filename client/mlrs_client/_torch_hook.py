"""How a scheduler is heard before an optimizer's updates: by a hook, and within the closures of its steps.

PyTorch calls the hook at the beginning of `optimizer.step()`. Where a closure is given, the loss is not known
then: it is once the closure was called, and the advice for it is put into the optimizer right after that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import LBFGS, Optimizer

from mlrs_client import InvalidArgumentError, UsageError

if TYPE_CHECKING:
    from mlrs_client.torch import AdvisedLR

DEEPEST = 16
"""How many wrappers deep an optimizer is looked for."""


def unwrapped(optimizer: object) -> Optimizer:
    """Return the optimizer that makes the updates, out of wrappers that have it as their `optimizer`.

    Raises:
        InvalidArgumentError: there is none.
    """
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


class Hook:
    """Has a scheduler, as long as it lives, fill in the advice before each update; one hook an optimizer.

    The hook of a scheduler that is gone stays, and does nothing, until another takes its place: Python may
    collect the scheduler while PyTorch goes through the hooks.
    """

    def __init__(self, optimizer: Optimizer, scheduler: AdvisedLR) -> None:
        """Take the place of the hook that the optimizer has from another scheduler, if it has one.

        To refuse instead would make a notebook's cell fail that is run again, as the notebook may still hold
        the scheduler of before.
        """
        if (former := _hooks.get(optimizer)) is not None:
            former.remove("another AdvisedLR, made for its optimizer since, sets the learning rates")
        self._scheduler = weakref.ref(scheduler)
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
        scheduler = self._scheduler()
        if scheduler is None:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # the optimizer is the first
        is_asked, is_tried_again = scheduler._pending is not None, self._step == scheduler.last_epoch  # noqa: SLF001
        if not callable(closure) or (is_asked and not is_tried_again):
            scheduler._apply()  # noqa: SLF001 # of the package's own scheduler, as all here
            return None
        evaluated = Closure(closure, scheduler, is_known=is_asked and not scheduler._applied)  # noqa: SLF001
        self._step = scheduler.last_epoch
        if isinstance(optimizer, LBFGS):  # it looks at its learning rate before it calls the closure
            evaluated.call_ahead()
        if len(args) > 1:
            return (args[0], evaluated, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluated}


class Closure:
    """A closure, for one step of an optimizer: called first, it has the advice for its loss filled in.

    What it observes when it is called again is no loss of another step, and is not sent.
    """

    def __init__(self, closure: Callable[[], Any], scheduler: AdvisedLR, *, is_known: bool) -> None:
        """`is_known`: a step of the optimizer that failed has observed the loss already."""
        self._closure, self._scheduler, self._is_known = closure, scheduler, is_known
        self._ahead: list[Any] = []

    def __call__(self) -> Any:
        """Call it."""
        if self._ahead:
            return self._ahead.pop()
        scheduler = self._scheduler
        before = scheduler._is_known  # noqa: SLF001
        scheduler._is_known = before or self._is_known  # noqa: SLF001
        try:
            result = self._closure()
        finally:
            scheduler._is_known = before  # noqa: SLF001
        self._is_known = True
        scheduler._apply()  # noqa: SLF001 # which it does once a step
        return result

    def call_ahead(self) -> None:
        """Call it now, as the optimizer would; the optimizer's first call returns what came of it."""
        with torch.enable_grad():
            self._ahead.append(self())


_hooks: weakref.WeakKeyDictionary[Optimizer, Hook] = weakref.WeakKeyDictionary()
