"""Meta updates need a token of the run's tenant with the role for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc import StatusCode as Code

from mlrs_proto import v1 as pb
from mlrs_server.auth.roles import Role
from tests.server.auth.tenants import tenants
from tests.server.support import columns, refused


@pytest.mark.parametrize("role", [Role.ADVISE, Role.ADAPT, Role.ADMIN])
async def test_updates_in_a_stream_need_their_role(tmp_path: Path, model_file: Path, role: Role) -> None:
    """A token that may only advise cannot train a network through the stream either."""
    async with tenants(tmp_path / "d", model_file) as home:
        caller = home.caller("acme", role)
        await home.known(caller)
        handle = await caller.create(f"learning-{role.spelling}", meta=pb.Meta())
        call = caller.stream()
        await call.write(columns((handle, 0, 1.0)))
        assert (await call.read()).advice.learning_rates[0] > 0
        await call.write(
            pb.StreamAdviceRequest(
                meta_updates=pb.MetaUpdates(updates=[pb.MetaUpdate(run_handle=handle, alignment=1.0)])
            )
        )
        if role < Role.ADAPT:
            assert (await refused(call)).code == Code.PERMISSION_DENIED
        else:
            assert (await call.read()).meta_results.results[0].updates


async def test_anothers_run_is_not_trained(tmp_path: Path, model_file: Path) -> None:
    """An update by another tenant's handle fails as one by an unknown handle, and changes nothing."""
    async with tenants(tmp_path / "d", model_file) as home:
        theirs, mine = home.caller("acme", Role.ADAPT), home.caller("umbra", Role.ADAPT)
        await home.known(theirs, mine)
        handle = await theirs.create("theirs-learning", meta=pb.Meta())
        stream = theirs.stream()
        await stream.write(columns((handle, 0, 1.0)))
        await stream.read()
        call = mine.stream()
        await call.write(
            pb.StreamAdviceRequest(
                meta_updates=pb.MetaUpdates(updates=[pb.MetaUpdate(run_handle=handle, alignment=1.0)])
            )
        )
        (error,) = (await call.read()).meta_results.errors
        assert error.reason == pb.ERROR_REASON_STALE_HANDLE
        (run,) = await theirs.call("GetRun", pb.GetRunRequest(run_id="theirs-learning"))
        assert run.run.meta.updates == 0
