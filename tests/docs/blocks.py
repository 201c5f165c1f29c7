"""The blocks of code of the pages, and of the client's docstrings."""

from __future__ import annotations

import ast
import importlib.util
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts),
]
FRAMEWORKS = (("docs", "guides", "frameworks"), ("client", "mlrs"))
"""The folders whose pages and modules have the names of frameworks."""
_WITH_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_FENCED = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"\n\n((?:    .*\n|\n)*    .*)(?=\n\n|\n?\Z)")


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    path: Path
    """The page."""
    line: int
    """The line of the page that its first line is."""
    language: str
    """What the page says that it is in; empty: nothing."""
    text: str
    """Its lines, without the indentation that all of them have."""

    @property
    def page(self) -> str:
        """The page's path in the repository."""
        return str(self.path.relative_to(ROOT))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[tuple[int, str]]:
        """Its lines with their numbers in the page; those that end with a backslash hold the next, too."""
        found: list[tuple[int, str]] = []
        for number, line in enumerate(self.text.splitlines(), self.line):
            if found and found[-1][1].endswith("\\"):
                found[-1] = found[-1][0], found[-1][1].removesuffix("\\") + line
            else:
                found.append((number, line))
        return found

    def missing(self) -> set[str]:
        """Return the packages that a block of Python imports and that are not installed."""
        nodes = list(ast.walk(compile(self.text, "", "exec", _WITH_AWAIT | ast.PyCF_ONLY_AST)))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        packages = {name.partition(".")[0] for name in names}
        return {package for package in packages if importlib.util.find_spec(package) is None}

    def before_and_after(self) -> tuple[str, str]:
        """Return, of a diff, the code before and after."""
        lines = self.text.splitlines(keepends=True)
        before, after = (
            "".join(line[1:] if line.strip() else line for line in lines if not line.startswith(sign))
            for sign in "+-"
        )
        return before, after


def blocks_of(path: Path) -> list[Block]:
    """Return the blocks of a page."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(path, text.count("\n", 0, match.start()) + 2, match[2], textwrap.dedent(match[3]))
        for match in _FENCED.finditer(text)
    ]


def docstring_blocks_of(path: Path) -> list[Block]:
    """Return the Python in the docstrings of a module: what is indented there, and is Python."""
    text = path.read_text(encoding="utf-8")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        textwrap.dedent(match[1])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds)
        for match in _INDENTED.finditer(ast.get_docstring(node) or "")
    ]
    lines = text.splitlines()
    return [
        Block(path, [line.strip() for line in lines].index(code.splitlines()[0]) + 1, "python", code)
        for code in found
        if _is_python(code)
    ]


def _is_python(text: str) -> bool:
    try:
        compile(text, "", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return True


BLOCKS = [block for path in PAGES for block in blocks_of(path) if not block.language.startswith("{")]
"""Those of all pages, without the directives of the site."""


def in_language(*languages: str) -> list[Block]:
    """Return the blocks in one of these languages, but for those of frameworks and of tutorials' scripts."""
    others = (is_of_framework, is_of_tutorial)
    return [
        block for block in BLOCKS if block.language in languages and not any(is_in(block) for is_in in others)
    ]


def is_of_framework(block: Block) -> bool:
    """Return whether `tests/client/<framework>/test_page.py` runs a block, where that is installed."""
    parts = block.path.relative_to(ROOT).with_suffix("").parts
    name = next((parts[len(folder)] for folder in FRAMEWORKS if parts[: len(folder)] == folder), None)
    return name is not None and (ROOT / "tests" / "client" / name / "test_page.py").exists()


def is_of_tutorial(block: Block) -> bool:
    """Return whether a block is a piece of the script that `test_tutorials.py` compares its page with."""
    return block.path.parent == ROOT / "docs" / "tutorials" and block.language == "python"


DOCSTRINGS = [
    block
    for path in sorted((ROOT / "client" / "mlrs").rglob("*.py"))
    for block in docstring_blocks_of(path)
    if not is_of_framework(block)
]
"""Those of the client's docstrings, but for those that tests of frameworks run."""
