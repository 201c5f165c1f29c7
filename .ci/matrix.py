"""Run the client's tests with versions of Python, protobuf and grpcio from the oldest to the newest.

    python .ci/matrix.py            what `make test-matrix` runs
    python .ci/matrix.py --all      every combination, not only the extremes on newer versions of Python

Each combination has an environment of its own below `.venv-matrix`, made anew: the client as users install
it, NumPy for sweeps, and pytest. The daemon runs in the environment of this script. Exits with 1 if a
combination fails; says which versions of Python are not on this machine.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-matrix"
TESTS = "tests/e2e/client"
PYTHONS = ("3.11", "3.12", "3.13")
PROTOBUFS = ("5.29.*", "6.33.*", "7.*")
NEWEST = "*"
BESIDES = ("numpy", "pytest>=8.3", "pytest-asyncio>=1.0", "pytest-timeout>=2.3")


class Combination(NamedTuple):
    """What an environment has."""

    python: str
    protobuf: str
    grpcio: str

    def __str__(self) -> str:
        grpcio = "newest" if self.grpcio == NEWEST else self.grpcio
        return f"Python {self.python}, protobuf {self.protobuf}, grpcio {grpcio}"


def oldest_grpcio() -> str:
    """Return the oldest grpcio that the client says it needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(each.partition(">=")[2] for each in project["dependencies"] if each.startswith("grpcio>="))


def combinations(*, everything: bool) -> Iterator[Combination]:
    """Yield all combinations of the oldest Python, and the extremes of the others, or all of them."""
    oldest = oldest_grpcio()
    extremes = {(PROTOBUFS[0], oldest), (PROTOBUFS[-1], NEWEST)}
    for python in PYTHONS:
        for protobuf, grpcio in itertools.product(PROTOBUFS, (oldest, NEWEST)):
            if everything or python == PYTHONS[0] or (protobuf, grpcio) in extremes:
                yield Combination(python, protobuf, grpcio)


def interpreter(version: str) -> str | None:
    """Return an interpreter of a version: on the path, of pyenv or of uv; `None`: there is none."""
    candidates = [shutil.which(f"python{version}"), sys.executable]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += map(str, sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True))
    if uv := shutil.which("uv"):
        found = subprocess.run([uv, "python", "find", version], capture_output=True, text=True, check=False)
        candidates.append(found.stdout.strip())
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):  # pyenv's shims exist for versions that do not run
        said = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:
            return candidate
    return None


def make(combination: Combination, python: str, wheel: Path) -> Path:
    """Make the environment of a combination; return its interpreter."""
    name = f"{combination.python}-{combination.protobuf}-{combination.grpcio}"
    folder = FOLDER / re.sub(r"[^\d.-]+", "x", name)
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    wanted = [f"protobuf=={combination.protobuf}", *BESIDES, str(wheel)]
    wanted.append("grpcio" if combination.grpcio == NEWEST else f"grpcio=={combination.grpcio}")
    made = folder / "bin" / "python"
    pip = [made, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary", ":all:"]
    subprocess.run([*pip, *wanted], check=True)
    return made


def versions(python: Path) -> str:
    """Return what an environment really has."""
    code = (
        "import platform; from importlib.metadata import version;"
        "names = ('protobuf', 'grpcio', 'numpy');"
        "print('Python', platform.python_version(), *(f'{name} {version(name)}' for name in names))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def passes(python: Path) -> bool:
    """Run the tests in an environment; return whether they pass."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"MLRS_DAEMON_PYTHON": sys.executable}
    command = [python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--confcutdir", TESTS, TESTS]
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode == 0


def main() -> int:
    """Make each environment, and run the tests in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every combination")
    everything = parser.parse_args().all
    pythons = {version: interpreter(version) for version in PYTHONS}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
        subprocess.run([*build, ROOT], check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        for combination in combinations(everything=everything):
            if (python := pythons[combination.python]) is not None:
                print(f"== {combination}", flush=True)
                made = make(combination, python, wheel)
                results.append((versions(made), passes(made)))
    for what, passed in results:
        print(f"{'passed' if passed else 'FAILED'}: {what}")
    missing = [version for version, python in pythons.items() if python is None]
    if missing:
        print(f"not on this machine: Python {', '.join(missing)}")
    return 0 if results and all(passed for _, passed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
