"""The documentation site: what it is made of, and, in the slow tests, the whole of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from docs._ext import contract, metrics, settings
from docs._ext.api_pages import MODULES
from docs._ext.docstrings import converted
from docs._ext.offline import loaded_from_elsewhere
from docs._ext.repository_links import rewritten
from mlrs_server.config import IN_FILE_ONLY, ServerConfig
from tests.docs.blocks import ROOT
from tests.support.stubs import METHODS

CLIENT = ROOT / "client" / "mlrs"
SMALL = """
import sys
sys.path.insert(0, {root!r})
extensions = ["myst_parser", "docs._ext.repository_links"]
html_theme = "basic"
"""
"""The settings of a site of a few pages."""


def public_names() -> dict[str, list[str]]:
    """Return `__all__` of each module of the client that has one, from its source."""
    found = {}
    for path in [*CLIENT.glob("*.py"), *CLIENT.glob("*/__init__.py")]:
        names = [*path.relative_to(CLIENT.parent).with_suffix("").parts]
        module = ".".join(names[:-1] if names[-1] == "__init__" else names)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[module] = ast.literal_eval(node.value)
    return found


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as `make docs` does."""
    options = ("--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "-d", str(out / "doctrees"))
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(out / "html")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_links_hold_in_the_site() -> None:
    """Links to pages stay; to texts with a page of their own they lead there, else to files; code stays."""
    folder = PurePosixPath("docs/guides")
    text = "[a](search.md#x) [b](../../CONTRIBUTING.md#y) [c](../../examples/demo.py) [d](#e) [f](https://g)"
    made = "[a](/guides/search.md#x) [b](/project/contributing.md#y) {} [d](#e) [f](https://g)"
    assert rewritten(text, folder, "") == made.format("[c](path:/../examples/demo.py)")
    assert rewritten(text, folder, "https://h") == made.format("[c](https://h/examples/demo.py)")
    assert rewritten("![p](../images/a.png)", folder, "") == "![p](/images/a.png)"
    code = "```python\n[a](search.md)\n```"
    assert rewritten(code, folder, "") == code


def test_docstrings_become_restructured_text() -> None:
    """Indented Python is highlighted, other indented text is not; pages are links, and arguments stay."""
    arguments = ["Args:", "    x: a number,", "        of steps."]
    assert converted(arguments) == [*arguments, ""]
    assert converted(["Do:", "", "    run.next_lr(0, 1.0)"])[2:5] == [
        ".. code-block:: python",
        "",
        "   run.next_lr(0, 1.0)",
    ]
    assert converted(["    not python at all"])[0] == ".. code-block:: text"
    assert converted(["docs/guides/search.md has more."])[0] == ":doc:`/guides/search` has more."
    assert converted(["| a | b |", "|---|---|", "| 1 | 2 |"])[3:] == [
        "   * - a",
        "     - b",
        "   * - 1",
        "     - 2",
        "",
    ]


def test_every_public_module_has_pages() -> None:
    """The modules with pages are those of the client that say which of their names are public."""
    assert set(MODULES) == set(public_names())


def test_every_setting_is_shown() -> None:
    """The page has every setting with its flag, variable, default and meaning, and those of tables."""
    text = "\n".join(settings.settings_of(ServerConfig, IN_FILE_ONLY))
    assert re.findall(r"\{confval\} ([a-z_]+)\n", text) == list(ServerConfig.model_fields)
    assert "{confval} limits.max_runs" in text
    (lease,) = re.findall(r"confval\} lease_s\n(.*?)````", text, re.DOTALL)
    assert ":type: number, at least 0.5, at most 3,600\n:default: `5.0`" in lease
    assert "`--lease-s`, `MLRS_LEASE_S`" in lease
    assert "MLRS_LIMITS" not in text


def test_the_contract_is_shown() -> None:
    """The page of the contract has every call, and fields and values with their numbers and comments."""
    text = "\n".join(contract.contract(contract.descriptors()))
    assert {name for name in METHODS if f"### rpc {name}\n" not in text} == set()
    assert "| `horizon` = 2 | optional `uint64` | The total number of steps, 1 to 2\\*\\*53." in text
    assert "| `OPTIMIZER_ADAMW` = 5 | Adam with decoupled weight decay. |" in text
    linked = set(re.findall(r"\(#(contract-[a-z0-9.]+)\)", text))
    assert linked <= set(re.findall(r"^\((contract-[a-z0-9.]+)\)=$", text, re.MULTILINE))


def test_the_metrics_are_shown() -> None:
    """The table has every sample of the daemon, with labels and words."""
    table = "\n".join(metrics.table())
    assert set(re.findall(r"`(mlrs_[a-z_]+)`", table)) == metrics.sample_names()
    assert "`reason`: `fresh`, `replayed`, `held`" in table


def test_what_is_loaded_from_elsewhere_is_found(tmp_path: Path) -> None:
    """A script, a style and a font of another site are found; a link that a reader may follow is none."""
    (tmp_path / "a.html").write_text(
        '<a href="https://a"></a><script src="https://b"></script><link rel="stylesheet" href="//c">'
    )
    (tmp_path / "a.css").write_text("@font-face { src: url('https://e') } a { background: url(f.png) }")
    assert [url for _, url in loaded_from_elsewhere(tmp_path)] == ["https://e", "https://b", "//c"]


def test_a_broken_link_fails_a_build(tmp_path: Path) -> None:
    """A link to a page, to a heading or to a file that is not there is an error."""
    site = tmp_path / "docs"
    site.mkdir()
    (site / "conf.py").write_text(SMALL.format(root=str(ROOT)))
    (tmp_path / "there.py").write_text("")
    (site / "index.md").write_text("# One\n\n[file](../there.py)\n")
    assert build(site, tmp_path / "good").returncode == 0
    (site / "index.md").write_text("# One\n\n[page](no.md) [heading](#none) [file](../no.py)\n")
    ran = build(site, tmp_path / "bad")
    assert ran.returncode != 0
    assert [word for word in ("no.md", "none", "no.py") if word not in ran.stderr] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_has_a_page_for_each_public_name(tmp_path: Path) -> None:
    """The site is built without a warning, and has a page that documents each public name."""
    ran = build(ROOT / "docs", tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    folder = tmp_path / "html" / "reference" / "api"
    pages = {path.stem.removesuffix("-function") for path in folder.glob("*.html")}
    modules = public_names()
    names = {f"{module}.{name}" for module, names in modules.items() for name in names}
    assert names | set(modules) <= pages
