"""The baseline: a bare grpc.aio server that parses the contract's messages and answers at once."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import uvloop

from mlrs_proto.v1 import advisor_pb2 as pb

METHOD = "/bench.Echo/Stream"


async def _echo(_requests: Any, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        size = len(request.steps)
        advice = pb.AdviceColumns(learning_rates=request.losses, durable_steps=[0] * size)
        await context.write(pb.StreamAdviceResponse(advice=advice))


async def main() -> None:
    """Serve until killed; print the address first."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        _echo, pb.StreamAdviceRequest.FromString, pb.StreamAdviceResponse.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", {"Stream": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo is listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
