"""Which results count no more when a file of the benchmark changes."""

from __future__ import annotations

import ast
import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlrs.torch
import mlrs_bench
import mlrs_core
from mlrs_bench import sources
from mlrs_bench.methods import Method
from mlrs_bench.report.figures.methods import ADVISED, META, SEARCHES
from mlrs_bench.sources import TRAINING_FILES, digest_of_files
from tests.bench.conftest import FINDERS

SEARCHING = {ADVISED, *SEARCHES}
OWN_RATE = {"schedule-free", "tuned-schedule-free", "prodigy", "d-adaptation"}
ALONE = {"hypergradient", "l4", "three-step", *OWN_RATE}
"""Methods that no daemon serves."""
TELLING = {ADVISED, "search-signals", "search-uncharged"}
"""Methods that send signals."""
NETWORKS = {"mlr-snet", "paper", *META, *TELLING, "search-losses"}
METHODS = Path(mlrs_bench.__file__).parent / "methods"

Digests = Callable[[], dict[str, str]]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the packages that results depend on, of which the digests are taken."""
    for package in (mlrs_bench, mlrs_core):
        folder = Path(package.__file__).parent
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "resources", SimpleNamespace(files=lambda package: tmp_path / package))
    yield tmp_path
    sources.code_digest.cache_clear()


@pytest.fixture
def digests(copy: Path, methods: dict[str, Method]) -> Digests:
    """Return a function that returns the digest of each method's code as it is in the copy."""
    assert copy.is_dir()

    def take() -> dict[str, str]:
        sources.code_digest.cache_clear()
        return {name: sources.code_digest(each.files, each.core_files) for name, each in methods.items()}

    return take


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("mlrs_bench/methods/finders.py", set(FINDERS)),
        ("mlrs_bench/methods/searched.py", SEARCHING),
        ("mlrs_bench/methods/validating.py", SEARCHING | {"mlr-snet-meta-rescue"}),
        ("mlrs_bench/methods/rescued.py", {"mlr-snet-meta-rescue"}),
        ("mlrs_bench/methods/adapting.py", set(META)),
        ("mlrs_bench/methods/hypergradient.py", {"hypergradient"}),
        ("mlrs_bench/methods/l4.py", {"l4"}),
        ("mlrs_bench/methods/three_step.py", {"three-step"}),
        ("mlrs_bench/methods/packaged.py", OWN_RATE),
        ("mlrs_bench/methods/__init__.py", set()),
        ("mlrs_bench/methods/brand_new.py", set()),
        ("mlrs_bench/report/figures/targets.py", set()),
        ("mlrs_core/search/race.py", SEARCHING | NETWORKS),
        ("mlrs_core/adapting/brand_new.py", NETWORKS),
    ],
)
def test_results_depend_on_the_files_of_their_method(
    copy: Path, digests: Digests, file: str, changed: set[str]
) -> None:
    """A method's file that changes, or a new one, leaves the results of all other methods valid."""
    assert changes(copy / file, digests) == changed


@pytest.mark.parametrize("file", TRAINING_FILES)
def test_all_results_depend_on_what_trains(copy: Path, digests: Digests, file: str) -> None:
    """A change of the training loop, the optimizers, the curves or the interface is one of every method."""
    assert changes(copy / "mlrs_bench" / file, digests) == set(digests())


def test_served_results_depend_on_what_serves(
    copy: Path, digests: Digests, methods: dict[str, Method]
) -> None:
    """How advice is asked for concerns all methods that a daemon serves, and no other."""
    served = changes(copy / "mlrs_bench" / "methods" / "served.py", digests)
    assert served == set(methods) - ALONE


def changes(file: Path, digests: Digests) -> set[str]:
    """Return the methods whose digests change with a line more in a file."""
    before = digests()
    file.parent.mkdir(exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("# a line more\n")
    after = digests()
    return {name for name in before if before[name] != after[name]}


def test_methods_name_every_file_that_they_run_through(methods: dict[str, Method]) -> None:
    """What a method's module imports of the other methods is among its files, but for one constant.

    Optimizers of packages import the share of warmup from `served.py`: to name the file would make their
    results be computed again.
    """
    for name, method in methods.items():
        module = inspect.getmodule(method.control)
        assert module is not None
        missing = imported(Path(str(module.__file__)).name) - set(method.files)
        assert missing == ({"served.py"} if name in OWN_RATE else set()), name


def imported(file: str) -> set[str]:
    """Return a file of the methods, and those that it imports, but for the interface."""
    found = {file}
    for node in ast.walk(ast.parse((METHODS / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlrs_bench.methods."):
            other = f"{str(node.module).rpartition('.')[2]}.py"
            found |= imported(other) if other != "method.py" else set()
    return found


@pytest.mark.parametrize("part", ["signals", "rescue"])
def test_results_depend_on_the_parts_of_the_adapter_that_act_by_themselves(
    methods: dict[str, Method], part: str
) -> None:
    """How steps are measured identifies a method that sends signals; how copies are made, one with rescue."""
    folder = Path(mlrs.torch.__file__).parent / part
    digest = digest_of_files(folder, ["*.py"])
    assert digest != digest_of_files(folder, [])
    expected = {"signals": TELLING, "rescue": {*TELLING, "search-losses", "mlr-snet-meta-rescue"}}
    assert {name for name, each in methods.items() if digest[:16] in each.identity} == expected[part]
