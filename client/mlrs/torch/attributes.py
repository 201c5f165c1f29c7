"""What objects of a training hold beside tensors of a model: counters, lists of losses, sums of metrics."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Any, final

import torch
from torch import nn

MOST_PARTS = 10_000
"""The most parts of a list or dict that is an attribute of a training, and not its data."""
_NUMBERS = (bool, int, float, complex, str, bytes, type(None))
_SEQUENCES = (list, tuple, set, frozenset, deque)
_MAPPINGS = (dict, OrderedDict, defaultdict)
_OF_ALL_MODULES = frozenset(vars(nn.Module()))


@final
class Attributes:
    """The plain attributes of some objects, for `also_save` of a search: numbers, texts and tensors.

    Lists, tuples, sets, deques and dicts that hold nothing else are plain, too, up to `MOST_PARTS` parts:
    larger ones are data. Parameters, buffers and tensors that need gradients are left out, and so is what
    every `nn.Module` has, such as its hooks.
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        """`objects`: any objects with attributes; of a module, all modules in it."""
        found = [part for one in objects for part in (one.modules() if isinstance(one, nn.Module) else [one])]
        modules = [one for one in found if isinstance(one, nn.Module)]
        self._objects = found
        self._kept_elsewhere = {
            id(tensor) for one in modules for tensor in (*one.parameters(), *one.buffers(recurse=False))
        }

    def state_dict(self) -> list[tuple[dict[str, Any], list[str]]]:
        """Return, for each object, the plain attributes by name, not copied, and the names of the others."""
        states = []
        for one in self._objects:
            plain = self._plain(one)
            states.append((plain, [name for name in vars(one) if name not in plain]))
        return states

    def load_state_dict(self, state_dict: Iterable[tuple[dict[str, Any], list[str]]]) -> None:
        """Put attributes back, not copied, and remove plain ones that are new."""
        for one, (plain, others) in zip(self._objects, state_dict, strict=True):
            for name in self._plain(one).keys() - plain.keys() - set(others):
                del vars(one)[name]
            vars(one).update(plain)

    def _plain(self, one: Any) -> dict[str, Any]:
        left_out = _OF_ALL_MODULES if isinstance(one, nn.Module) else frozenset[str]()
        return {
            name: value for name, value in vars(one).items() if name not in left_out and self._is_plain(value)
        }

    def _is_plain(self, value: Any) -> bool:
        """Return whether a value, and all in it, is plain."""
        parts, seen = [value], 0
        while parts:
            part = parts.pop()
            seen += 1
            if type(part) in _SEQUENCES:
                parts += part
            elif type(part) in _MAPPINGS:
                parts += [*part.keys(), *part.values()]
            elif isinstance(part, torch.Tensor):
                if part.requires_grad or id(part) in self._kept_elsewhere:
                    return False
            elif not isinstance(part, _NUMBERS):
                return False
            if seen + len(parts) > MOST_PARTS:
                return False
        return True
