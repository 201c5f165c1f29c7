"""What the connections of a process mean for the processes that it forks, such as a data loader's workers.

A child has none of its parent's threads, and gRPC's objects do not expect that: where the garbage collector
of a child frees those of an advisor that its parent has dropped, the child waits for a thread that does not
exist, or crashes. So nothing that was there at the fork is collected in children.

When the last of gRPC's objects goes, gRPC ends its threads in the background, and a fork in that moment waits
forever. So one object stays: a channel that is never used, and so never connects.
"""

import functools
import gc
import os

import grpc


@functools.cache
def prepare_for_forks() -> grpc.Channel:
    """Let this process, which is about to have connections, fork safely; return what has to stay for it.

    It is made once, and the cache of this function keeps it.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        os.register_at_fork(after_in_child=gc.freeze)
    return grpc.insecure_channel("localhost:1")
