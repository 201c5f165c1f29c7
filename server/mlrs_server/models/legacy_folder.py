"""Models of data folders from before the store kept them: `models/*.safetensors`, and `models/index.json`.

They go into the store once. The index is renamed then; the files stay where they are, and nothing reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from mlrs_core.models.checkpoint import digest_of
from mlrs_server.domain.aliases import AliasChange
from mlrs_server.domain.model_index import Index
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage import Store

log = structlog.get_logger()


def bring_models_over(data_dir: Path, store: Store) -> None:
    """Take the models, names and aliases of a data folder into its store, if they are not there yet.

    Names and aliases that the store has stay as they are: another replica may have brought its own.

    Raises:
        AdvisorError: the index is damaged, a file cannot be read, or the store fails.
    """
    index = data_dir / "models" / "index.json"
    try:
        if not index.exists():
            return
        files = {path.stem: path.read_bytes() for path in index.parent.glob("*.safetensors")}
        whole = {digest: data for digest, data in files.items() if digest_of(data) == digest}
        found = index_of(json.loads(index.read_text(encoding="utf-8")), whole)
        store.change_models(lambda known: _merged(known, found), whole)
        index.rename(index.with_name("index.json.in-store"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise AdvisorError(
            Reason.MODEL_INVALID,
            f"the models of {index.parent} cannot be taken into the store: {error!r}; restore the folder, or "
            "move it away to go on without them",
        ) from error
    log.info(
        "models_brought_over", folder=str(index.parent), models=len(whole), damaged=len(files) - len(whole)
    )


def index_of(columns: Any, files: Mapping[str, bytes]) -> Index:
    """Return the index in JSON, of the models whose files are there."""
    models = {}
    for full, name in columns["origins"].items():  # the digest's full name, with a name of that tenant
        tenant, separator, digest = full.rpartition("!")
        models[f"{tenant}{separator}{name}", digest] = False
    models |= dict.fromkeys(columns["names"].items(), True)
    changes = {}
    for alias, target in columns["aliases"].items():
        kept = [AliasChange(**change) for change in columns.get("changes", {}).get(alias, ())]
        changes[alias] = tuple(kept) or (AliasChange(target, "set", None),)
    return Index(0, {key: now for key, now in models.items() if key[1] in files}, changes)


def _merged(known: Index, found: Index) -> Index:
    named = {name for (name, _), is_current in known.models.items() if is_current}
    models = {key: is_current and key[0] not in named for key, is_current in found.models.items()}
    return replace(known, models={**models, **known.models}, changes={**found.changes, **known.changes})
