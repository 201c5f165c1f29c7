"""Roles, and the role that each RPC of the contract needs."""

from __future__ import annotations

import enum


class Role(enum.IntEnum):
    """The role of a token; each role includes the ones before it."""

    READ = 1
    """Read and follow the tenant's runs, tasks and models, and how the daemon is; change nothing."""
    ADVISE = 2
    """Open, observe, note, finish and delete runs, and forget tasks too."""
    ADAPT = 3
    """Meta updates too."""
    ADMIN = 4
    """Import and promote models, set aliases, and use reflection too."""

    @property
    def spelling(self) -> str:
        """The role's name in files and messages."""
        return self.name.lower()


ROLE_OF: dict[str, Role] = {
    "OpenRun": Role.ADVISE,
    "BatchOpenRuns": Role.ADVISE,
    "GetRun": Role.READ,
    "ListRuns": Role.READ,
    "UpdateRun": Role.ADVISE,
    "FinishRun": Role.ADVISE,
    "BatchFinishRuns": Role.ADVISE,
    "DeleteRun": Role.ADVISE,
    "SearchTrial": Role.ADVISE,
    "GetSearch": Role.READ,
    "Advise": Role.ADVISE,
    "StreamAdvice": Role.ADVISE,
    "WatchRun": Role.READ,
    "SummarizeRecord": Role.READ,
    "SampleRecords": Role.READ,
    "ListRunEvents": Role.READ,
    "Adapt": Role.ADAPT,
    "AdaptGradients": Role.ADAPT,
    "ListModels": Role.READ,
    "GetModel": Role.READ,
    "ImportModel": Role.ADMIN,
    "SetAlias": Role.ADMIN,
    "PromoteModel": Role.ADMIN,
    "RollbackAlias": Role.ADMIN,
    "ListAliasChanges": Role.READ,
    "ListTasks": Role.READ,
    "GetTask": Role.READ,
    "ForgetTask": Role.ADVISE,
    "GetDaemon": Role.READ,
    "GetDaemonStatus": Role.READ,
}
"""The role that each RPC needs. An RPC that is missing here cannot be called."""
