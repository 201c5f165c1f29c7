"""What a method's settings say of themselves: ranges to check, and texts for a command line to show."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mlrs_core.config.ranges import check_real, check_whole

MANY = 10**9
"""The largest count, unless a setting says otherwise."""


@dataclass(frozen=True)
class Whole:
    """The range of a whole number: `least` to `most`."""

    least: int
    most: int = MANY


@dataclass(frozen=True)
class Real:
    """The range of a finite number: > `above`, or else >= `least`."""

    above: float | None = None
    least: float | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of a class of settings."""

    name: str
    kind: Any
    """Its type, without `None`: `int`, `float`, `str`, a `Literal`, or a `Sequence` of names."""
    limits: Whole | Real | None
    default: Any
    document: str
    """What its docstring says."""


def settings_of(kind: type) -> list[Setting]:
    """Return the fields of a dataclass, whose types may be `Annotated` with a range, in their order."""
    hints, documents = get_type_hints(kind, include_extras=True), _documents(kind)
    settings = []
    for field in dataclasses.fields(kind):
        hint, limits = hints[field.name], None
        if get_origin(hint) is Annotated:
            hint, limits = get_args(hint)[:2]
        given = [option for option in get_args(hint) if option is not type(None)]
        if type(None) in get_args(hint):
            (hint,) = given
        settings.append(
            Setting(
                name=field.name,
                kind=hint,
                limits=limits,
                default=field.default,
                document=documents[field.name],
            )
        )
    return settings


def check_ranges(settings: Any) -> None:
    """Check the fields of settings against their ranges; `None` passes.

    Raises:
        InvalidFieldError: one is outside.
    """
    for setting in settings_of(type(settings)):
        value = getattr(settings, setting.name)
        match setting.limits:
            case Whole(least=low, most=high):
                check_whole(setting.name, value, low=low, high=high)
            case Real(above=above, least=least):
                check_real(setting.name, value, above=above, least=least)


def _documents(kind: type) -> dict[str, str]:
    """Return the docstring of each field: the string that follows it in the source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    documents = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            documents[ast.unparse(field.target)] = inspect.cleandoc(str(ast.literal_eval(text.value)))
    return documents
