"""The machine code that runs need, there before they are opened.

What a plain run under the default model needs is made before the daemon listens. Other parts (`warmup.py`)
are loaded when a run that needs one is opened, on a thread. Where a part is not on disk, a process of its own
compiles it and keeps it there: the compiler holds the interpreter, and would make each observation wait. All
that waits is the call that opens the run.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog

from mlrs_core.kernel_cache import is_kept
from mlrs_server.errors import AdvisorError
from mlrs_server.live.warmup import PLAIN, RESCUE, all_parts, is_loaded, part_of, warm_up
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.storage import NewRun
from mlrs_server.system.background import in_background
from mlrs_server.system.cooperative import cooperatively

log = structlog.get_logger()

LONGEST_S = 120.0
"""How long another process may compile before this one does it itself."""


class MachineCode:
    """Loads and makes machine code. Used from one event loop."""

    def __init__(self, catalog: ModelCatalog) -> None:
        """Load the code of models of `catalog`."""
        self._catalog = catalog
        self._ready = set[str]()
        self._loading = dict[str, asyncio.Task[None]]()

    async def prepare(self) -> None:
        """Load, or compile, what a plain run under the default model needs, before the daemon listens.

        Where machine code cannot be kept, no other process can make any: then everything is compiled now.
        """
        default = self._catalog.by_digest(*self._catalog.names.meaning("", ""))
        needed = (PLAIN, part_of(default.model.architecture.kind))
        began = time.monotonic()
        if await in_background(lambda: is_loaded(needed)):
            self._ready.update(needed)
        else:
            # `AdvisedLR` asks for rescue, so most users need its code a moment later.
            self._loading[RESCUE] = asyncio.create_task(self._load(RESCUE))
            self._ready.update(await in_background(lambda: _compiled(needed)))
        log.info("kernels_ready", seconds=round(time.monotonic() - began, 2))

    async def ready_for(self, runs: Iterable[NewRun]) -> None:
        """Wait until the code that runs need is loaded; their models are."""
        missing = set[str]()
        async for run in cooperatively(runs):
            missing |= self._parts_of(run) - self._ready
        for part in missing - self._loading.keys():
            self._loading[part] = asyncio.create_task(self._load(part))
        # other calls may wait for them, too
        await asyncio.gather(*(asyncio.shield(self._loading[part]) for part in missing))

    def _parts_of(self, run: NewRun) -> set[str]:
        parts = {RESCUE} if run.config.rescue else set[str]()
        if run.config.schedule is None:
            with suppress(AdvisorError):  # raised again when the run is loaded
                model = self._catalog.by_digest(run.model_digest, run.model_name).model
                parts.add(part_of(model.architecture.kind, in_meta_mode=run.config.meta is not None))
        return parts

    async def _load(self, part: str) -> None:
        """Load a part; have it made first if it is not on disk."""
        try:
            if not await asyncio.to_thread(is_loaded, [part]):
                began = time.monotonic()
                log.info("compiling_kernels", part=part, note="once for this version on this machine")
                await _made(part)
                was_made = await asyncio.to_thread(is_loaded, [part])
                if not was_made:  # slower, and steps of other runs with it; it stalls none
                    await asyncio.to_thread(warm_up, [part])
                seconds = round(time.monotonic() - began, 2)
                log.info("kernels_ready", part=part, seconds=seconds, by_another_process=was_made)
            self._ready.add(part)
        finally:
            del self._loading[part]


def _compiled(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Compile parts; return those that are ready then, which are all if none can be kept."""
    note = "the first start of this version on this machine compiles for some seconds; later ones do not"
    log.info("compiling_kernels", parts=list(parts), note=note)
    gc.enable()  # `mlrs serve` starts without; the compiler leaves much to be collected
    warm_up(parts)
    if not is_kept():
        log.warning(
            "kernels_not_kept",
            problem="there is no folder for machine code that can be written to, so each start compiles "
            "all of it, for half a minute; set NUMBA_CACHE_DIR to one",
        )
        parts = all_parts()
        warm_up(parts)
    gc.collect()  # before the daemon freezes all there is
    return parts


async def _made(part: str) -> None:
    """Have a process of its own compile a part and keep it on disk; log it where that fails."""
    command = [sys.executable, "-m", "mlrs_server.live.warmup", part]
    try:
        process = await asyncio.to_thread(
            subprocess.Popen,
            command,
            stdin=subprocess.PIPE,  # its end tells the process that this one has ended
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stderr is not None  # noqa: S101 # for the type checker
            try:
                said = await asyncio.wait_for(asyncio.to_thread(process.stderr.read), LONGEST_S)
                status = await asyncio.to_thread(process.wait)
            finally:
                process.kill()
    except (OSError, TimeoutError) as error:
        log.warning("kernels_not_made", part=part, problem=str(error) or f"not within {LONGEST_S:g} s")
        return
    if status:
        lines = said.decode(errors="replace").strip().splitlines()
        log.warning("kernels_not_made", part=part, status=status, problem=lines[-1] if lines else "")
