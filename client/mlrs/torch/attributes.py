"""What objects of a training hold beside tensors of a model: counters, lists of losses, sums of metrics."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, final

import torch
from torch import nn

_NUMBERS = (bool, int, float, complex, str, bytes, type(None))
_SEQUENCES = (list, tuple, set, frozenset, deque)
_MAPPINGS = (dict, OrderedDict, defaultdict)
_OF_ALL_MODULES = frozenset(vars(nn.Module()))


@final
class Attributes:
    """The plain attributes of some objects, for `also_save` of a search: numbers, texts and tensors.

    Lists, tuples, sets, deques and dicts that hold nothing else are plain, too. Parameters, buffers and
    tensors that need gradients are left out, and so is what every `nn.Module` has, such as its hooks.
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        """`objects`: any objects with attributes; of a module, all modules in it."""
        found = [part for one in objects for part in (one.modules() if isinstance(one, nn.Module) else [one])]
        modules = [one for one in found if isinstance(one, nn.Module)]
        self._objects = found
        self._kept_elsewhere = {
            id(tensor) for one in modules for tensor in (*one.parameters(), *one.buffers(recurse=False))
        }

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return the attributes by the position of their object and their name, not copied."""
        return {index: self._plain(one) for index, one in enumerate(self._objects)}

    def load_state_dict(self, state_dict: Mapping[int, Mapping[str, Any]]) -> None:
        """Put attributes back, not copied, and remove plain ones that are new."""
        for index, attributes in state_dict.items():
            one = self._objects[index]
            for name in self._plain(one).keys() - attributes.keys():
                del vars(one)[name]
            vars(one).update(attributes)

    def _plain(self, one: Any) -> dict[str, Any]:
        left_out = _OF_ALL_MODULES if isinstance(one, nn.Module) else frozenset[str]()
        return {
            name: value for name, value in vars(one).items() if name not in left_out and self._is_plain(value)
        }

    def _is_plain(self, value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return not value.requires_grad and id(value) not in self._kept_elsewhere
        if type(value) in _SEQUENCES:
            return all(self._is_plain(part) for part in value)
        if type(value) in _MAPPINGS:
            return all(self._is_plain(part) for pair in value.items() for part in pair)
        return isinstance(value, _NUMBERS)
