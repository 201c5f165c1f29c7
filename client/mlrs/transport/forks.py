"""What a forked child does with its parent's gRPC objects: nothing.

A child, such as a data loader's worker, has none of its parent's threads. gRPC's objects do not expect that:
where the garbage collector of a child frees those of an advisor that its parent has dropped, the child waits
for a thread that does not exist, or crashes. So nothing that was there at the fork is collected in children.
"""

import functools
import gc
import os


@functools.cache
def keep_in_children() -> None:
    """Let children of this process, once it has connections, keep what they inherit."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        os.register_at_fork(after_in_child=gc.freeze)
