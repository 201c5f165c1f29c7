"""The directive `settings`: the daemon's settings, from their pydantic model."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from docutils import nodes
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

DEFAULTS_IN_WORDS = {"data_dir": "`mlrs` in the user's state folder", "limits": "", "tenants": ""}
"""The defaults that differ from machine to machine, or are tables."""
KINDS = {Path: "path", SecretStr: "URL", bool: "yes or no", int: "whole number", float: "number", str: "text"}


def words_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of the fields of a model, its bases' included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls.__module__.startswith("mlrs"):
            for (owner, field), lines in ModuleAnalyzer.for_module(cls.__module__).find_attr_docs().items():
                if owner == cls.__name__:
                    found[field] = " ".join(line.strip() for line in lines).strip()
    return found


def kind_of(annotation: Any) -> str:
    """Return what values of a type are, in words."""
    if isinstance(annotation, type) and annotation in KINDS:
        return KINDS[annotation]
    values = [value for value in get_args(annotation) if value is not type(None)]
    if values and all(isinstance(value, str) for value in values):
        return ", ".join(f"`{value}`" for value in values)
    return " or ".join(dict.fromkeys(kind_of(value) for value in values if isinstance(value, type)))


def bounds_of(field: FieldInfo) -> str:
    """Return the bounds of a number, in words."""
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [
        f"{words} {getattr(constraint, sign):,}"
        for constraint in field.metadata
        for sign, words in signs.items()
        if hasattr(constraint, sign)
    ]
    return ", ".join(found)


def default_of(name: str, field: FieldInfo) -> str:
    """Return the default of a setting, in words; empty where there is none."""
    if name in DEFAULTS_IN_WORDS:
        return DEFAULTS_IN_WORDS[name]
    value = field.default
    return "" if value is None or value is PydanticUndefined else f"`{value}`"


def entry(name: str, field: FieldInfo, words: str, *, in_file_only: bool) -> Iterator[str]:
    """Yield the lines of Markdown of a setting."""
    kind = ", ".join(filter(None, (kind_of(field.annotation), bounds_of(field))))
    yield f"````{{confval}} {name}"
    if kind:
        yield f":type: {kind}"
    if default := default_of(name.rpartition(".")[2], field):
        yield f":default: {default}"
    yield ""
    yield words
    if not in_file_only:
        flag, variable = name.replace("_", "-"), name.upper()
        yield f"\n`--{flag}`, `MLRS_{variable}`"
    yield "````\n"


def settings_of(model: type[BaseModel], in_file_only: frozenset[str]) -> Iterator[str]:
    """Yield the lines of Markdown of all settings; those of tables have the table's name before theirs."""
    words = words_of(model)
    for name, field in model.model_fields.items():
        yield from entry(name, field, words[name], in_file_only=name in in_file_only)
        table = field.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            inner = words_of(table)
            for key, part in table.model_fields.items():
                yield from entry(f"{name}.{key}", part, inner[key], in_file_only=True)


class Settings(SphinxDirective):
    """Shows the settings of the model that its argument names, `module:class`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the settings."""
        module_name, _, name = self.arguments[0].partition(":")
        module = importlib.import_module(module_name)
        self.env.note_dependency(inspect.getfile(module))
        text = "\n".join(settings_of(getattr(module, name), module.IN_FILE_ONLY))
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Add the directive."""
    app.add_directive("settings", Settings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
