"""`mlrs train`: meta-train a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource
from rich.console import Console

from mlrs_core.errors import InvalidFieldError
from mlrs_train.errors import NoTrainingError, SettingChangedError, TrainError, TrainingExistsError
from mlrs_train.evolution.engines.choice import EngineChoice
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.method import Settings, TrainingMethod
from mlrs_train.methods import SETTINGS
from mlrs_train.settings import MANY, Real, Setting, Whole, settings_of

if TYPE_CHECKING:  # it needs the extra `train`, which the command's help does not
    from mlrs_train.session import TrainingOutcome, TrainingSession

DEFAULT_METHOD = EvolutionSettings.method
"""The method of options without one."""
INTERRUPTED = 130
"""The exit status of a training that was interrupted: whoever waits for its model must not continue."""
NAMES = {"engine": "NAME", "ray_address": "HOST:PORT"}
"""What stands for a value in the help, where its type does not say."""


class MethodGroup(click.Group):
    """A group with a command for each method; options alone are those of the default method."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments, with the default method's name before its options."""
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            args = [DEFAULT_METHOD, *args]
        return super().parse_args(ctx, args)


def _names(value: str | Sequence[str]) -> list[str]:
    """Return names that are separated by commas."""
    words = value.split(",") if isinstance(value, str) else value
    return [word.strip() for word in words if word.strip()]


@click.group(cls=MethodGroup)
def train() -> None:
    """Meta-train a model: how learning rates should follow losses.

    There is a command for each method. Without one, options are those of `evolution`, which makes tail
    networks. `hypergradient` is the paper's algorithm, and made the model `paper`.

    The result, OUT/model.safetensors, depends on the settings alone: the same command makes the same
    bytes, whether it was interrupted or not. Ctrl-C saves a checkpoint, and the status is then 130.

    \b
    Examples:
      mlrs train --out runs/tail                               train a tail network: hours
      mlrs train --out runs/tail --minutes 30 --workers 8 --tasks-per-update 16
      mlrs train --out runs/tail --resume                      go on after an interruption
      mlrs train hypergradient --out runs/paper                 train as the model `paper` was: minutes
      mlrs train hypergradient --out runs/quick --epochs 5      a look in ten seconds
      tensorboard --logdir runs                                 watch
    """


def _command(kind: type[Settings]) -> click.Command:
    """Return the command of a method, with an option for each of its settings."""
    settings = settings_of(kind)
    engine = settings_of(EngineChoice) if kind is EvolutionSettings else []

    def run(out: Path, *, resume: bool, checkpoint_every: int | None, **options: Any) -> None:
        context = click.get_current_context()
        typed = {
            name: value
            for name, value in options.items()
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        choice = {setting.name: typed.pop(setting.name) for setting in engine if setting.name in typed}
        with _explained(out):
            engines = EngineChoice(**choice)
            session = _open(out, kind, typed, resume=resume)
            every = checkpoint_every or session.settings.checkpoint_every
            with _engine(session.method, engines):
                outcome = session.run(Console(), checkpoint_every=every)
        _report(out, kind, outcome)
        if outcome.digest is None:
            context.exit(INTERRUPTED)

    return click.Command(
        kind.method,
        callback=run,
        help=kind.summary,
        params=[*map(_option_of, settings), *map(_option_of, engine), *_folder_options(kind)],
        context_settings={"show_default": True},
    )


def _option_of(setting: Setting) -> click.Option:
    """Return the option of a setting."""
    default = setting.default
    listed = get_origin(setting.kind) is Sequence
    return click.Option(
        [_flag(setting.name)],
        type=_names if listed else _type_of(setting),
        default=",".join(default) or None if listed else default,
        metavar="NAMES" if listed else NAMES.get(setting.name),
        help=" ".join(setting.document.split()).replace("`", ""),
    )


def _type_of(setting: Setting) -> Any:
    """Return what click checks the values of a setting by."""
    if get_origin(setting.kind) is Literal:
        return click.Choice(get_args(setting.kind))
    match setting.limits:
        case Whole(least=least, most=most):
            return click.IntRange(min=least, max=None if most >= MANY else most)
        case Real(above=None, least=least):
            return click.FloatRange(min=least)
        case Real(above=above):
            return click.FloatRange(min=above, min_open=True)
    return setting.kind


def _folder_options(kind: type[Settings]) -> list[click.Option]:
    """Return the options of every method that are no settings: the result does not depend on them."""
    return [
        click.Option(
            ["--out"],
            required=True,
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder for the model, log, curves, TensorBoard events and checkpoint.",
        ),
        click.Option(
            ["--resume"], is_flag=True, help="Go on with the training in --out, with its own settings."
        ),
        click.Option(
            ["--checkpoint-every"],
            type=click.IntRange(min=1),
            show_default=str(kind.checkpoint_every),
            help="Steps of all tasks together, or updates, between checkpoints.",
        ),
    ]


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn what goes wrong in a training into the command's error messages."""
    try:
        yield
    except (InvalidFieldError, TrainError) as error:
        raise _usage(error) from error
    except OSError as error:
        raise click.ClickException(
            f"cannot write {error.filename or out}: {error.strerror or error}"
        ) from error


def _open(out: Path, kind: type[Settings], given: dict[str, Any], *, resume: bool) -> TrainingSession:
    """Return the training that these settings start, or the one in the folder."""
    try:
        from mlrs_train.session import resume_session, start_session

        return resume_session(out, kind.method, given) if resume else start_session(out, kind(**given))
    except ImportError as error:  # of torch here, of a task's library inside
        raise click.ClickException(f"{error.name} is missing: pip install 'mlrs[train]'") from error


@contextmanager
def _engine(method: TrainingMethod, choice: EngineChoice) -> Iterator[None]:
    """Let a training by evolution use an engine, which is closed at the end."""
    from mlrs_train.evolution.method import Evolution

    if not isinstance(method, Evolution):
        yield
        return
    with closing(choice.open()) as method.engine:
        yield


def _usage(error: InvalidFieldError | TrainError) -> click.ClickException:
    """Return an error of the training as one that names the option."""
    match error:
        case InvalidFieldError(field=field):
            return click.BadParameter(str(error).removeprefix(f"{field}: "), param_hint=_quoted(field))
        case SettingChangedError(setting="method"):
            return click.UsageError(f"{error}; take the command of that name")
        case SettingChangedError(setting=setting):
            return click.BadParameter(f"{error}; leave it out to go on", param_hint=_quoted(setting))
        case TrainingExistsError():
            return click.BadParameter(
                f"{error}: go on with --resume, or take another", param_hint=_quoted("out")
            )
        case NoTrainingError():
            return click.BadParameter(f"{error}: start one without --resume", param_hint=_quoted("out"))
        case _:
            return click.ClickException(str(error))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _quoted(name: str) -> str:
    return f"'{_flag(name)}'"


def _report(out: Path, kind: type[Settings], outcome: TrainingOutcome) -> None:
    if outcome.digest is None:
        click.echo(f"Interrupted after {outcome.steps_done:,} of {outcome.steps_total:,} steps, and saved.")
        click.echo(f"Go on with: mlrs train {kind.method} --resume --out {out}")
        return
    click.echo(f"{out / 'model.safetensors'}: sha256 {outcome.digest}")
    click.echo(f"{out / 'curves.png'}, {out / 'log.jsonl'}: how it got there")


for each in SETTINGS.values():
    train.add_command(_command(each))
