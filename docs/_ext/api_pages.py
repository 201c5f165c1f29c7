"""A page for each public name of the client, written when the site is built.

The names are those in `__all__` of the public modules. Frameworks that are not installed are mocked, as for
autodoc, so every adapter has its pages.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc import mock
from sphinx.util.typing import ExtensionMetadata

MODULES = (
    "mlrs",
    "mlrs.aio",
    "mlrs.torch",
    "mlrs.lightning",
    "mlrs.transformers",
    "mlrs.keras",
    "mlrs.optax",
    "mlrs.timm",
    "mlrs.sklearn",
    "mlrs.xgboost",
    "mlrs.lightgbm",
    "mlrs.writers",
    "mlrs.errors",
    "mlrs.types",
    "mlrs.schedules",
    "mlrs.meta",
    "mlrs.adapters",
)
"""The public modules, in the order of the pages."""
FOREIGN = "object, str, int, tuple, dict, StrEnum, Enum, Exception, BaseException, LRScheduler, Protocol"
"""The classes of others whose members are documented elsewhere."""
FOLDER = Path("reference") / "api"


@dataclass(frozen=True)
class Public:
    """A public name."""

    module: str
    name: str
    value: Any
    is_known: bool = False
    """Whether a module before has it, too: links lead there then."""

    @property
    def full_name(self) -> str:
        """The name with its module."""
        return f"{self.module}.{self.name}"

    @property
    def defined(self) -> str:
        """The name under which it is defined; that of a constant is its own."""
        name = getattr(self.value, "__qualname__", None)
        return f"{self.value.__module__}.{name}" if name else self.full_name

    @property
    def page(self) -> str:
        """The name of its page; `mlrs.run` and `mlrs.Run` differ also where upper and lower case do not."""
        return f"{self.full_name}-function" if inspect.isfunction(self.value) else self.full_name

    def directive(self) -> list[str]:
        """Return the lines that document it."""
        options = ["   :no-index:"] if self.is_known else []
        if not inspect.isclass(self.value):
            kind = "function" if inspect.isroutine(self.value) else "data"
            return [f".. auto{kind}:: {self.full_name}", *options]
        kind = "exception" if issubclass(self.value, BaseException) else "class"
        options += ["   :members:", "   :undoc-members:", f"   :inherited-members: {FOREIGN}"]
        return [f".. auto{kind}:: {self.full_name}", *options]


def names_of(module: ModuleType) -> list[Public]:
    """Return the public names of a module; modules among them have pages of their own."""
    values = [Public(module.__name__, name, getattr(module, name)) for name in module.__all__]
    return [public for public in values if not inspect.ismodule(public.value)]


def modules(mocked: Iterable[str]) -> Iterator[ModuleType]:
    """Yield the public modules, imported without the frameworks that are named."""
    with mock(list(mocked)):
        for name in MODULES:
            yield importlib.import_module(name)


def titled(title: str, *lines: str) -> str:
    """Return a page of reStructuredText."""
    return "\n".join([title, "=" * len(title), "", *lines, ""])


def module_page(module: ModuleType, names: list[Public]) -> str:
    """Return the page of a module: its docstring, and its names."""
    pages = [f"   {public.name} <{public.page}>" for public in names]
    return titled(
        module.__name__,
        f".. automodule:: {module.__name__}",
        "",
        ".. toctree::",
        "   :maxdepth: 1",
        "",
        *pages,
    )


def write(folder: Path, mocked: Iterable[str]) -> dict[str, str]:
    """Write the pages that have changed.

    Returns:
        the public name of what is defined under another one: `mlrs.Run` of `mlrs.api.run.Run`.
    """
    pages: dict[str, str] = {}
    public_names: dict[str, str] = {}
    for module in modules(mocked):
        names = names_of(module)
        pages[module.__name__] = module_page(module, names)
        for public in names:
            first = public_names.setdefault(public.defined, public.full_name)
            shown = replace(public, is_known=first != public.full_name)
            pages[public.page] = titled(public.full_name, *shown.directive())
    pages["index"] = titled("Python", ".. toctree::", "   :maxdepth: 2", "", *(f"   {it}" for it in MODULES))
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.glob("*.rst")) - {folder / f"{page}.rst" for page in pages}:
        stale.unlink()
    for page, text in pages.items():
        path = folder / f"{page}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return public_names


def setup(app: Sphinx) -> ExtensionMetadata:
    """Write the pages when a build begins, and lead private names to the public ones."""
    public_names: dict[str, str] = {}

    def begin(app: Sphinx) -> None:
        public_names.update(write(Path(app.srcdir) / FOLDER, app.config.autodoc_mock_imports))

    def resolve(
        app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
    ) -> nodes.reference | None:
        public = public_names.get(node.get("reftarget", ""))
        if node.get("refdomain") != "py" or public is None:
            return None
        python = env.domains.python_domain
        return python.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)

    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", begin)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
