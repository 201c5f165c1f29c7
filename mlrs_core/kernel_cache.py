"""Machine code on disk, in which nothing that goes wrong matters: it is compiled again.

Numba's own cache trusts its files. An empty one, as a power cut leaves it, ends the process; one with other
bytes is unpickled, and run; a full disk is an `OSError` in the middle of a call. And a disk that fills up
between a function's index and its machine code leaves the old machine code under the new source's name. So
machine code carries a checksum and says what it is of, and every failure is a miss.

Numba also takes machine code for that of the present source as long as the function's own file is the same.
But compiled functions hold those that they call, of other files. So what counts are all sources that they
may call: the contents of `mlrs_core`, and of the function's own package. (Numba still looks at the time of
the function's own file, too, so one that was only touched is compiled again.)
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

_logger = logging.getLogger("mlrs_core")
_CORE = Path(__file__).parent
_CHECKSUM_BYTES = 32
_logged: list[Exception] = []


class KernelCache(FunctionCache):
    """The machine code of one function on disk: Numba's cache, which never fails."""

    def __init__(self, function: Callable[..., object]) -> None:
        """Find a folder for a function.

        Raises:
            RuntimeError: there is none that can be written to, or the sources cannot be read.
        """
        super().__init__(function)
        sources = _digest_of(_CORE) + _digest_of(_package_of(Path(function.__code__.co_filename)))
        self._files = self._cache_file = _KernelFiles(self._cache_file, sources)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code for a signature; `None` if there is none, or if it cannot be used."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001  # unpickling damaged bytes raises whatever they spell
            self._tell(error)
            self._files.discard()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the machine code for a signature, if that works."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001  # it reads the index, which may be damaged, too
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Log what is wrong, once for the process: what spoils one file has mostly spoilt others."""
        if not _logged:
            _logged.append(error)
            _logger.warning(
                "machine code in %s cannot be loaded or kept (%s: %s); it is compiled instead, which takes "
                "seconds at a start",
                self.cache_path,
                type(error).__name__,
                error,
                extra={"event": "kernel_cache_unusable"},
            )


class _KernelFiles(IndexDataCacheFile):
    """The index and the machine code of a function, which are checked as they are read."""

    def __init__(self, found: IndexDataCacheFile, sources: bytes) -> None:
        """Use the same files as Numba would, if the sources are still the same."""
        self.__dict__.update(found.__dict__)
        self._source_stamp = self._source_stamp, sources

    def discard(self) -> None:
        """Remove the index: with it goes all that it names."""
        with suppress(OSError):
            Path(self._index_path).unlink()

    def save(self, key: Any, data: Any) -> None:
        """Keep machine code, and what it is of."""
        super().save(key, (self._source_stamp, key, data))

    def load(self, key: Any) -> Any:
        """Return the machine code of a key; `None` if there is none, or if it is of another source.

        Raises:
            Exception: a file is damaged, of whatever kind that makes it.
        """
        found = super().load(key)
        if found is None:
            return None
        stamp, kept_key, data = found
        return data if (stamp, kept_key) == (self._source_stamp, key) else None

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return data + hashlib.sha256(data).digest()  # after the end of the pickle, where no reader looks

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if hashlib.sha256(data[:-_CHECKSUM_BYTES]).digest() != data[-_CHECKSUM_BYTES:]:
            raise ValueError(f"{name} is damaged")
        return super()._load_data(name)


def _package_of(file: Path) -> Path:
    """Return the folder of the outermost package that a file is in, or the file if it is in none."""
    found = file
    while (found.parent / "__init__.py").exists():
        found = found.parent
    return found


@cache
def _digest_of(path: Path) -> bytes:
    """Return a digest of the contents of a file, or of the Python files of a folder and their names.

    Raises:
        RuntimeError: one cannot be read, as in an archive.
    """
    digest = hashlib.sha256()
    try:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(repr((str(file.relative_to(path)), file.read_bytes())).encode())
    except OSError as error:
        raise RuntimeError(f"{path} cannot be read: {error}") from error
    return digest.digest()
