"""Generate the Python stubs of the contract, or check that the committed ones are current.

Run by `make proto` (write) and `make lint` (check) in an environment of its own, since the pinned
generator needs an older protobuf than the daemon does. `-Imlrs_proto/v1=proto/mlrs/v1` maps the
import path, so the wire name stays `mlrs.v1` and no import needs rewriting.
"""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).parent
STUBS = HERE / "mlrs_proto" / "v1"
NAMES = [
    "advisor_pb2.py",
    "advisor_pb2.pyi",
    "advisor_pb2_grpc.py",
    "advisor_pb2_grpc.pyi",
]


def generate(out: Path) -> None:
    """Write the stubs below `out`."""
    code = protoc.main(
        [
            "protoc",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"-Imlrs_proto/v1={HERE / 'mlrs' / 'v1'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            "mlrs_proto/v1/advisor.proto",
        ]
    )
    if code:
        sys.exit(f"protoc failed with status {code}")


def stale(out: Path) -> list[str]:
    """Return the committed stubs that differ from those below `out`."""
    fresh = out / "mlrs_proto" / "v1"
    return [
        name
        for name in NAMES
        if not (STUBS / name).exists() or not filecmp.cmp(fresh / name, STUBS / name, shallow=False)
    ]


def main() -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a stub is stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        generate(out)
        names = stale(out)
        if check and names:
            sys.exit(f"stale stubs in {STUBS}: {', '.join(names)}; run `make proto` and commit them")
        for name in names:
            (STUBS / name).write_bytes((out / "mlrs_proto" / "v1" / name).read_bytes())
    print("stubs are current" if not names else f"wrote {', '.join(names)}")


if __name__ == "__main__":
    main()
