"""Docstrings as they are written here: Google's sections, Markdown's code marks, code that is indented."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.util.typing import ExtensionMetadata

NAME = re.compile(r"[A-Z]\w*(\.\w+)*(\(\))?|\w+(\.\w+)+(\(\))?|[a-z_]\w*\(\)")
"""What may be the name of something public: a class, a name with dots, or a call. Others are arguments."""
PAGE = re.compile(r"`?\bdocs/([a-z/-]+)\.md`?")
"""A page of the documentation, by its path in the repository."""
ATTRIBUTES = {"attribute", "data", "property"}
"""What has docstrings in which Napoleon takes a colon for the end of a type; it sees none after a comment."""
BEFORE_NAPOLEON = 100
"""The priority of a handler of docstrings; Napoleon's is 500."""


class CodeRole(PyXRefRole):
    """The role of text in single backticks: code, and a link where it is the name of something public."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the nodes of a text."""
        if not NAME.fullmatch(self.text):
            text = nodes.unescape(self.rawtext.strip("`"), respect_whitespace=True)
            return [nodes.literal(self.rawtext, text, classes=["code"])], []
        self.name = "py:obj"
        return super().run()


def is_python(text: str) -> bool:
    """Return whether a text is Python, be it the body of a coroutine."""
    try:
        compile(text, "", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return True


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Yield the paragraphs of a docstring; indented ones that follow one another are one."""
    found: list[str] = []
    for line in [*lines, ""]:
        if line.strip() or (found and found[0].startswith(" ")):
            if line.strip() and found and found[0].startswith(" ") and not line.startswith(" "):
                yield found
                found = []
            found.append(line)
        elif found:
            yield found
            found = []
    if found:
        yield found


def code_block(lines: list[str]) -> list[str]:
    """Return an indented paragraph as a block of code, highlighted where it is Python."""
    text = textwrap.dedent("\n".join(lines)).strip("\n")
    language = "python" if is_python(text) else "text"
    return [f".. code-block:: {language}", "", *textwrap.indent(text, "   ").splitlines()]


def table(lines: list[str]) -> list[str]:
    """Return a table of Markdown as one of reStructuredText."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]
    made = [".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        made += [f"   {'*' if not column else ' '} - {cell}" for column, cell in enumerate(row)]
    return made


def converted(lines: list[str]) -> list[str]:
    """Return the lines of a docstring with its tables, code and pages as reStructuredText has them."""
    made: list[str] = []
    for paragraph in paragraphs(lines):
        if paragraph[0].startswith("    "):
            made += code_block(paragraph)
        elif paragraph[0].startswith("| "):
            made += table(paragraph)
        else:
            made += [PAGE.sub(r":doc:`/\1`", line) for line in paragraph]
        made.append("")
    return made


def setup(app: Sphinx) -> ExtensionMetadata:
    """Make single backticks code, and convert docstrings before their sections are read."""

    def convert(_: Sphinx, what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
        lines[:] = [*(("..", "") if what in ATTRIBUTES else ()), *converted(lines)]

    def dashes(_: Sphinx, document: nodes.document) -> None:
        for text in list(document.findall(nodes.Text)):
            if text == " -- ":  # between an argument and its words
                text.parent.replace(text, nodes.Text(" \N{EN DASH} "))

    app.setup_extension("sphinx.ext.autodoc")
    app.add_role("name", CodeRole())
    app.connect("autodoc-process-docstring", convert, priority=BEFORE_NAPOLEON)
    app.connect("doctree-read", dashes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
