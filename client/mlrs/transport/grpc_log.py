"""gRPC's own log: errors only in the client's process, unless the user asks for more.

Whenever a process forks that has an open stream, as a data loader does for each of its workers, gRPC's core
writes to stderr that it leaves its state as it is. That is right, as no child uses its parent's channels
(`ForkedError`), and it would fill the output of a training job.

gRPC reads its settings while it is imported. So the package imports this module first, and the environment,
which subprocesses inherit, is as it was afterwards. Where a program imported gRPC before, its settings stand.
"""

import os

_VERBOSITY = "GRPC_VERBOSITY"

if not os.environ.keys() & {_VERBOSITY, "GRPC_TRACE"}:
    os.environ[_VERBOSITY] = "ERROR"
    try:
        import grpc  # noqa: F401 # for what it reads
    finally:
        del os.environ[_VERBOSITY]
