"""The networks to judge, as files: shipped, the user's, or made of the authors' snapshots."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from mlrs_bench.errors import DataFileError, UnknownNameError
from mlrs_core.errors import ModelFileError
from mlrs_core.models.checkpoint import digest_of, dump_model, read_model
from mlrs_core.models.model import Model
from mlrs_core.networks.paper.spec import PaperSpec

ADVISED = "mlr-snet"
"""The method of the network whose quality is in question; and the shipped model it is by default."""
PAPER = "paper"
"""The method of the shipped model that was meta-trained as the paper says."""
OFFICIAL = "official"
"""The method of the authors' snapshots."""
ADVISED_META, PAPER_META = f"{ADVISED}-meta", f"{PAPER}-meta"
"""The methods of meta mode: the network in question, and the paper's from random weights, as in the paper."""
ADVISED_META_RESCUE = f"{ADVISED_META}-rescue"
"""The network in question in meta mode, with rescue and told validation losses."""
META = (ADVISED_META, PAPER_META, ADVISED_META_RESCUE)
"""The methods of meta mode."""
OPTIONAL = {ADVISED: "--model FILE", OFFICIAL: "--official FOLDER"}
"""The methods that are there only if their file is, and the option that gives it."""
RANDOM_SEED = 0
"""The seed of the paper's network with random weights."""
_IN_META = "the network in question in meta mode: adapted by validation gradients during the run"
SNAPSHOT = re.compile(r"(\d+)\.pth$")
"""How the names of the authors' files end: with the epoch of the snapshot."""


@dataclass(frozen=True)
class ModelFile:
    """A network to judge."""

    method: str
    """The name of its method."""
    about: str
    """What it is, in a line."""
    path: Path
    """A .safetensors file."""
    digest: str
    """The digest of the file."""

    @property
    def served_name(self) -> str:
        """The name under which the benchmark's daemon has it."""
        return f"bench-{self.digest[:16]}"


def find_models(
    *, scratch: Path, model: str | None = None, official: Path | None = None
) -> dict[str, ModelFile]:
    """Return the networks to judge by the name of their method, the one in question first.

    Args:
        scratch: a folder for the model made of the authors' files.
        model: the network in question: the name of a shipped model, or a file. Default: the shipped
            `mlr-snet`, if there is one.
        official: the folder of the authors' snapshots, if given.

    Raises:
        UnknownNameError: there is no such shipped model.
        DataFileError: a file is no model, or the folder holds no snapshots.
    """
    found = []
    if model is not None or ADVISED in shipped():
        found.append(
            _read(ADVISED, f"the network in question: {model or ADVISED}", _locate(model or ADVISED))
        )
    for name, about in ((ADVISED_META, _IN_META), (ADVISED_META_RESCUE, f"{_IN_META}, with rescue")):
        found += [replace(each, method=name, about=about) for each in found if each.method == ADVISED]
    found.append(_read(PAPER, "the shipped network that was meta-trained as in the paper", shipped()[PAPER]))
    about = "the paper's network in meta mode from random weights: all that it knows, it learns in the run"
    found.append(_read(PAPER_META, about, _random(scratch)))
    if official is not None:
        about = "the paper's authors' snapshots, one per third of the horizon"
        found.append(_read(OFFICIAL, about, _convert(official, scratch)))
    return {each.method: each for each in found}


def shipped() -> dict[str, Path]:
    """Return the files of the models that come with mlrs, by name."""
    folder = Path(str(resources.files("mlrs_core") / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _locate(model: str) -> Path:
    """Return the file of a model, given as a shipped one's name or as a file."""
    if model in shipped():
        return shipped()[model]
    if Path(model).suffix != ".safetensors":
        raise UnknownNameError("model", model, [*shipped(), "or a .safetensors file"])
    return Path(model)


def _read(method: str, about: str, path: Path) -> ModelFile:
    try:
        _, digest = read_model(path)
    except (ModelFileError, OSError) as error:
        raise DataFileError(f"{method}: {error}") from error
    return ModelFile(method, about, path, digest)


def _random(folder: Path) -> Path:
    """Return a file of the paper's network as torch initialises it, always the same."""
    import torch

    from mlrs_core.networks.paper.reference import PaperNet, weights_of

    spec = PaperSpec()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        weights = weights_of(PaperNet(spec))
    provenance = {"method": "random", "seed": RANDOM_SEED}
    data = dump_model(Model(architecture=spec, snapshots=(weights,), provenance=provenance))
    path = folder / f"random-{digest_of(data)[:16]}.safetensors"
    path.write_bytes(data)
    return path


def _convert(folder: Path, scratch: Path) -> Path:
    """Return a file of the authors' snapshots, which lie in a folder as `... EPOCH.pth`."""
    from mlrs_core.models.official import import_official

    files = {int(match[1]): path for path in folder.glob("*.pth") if (match := SNAPSHOT.search(path.name))}
    if not files:
        raise DataFileError(f"{folder}: holds no snapshots, files with names like 'mlr_snet 100.pth'")
    try:
        # The published weights are of the authors' meta-test code, whose layout this is.
        data = dump_model(import_official([files[epoch] for epoch in sorted(files)], gate_layout="ifgo"))
    except (ModelFileError, OSError) as error:
        raise DataFileError(f"{OFFICIAL}: {error}") from error
    path = scratch / f"official-{digest_of(data)[:16]}.safetensors"
    path.write_bytes(data)
    return path
