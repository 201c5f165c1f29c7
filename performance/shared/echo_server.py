"""The baseline: a bare grpc.aio server that parses the contract's messages and answers at once.

Its answers are of the size that the daemon's have: a learning rate and a step for each entry.

    python -m performance.shared.echo_server [HOST:PORT | unix:/PATH]
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from mlrs_proto import v1 as pb

METHOD = "/bench.Echo/Stream"


async def _echo(_requests: Any, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        advice = pb.AdviceColumns(
            learning_rates=request.observations.losses, durable_steps=request.observations.steps
        )
        await context.write(pb.StreamAdviceResponse(advice=advice))


async def main(listen: str) -> None:
    """Serve until killed; print the address first."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        _echo, pb.StreamAdviceRequest.FromString, pb.StreamAdviceResponse.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", {"Stream": handler})])
    port = server.add_insecure_port(listen)
    await server.start()
    address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
    print(f"echo is listening on {address}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0"))
