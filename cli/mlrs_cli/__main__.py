"""`mlrs`, the command; without its libraries, it says how to install them."""

from __future__ import annotations

import sys

MISSING = "The command line is not installed. Install it with: pip install 'mlrs[server]'"


def main() -> None:
    """Run the command line."""
    try:
        from mlrs_cli.root import command
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit(MISSING)  # the thin client was installed, and nothing more
    command(prog_name="mlrs")


if __name__ == "__main__":
    main()
