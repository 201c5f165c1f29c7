"""The methods of the benchmark: what may set the LR of a training.

    method.py           the interface: Method, Training, Control
    served.py           schedules and networks, served by a daemon
    adapting.py         networks of the daemon's that go on learning
    rescued.py          the same with rescue
    searched.py         a search for the LR to begin with, through the adapter of PyTorch
    validating.py       the validation losses that some of them tell
    finders.py          LR finders of other packages
    hypergradient.py    hypergradient descent
    l4.py               L4
    packaged.py         optimizers that choose their own LR, from packages
    three_step.py       the control for the authors' snapshots

To add one, write its control and enter it in `all_methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from mlrs_bench.errors import NotGivenError, UnknownNameError
from mlrs_bench.methods.adapting import adapted
from mlrs_bench.methods.finders import finder_methods
from mlrs_bench.methods.hypergradient import HypergradientDescent
from mlrs_bench.methods.l4 import L4
from mlrs_bench.methods.method import OPTIMIZERS, Control, Method, Training
from mlrs_bench.methods.packaged import packaged_methods
from mlrs_bench.methods.rescued import rescued
from mlrs_bench.methods.searched import searched
from mlrs_bench.methods.served import modelled, scheduled
from mlrs_bench.methods.three_step import ThreeStep
from mlrs_bench.models import (
    ADVISED,
    ADVISED_META_RESCUE,
    META,
    OFFICIAL,
    OPTIONAL,
    PAPER,
    PAPER_META,
    ModelFile,
)
from mlrs_bench.rules import RULES
from mlrs_bench.sources import digest_of_files
from mlrs_core.config import ScheduleKind, ScheduleSpec

__all__ = ["SCHEDULES", "TUNED", "Control", "Method", "Training", "all_methods", "choose_methods"]

SCHEDULES = {
    "cosine": "down along half a cosine, after 5 % of warmup",
    "linear": "down along a line, after 5 % of warmup",
    "wsd": "warmup, stable, decay: level until the last part, after 5 % of warmup",
    "constant": "the same at every step",
    "plateau": "down by a factor whenever the loss has stopped falling",
    "greedy": "up while the loss falls, down while it rises",
}
"""The schedules of the daemon, each with the default base LR."""
TUNED = ("cosine", "linear", "wsd")
"""Those that are also tuned, on each row."""
SGD_ONLY = ("sgd",)
"""The optimizer that the paper's scale of LRs, gamma, is a rule for."""
STARTS = (1.0, 0.1, 10.0)
"""The initial LRs that the network in question is given, over the default one."""
SEARCH = "search"
"""What a user with a validation set gets: a search, then what the daemon chooses, told all there is."""
SEARCH_STARTS = (1.0, 0.01, 0.1, 10.0, 100.0)
"""The initial LRs that the search is given, over the default one."""

SEARCH_FILES = ("searched.py", "served.py", "validating.py")
"""The files of methods that begin with a search."""
SCHEDULE_FILES = (
    "__init__.py",
    "advise.py",
    "compiled.py",
    "config/*.py",
    "errors.py",
    "kernel_cache.py",
    "policy.py",
    "schedules/*.py",
)
"""The files of `mlrs_core` that served schedules depend on: no networks."""


def all_methods(models: Mapping[str, ModelFile]) -> list[Method]:
    """Return all methods that can be run, the search first.

    Args:
        models: the networks to judge, by the name of their method.
    """
    networks = [_network(model) for model in models.values()]
    return [
        *_searches(models),
        *networks,
        *_schedules(),
        *_own(),
        *packaged_methods(),
        *finder_methods(SCHEDULE_FILES),
    ]


def choose_methods(methods: Sequence[Method], names: Sequence[str]) -> list[Method]:
    """Return the methods of these names; all of them for none.

    Raises:
        UnknownNameError: a name is unknown.
        NotGivenError: a method is a network whose file was not given.
    """
    known = {method.name: method for method in methods}
    for name in names:
        if name not in known and name in OPTIONAL:
            raise NotGivenError("methods", name, OPTIONAL[name])
        if name not in known:
            raise UnknownNameError("methods", name, known)
    return [known[name] for name in names or known]


def _network(model: ModelFile) -> Method:
    control: Callable[[Training], Control] = modelled(model.served_name)
    files: tuple[str, ...] = ("served.py",)
    rescue = ""
    if model.method == ADVISED_META_RESCUE:
        control, files = rescued(model), ("rescued.py", "adapting.py", "served.py", "validating.py")
        rescue = f" {_adapter_digest('rescue')}"
    elif model.method in META:
        control, files = adapted(model), ("adapting.py", "served.py")
    return Method(
        name=model.method,
        about=model.about,
        control=control,
        identity=f"model {model.digest}{rescue}",
        files=files,
        core_files=("**/*.py",),
        optimizers=SGD_ONLY if model.method in {PAPER, PAPER_META, OFFICIAL} else OPTIMIZERS,
        starts=STARTS if model.method == ADVISED else (1.0,),
    )


def _searches(models: Mapping[str, ModelFile]) -> list[Method]:
    """Return the methods that begin with a search; their steps are charged, but for one."""
    every = "what the daemon chooses, told losses, signals and validation losses"
    signals, rescue = _adapter_digest("signals"), _adapter_digest("rescue")
    advised = {
        SEARCH: (searched(signals=True, validations=True), every, signals),
        f"{SEARCH}-signals": (searched(signals=True), "the same, told no validation losses", signals),
        f"{SEARCH}-losses": (searched(), "the same, told neither signals nor validation losses", ""),
        f"{SEARCH}-uncharged": (
            searched(signals=True, validations=True, charged=False),
            f"{every}; its steps do not count",
            signals,
        ),
    }
    model = models[ADVISED].digest if ADVISED in models else ""
    networks = [
        Method(
            name=name,
            about=f"a search, then {about}",
            control=control,
            identity=" ".join(filter(None, ("search 2", model, measured, rescue))),
            files=SEARCH_FILES,
            core_files=("**/*.py",),
            model=ADVISED,
            starts=SEARCH_STARTS if name == SEARCH else (1.0,),
        )
        for name, (control, about, measured) in advised.items()
    ]
    plain = {"schedule": "wsd", "linear": "linear", "cosine": "cosine"}
    schedules = [
        Method(
            name=f"{SEARCH}-{name}",
            about=f"a search, then {SCHEDULES[policy]}",
            control=searched(policy=policy),
            identity="search 2",
            files=SEARCH_FILES,
            core_files=(*SCHEDULE_FILES, "search/*.py"),
        )
        for name, policy in plain.items()
    ]
    return [*networks, *schedules]


def _adapter_digest(part: str) -> str:
    """Return the name and a digest of a part of the adapter of PyTorch: signals or rescue."""
    folder = Path(str(resources.files("mlrs") / "torch" / part))
    return f"{part} {digest_of_files(folder, ['*.py'])[:16]}"


def _schedules() -> list[Method]:
    default = {name: rule.default_lr for name, rule in RULES.items()}
    tuned = [
        Method(
            name=f"tuned-{policy}",
            about=f"{SCHEDULES[policy]}; the base LR tuned on each row",
            control=scheduled(policy),
            identity=_schedule_identity(policy),
            files=("served.py",),
            core_files=SCHEDULE_FILES,
            tuned=True,
        )
        for policy in TUNED
    ]
    untuned = [
        Method(
            name=policy,
            about=about,
            control=scheduled(policy),
            identity=_schedule_identity(policy),
            files=("served.py",),
            core_files=SCHEDULE_FILES,
            base_lrs=default,
        )
        for policy, about in SCHEDULES.items()
    ]
    return [*tuned, *untuned]


def _schedule_identity(policy: str) -> str:
    """Return the release, and a digest of the schedule's defaults: they change without one."""
    return f"mlrs {version('mlrs')} {ScheduleSpec(kind=ScheduleKind[policy.upper()]).digest()[:16]}"


def _own() -> list[Method]:
    """Return the methods that are built here; another `identity` makes their results be computed again."""
    return [
        Method(
            name="hypergradient",
            about="along the gradient of the loss with respect to the LR (Baydin et al., 2018)",
            control=HypergradientDescent,
            files=("hypergradient.py",),
            identity="hypergradient 1",
            base_lrs={name: rule.default_lr for name, rule in RULES.items()},
        ),
        Method(
            name="l4",
            about="by the linearized loss (Rolinek and Martius, 2018)",
            control=L4,
            files=("l4.py",),
            identity="l4 2",
        ),
        Method(
            name="three-step",
            about="{0.73, 0.037, 0.018} gamma: the authors' snapshots without a network",
            control=ThreeStep,
            files=("three_step.py",),
            identity="three-step 1",
            core_files=("networks/scale.py",),
            optimizers=SGD_ONLY,
        ),
    ]
