"""What serves a run: a model of the catalogue, or a schedule; and whether a call asks for another.

A run is stored with the name and the digest of what serves it. A schedule's are its kind and the digest
of its shape; its numbers are in the run's config, so it needs no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.config import MetaConfig, Optimizer, RunConfig, ScheduleKind
from mlrs_core.errors import InvalidFieldError
from mlrs_core.models.model import Model
from mlrs_core.policy import Policy
from mlrs_core.rescue import RescuingPolicy
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.domain.shards import shard_of
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.live.arrays import adaptive
from mlrs_server.models.catalog import ModelCatalog, ModelsNow
from mlrs_server.models.files import SHORT_DIGEST, CatalogModel
from mlrs_server.storage import NewRun, StoredRun
from mlrs_server.tenancy import bare, tenant_of


def policy_of(run: NewRun, catalog: ModelCatalog) -> Policy:
    """Return what serves a run.

    Raises:
        AdvisorError: its model's file is damaged or gone.
    """
    if run.config.schedule is not None:
        return _served(schedule_policy(run.config.schedule), run.config)
    return _served(
        _of_model(catalog.by_digest(run.model_digest, run.model_name), run.config.meta), run.config
    )


def adaptive_policy_of(run: NewRun, catalog: ModelCatalog) -> AdaptivePolicy:
    """Return what serves a run in meta mode.

    Raises:
        AdvisorError: its model's file is damaged or gone.
    """
    return adaptive(policy_of(run, catalog))


def policy_key(run: NewRun) -> str:
    """Return what runs that one policy serves have in common."""
    config = run.config
    rules = "" if config.meta is None else f" {config.meta.rules()}"
    return f"{run.model_digest}{rules}{' rescue' * bool(config.rescue)}"


def _served(policy: Policy, config: RunConfig) -> Policy:
    """Return a policy as it serves runs of a config."""
    return RescuingPolicy(policy) if config.rescue else policy


def _of_model(model: CatalogModel, meta: MetaConfig | None) -> Policy:
    return model.policy if meta is None else _adaptive(model.model, meta.rules())


@lru_cache(256)
def _adaptive(model: Model, meta: MetaConfig) -> Policy:
    """Return a model ready to serve runs in meta mode; equal settings give the same one."""
    return model.adaptive_policy(meta)


def new_run(
    run_id: str, asked: RunConfig, model: str, models: ModelsNow, *, group: str = "", task: str = ""
) -> NewRun:
    """Return a run to create, with its model found or its schedule's defaults set.

    Its task is its id unless another is given.

    Raises:
        AdvisorError: there is no such model, a model and a schedule are asked for, or the config lacks
            what they need.
    """
    asked = asked.resolved()
    if asked.schedule is None:
        found = models.find(model, tenant_of(run_id))
        name, digest, policy = found.name, found.digest, _of_model(found, asked.meta)
    else:
        if model:
            raise invalid_field("config.schedule", "a run has a model or a schedule; leave one of them out")
        spec = asked.schedule
        name, digest, policy = spec.kind.spelling, spec.digest(), schedule_policy(spec)
    policy = _served(policy, asked)
    new = NewRun(
        run_id=run_id,
        shard=shard_of(group or run_id),
        config=asked,
        model_name=name,
        model_digest=digest,
        snapshot=first_snapshot(policy),
        task=task or bare(run_id),
        counters_at=0 if asked.meta is None else adaptive(policy).counters_at,
    )
    check_config(new, asked, models.catalog)
    return new


def models_of(runs: Iterable[NewRun]) -> set[tuple[str, str]]:
    """Return the digests and the names of the models that serve runs."""
    return {(run.model_digest, run.model_name) for run in runs if run.config.schedule is None}


def check_config(run: NewRun, config: RunConfig, catalog: ModelCatalog) -> None:
    """Check a config against what serves its run.

    Raises:
        AdvisorError: the model has no such snapshot, or the schedule lacks a horizon.
    """
    if config.schedule is None:
        model = catalog.by_digest(run.model_digest, run.model_name)
        count = len(model.model.snapshots)
        if config.snapshot is not None and config.snapshot >= count:
            raise invalid_field(
                "config.snapshot",
                f"must be 0 to {count - 1}, as {model.ref} has {count} snapshots, is {config.snapshot}",
            )
        return
    try:
        config.check_complete()
    except InvalidFieldError as error:
        raise invalid_field(f"config.{error.field}", error.problem) from error


def check_same_policy(stored: StoredRun, asked: RunConfig, model: str, models: ModelsNow) -> None:
    """Check that a call which resumes a run asks for nothing else to serve it.

    Raises:
        AdvisorError: it does, or there is no such model.
    """
    has = stored.config.schedule
    if model and has is not None:
        raise config_mismatch(stored, "model", f"the schedule {has.kind.spelling}", model)
    if model and (found := models.find(model, tenant_of(stored.run_id))).digest != stored.model_digest:
        raise config_mismatch(stored, "model", model_ref(stored), found.ref)
    if asked.meta is not None and stored.config.meta is None:  # its state would be another
        raise config_mismatch(stored, "config.meta", None, "meta mode")
    if asked.schedule is not None and has is None:
        wants = f"the schedule {asked.schedule.kind.spelling}"
        raise config_mismatch(stored, "config.schedule", f"the model {model_ref(stored)}", wants)


def model_ref(stored: NewRun) -> str:
    """Return the reference of a run's model, `name@digest`; "" for a run that follows a schedule."""
    if stored.config.schedule is not None:
        return ""
    return f"{stored.model_name}@{stored.model_digest[:SHORT_DIGEST]}"


def config_mismatch(stored: StoredRun, field: str, have: object, want: object) -> AdvisorError:
    """Return the error of a call that asks for another config than its run has."""
    return AdvisorError(
        Reason.CONFIG_MISMATCH,
        f"{field}: run {stored.run_id!r} was opened with {_shown(have)}, and this call asks for "
        f"{_shown(want)}; leave the field out to keep the run's value, or use another run_id",
        field=field,
    )


def _shown(value: object) -> object:
    match value:
        case Optimizer():
            return value.name.lower()
        case ScheduleKind():
            return value.spelling
        case None:
            return "no value"
        case True:  # a part of the config that says nothing itself
            return "one"
        case _:
            return value
