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
import io
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.core.environment import Environment, _rebuild_env, lookup_environment
from numba.core.runtime.nrt import rtsys

_logger = logging.getLogger("mlrs_core")
_CORE = Path(__file__).parent
_CHECKSUM_BYTES = 32
_logged: list[Exception] = []
_unkept: list[str] = []
_loads_only: ContextVar[bool] = ContextVar("loads_only", default=False)


class NotKeptError(Exception):
    """A function has no machine code on disk, and is not to be compiled."""


@contextmanager
def loading_only() -> Iterator[None]:
    """Have functions that are called for the first time in the block be loaded, and not compiled.

    Calling one that is not on disk raises `NotKeptError`.
    """
    token = _loads_only.set(True)
    try:
        yield
    finally:
        _loads_only.reset(token)


def is_kept() -> bool:
    """Return whether all that this process has compiled is on disk, so that other processes can load it."""
    return not _unkept


class KernelCache(NullCache):
    """The machine code of one function on disk: Numba's cache, which never fails.

    Its folder is looked for when the function is first called: most functions are only parts of others.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        """Keep the machine code of a function."""
        self._function = function

    @cached_property
    def _folder(self) -> _FunctionFolder | None:
        """The function's files; `None` where no folder can be written to, as in a sealed container."""
        with suppress(RuntimeError):
            return _FunctionFolder(self._function)
        return None

    @property
    def cache_path(self) -> str | None:
        """The folder."""
        return None if self._folder is None else self._folder.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code for a signature; `None` if there is none, or if it cannot be used.

        Raises:
            NotKeptError: there is none, and none is to be made.
        """
        found = None
        if self._folder is not None:
            try:
                found = self._folder.load_overload(sig, target_context)
            except Exception as error:  # noqa: BLE001  # unpickling damaged bytes raises whatever they spell
                self._tell(error)
                self._folder.discard()
        if found is None and _loads_only.get():
            raise NotKeptError(self._function.__qualname__)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the machine code for a signature, if that works."""
        if self._folder is None:
            _unkept.append(self._function.__qualname__)
            return
        try:
            self._folder.save_overload(sig, data)
        except Exception as error:  # noqa: BLE001  # it reads the index, which may be damaged, too
            _unkept.append(self._function.__qualname__)
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


class _FunctionFolder(FunctionCache):
    """Numba's cache of a function, with files that are checked."""

    def __init__(self, function: Callable[..., object]) -> None:
        """Find a folder.

        Raises:
            RuntimeError: there is none that can be written to, or the sources cannot be read.
        """
        super().__init__(function)
        sources = _digest_of(_CORE) + _digest_of(_package_of(Path(function.__code__.co_filename)))
        self._files = self._cache_file = _KernelFiles(self._cache_file, sources)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code for a signature, if there is some.

        Numba's own first imports all that it could compile with, SciPy included, which takes longer than all
        else here. Machine code that is loaded needs the allocator only; compiling imports the rest itself.
        """
        rtsys.initialize(target_context)
        return self._load_overload(sig, target_context)

    def discard(self) -> None:
        """Remove the index: with it goes all that it names."""
        self._files.discard()


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
        return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    """Reads machine code without importing the parts of Numba that it was compiled with."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (_rebuild_env.__module__, _rebuild_env.__name__):
            return _environment
        return super().find_class(module, name)


def _environment(module: str, constants: list[Any], name: str) -> Any:
    """Return the environment of a function: its constants, and its module's globals for compilation alone.

    As Numba's own, but that the globals of a function of Numba's are left out unless they are there.
    """
    found = lookup_environment(name)
    if found is not None or module in sys.modules or not module.startswith("numba."):
        return found or _rebuild_env(module, constants, name)
    made = Environment({"__name__": module})
    made.consts[:] = constants
    made.env_name = name
    Environment._memo[name] = made  # noqa: SLF001  # as `_rebuild_env` does
    return made


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
