"""Roles, and the role that each RPC of the contract needs."""

from __future__ import annotations

import enum


class Role(enum.IntEnum):
    """The role of a token; each role includes the ones before it."""

    ADVISE = 1
    """Open, observe, follow, finish and delete the tenant's runs; read and forget its tasks; read models."""
    ADAPT = 2
    """Meta updates too."""
    ADMIN = 3
    """Import and promote models, set aliases, and use reflection too."""

    @property
    def spelling(self) -> str:
        """The role's name in files and messages."""
        return self.name.lower()


ROLE_OF: dict[str, Role] = {
    "OpenRun": Role.ADVISE,
    "BatchOpenRuns": Role.ADVISE,
    "GetRun": Role.ADVISE,
    "ListRuns": Role.ADVISE,
    "UpdateRun": Role.ADVISE,
    "FinishRun": Role.ADVISE,
    "BatchFinishRuns": Role.ADVISE,
    "DeleteRun": Role.ADVISE,
    "SearchTrial": Role.ADVISE,
    "GetSearch": Role.ADVISE,
    "Advise": Role.ADVISE,
    "StreamAdvice": Role.ADVISE,
    "WatchRun": Role.ADVISE,
    "SummarizeRecord": Role.ADVISE,
    "SampleRecords": Role.ADVISE,
    "ListRunEvents": Role.ADVISE,
    "Adapt": Role.ADAPT,
    "AdaptGradients": Role.ADAPT,
    "ListModels": Role.ADVISE,
    "GetModel": Role.ADVISE,
    "ImportModel": Role.ADMIN,
    "SetAlias": Role.ADMIN,
    "PromoteModel": Role.ADMIN,
    "RollbackAlias": Role.ADMIN,
    "ListAliasChanges": Role.ADVISE,
    "ListTasks": Role.ADVISE,
    "GetTask": Role.ADVISE,
    "ForgetTask": Role.ADVISE,
    "GetDaemon": Role.ADVISE,
    "GetDaemonStatus": Role.ADVISE,
}
"""The role that each RPC needs. An RPC that is missing here cannot be called."""
