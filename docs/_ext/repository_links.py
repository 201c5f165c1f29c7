"""Links from pages to files of the repository outside `docs/`, in pages and in what they include.

On a code host they are relative links. In the site a link to a text that has a page of its own leads to that
page. Any other leads to the file at `mlrs_repository_url`, if that is configured, else to a copy of the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "index.md",
}
"""Texts of the repository, with the pages that include them."""
FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>`{3,})[^`\n]*\n.*?^(?P=indent)(?P=mark)$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\)")


def leads_elsewhere(target: str) -> bool:
    """Return whether a link is a URL, or one within its page."""
    return re.match(r"[a-z]+:|#|/", target) is not None


def rewritten(text: str, folder: PurePosixPath, repository_url: str) -> str:
    """Return the Markdown of a file with links that hold in the site.

    Args:
        text: the Markdown.
        folder: the folder of the file, relative to the repository's root.
        repository_url: where the repository's files are on a code host; empty: nowhere.
    """

    def link(match: re.Match[str]) -> str:
        if leads_elsewhere(match["target"]):
            return match[0]
        path, mark, anchor = match["target"].partition("#")
        target = in_site(os.path.normpath(folder / path), mark + anchor, repository_url)
        return f"{match['image']}[{match['text']}]({target})"

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def in_site(path: str, anchor: str, repository_url: str) -> str:
    """Return the link to a file of the repository, by its path there."""
    if path in PAGES:
        return f"/{PAGES[path]}{anchor}"
    if path.startswith("docs/"):
        return f"/{path.removeprefix('docs/')}{anchor}"
    if repository_url:
        return f"{repository_url}/{path}{anchor}"
    return f"path:/../{path}"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Rewrite links as pages, and files that they include, are read."""
    app.add_config_value("mlrs_repository_url", "", "env", str)

    def page(_: Sphinx, docname: str, source: list[str]) -> None:
        include(_, Path(f"{docname}.md"), docname, source)

    def include(_: Sphinx, path: Path, _docname: str, source: list[str]) -> None:
        folder = PurePosixPath(os.path.normpath(PurePosixPath("docs") / path.parent))
        source[0] = rewritten(source[0], folder, app.config.mlrs_repository_url)

    app.connect("source-read", page)
    app.connect("include-read", include)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
