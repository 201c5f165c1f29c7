"""Options and errors that the commands of `mlrs bench` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

INTERRUPTED = 130
"""The exit status of a benchmark that was interrupted."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
OUTPUT = click.Path(file_okay=False, writable=True, path_type=Path)


def names(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the names in a list with commas, each once."""
    names = tuple(dict.fromkeys(word.strip() for word in (value or "").split(",") if word.strip()))
    if value is not None and not names:
        raise click.BadParameter("must give names, separated by commas")
    return names


@contextmanager
def explained() -> Iterator[None]:
    """Turn what can go wrong into errors that name the option."""
    try:
        from mlrs_bench.errors import BenchError, NotGivenError, UnknownNameError
    except ImportError as error:
        raise _missing(error) from error
    try:
        yield
    except (NotGivenError, UnknownNameError) as error:
        raise click.BadParameter(str(error), param_hint=f"'--{error.field}'") from error
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = "" if error.filename is None else f"cannot use {error.filename}: "
        raise click.ClickException(f"{where}{error.strerror or error}") from error
    except ImportError as error:
        raise _missing(error) from error


def _missing(error: ImportError) -> click.ClickException:
    return click.ClickException(f"{error.name} is missing: pip install 'mlrs[bench]'")
