"""Models as plain JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlrs.types import AliasChange, ModelInfo
from mlrs_web.views.plain import plain

QUALITY = ("quality", "benchmark", "figures", "evaluation", "validation")
"""Where a model's provenance may carry figures of its quality."""


def model(info: ModelInfo) -> dict[str, Any]:
    """Return a model."""
    fields: dict[str, Any] = plain(info)
    fields["architecture_fields"] = fields.pop("architecture_parameters")
    return fields


def quality(info: ModelInfo) -> dict[str, Any] | None:
    """Return the figures of its quality that a model carries; `None`: it carries none."""
    found = {name: plain(info.provenance[name]) for name in QUALITY if name in info.provenance}
    return found or None


def changes(made: Iterable[AliasChange]) -> list[dict[str, Any]]:
    """Return the changes of an alias."""
    return [plain(each) for each in made]
