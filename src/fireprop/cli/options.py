"""Options of the command line that are settings of a run: made of the dataclasses that hold the settings."""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from enum import Enum
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import typer

Command = TypeVar("Command", bound=Callable[..., None])


def with_settings(shared: str, panels: Mapping[type, str]) -> Callable[[Command], Command]:
    """Give a command an option for each field of these dataclasses that has a help text (`plans.setting`).

    shared  the panel of the help for settings that several classes have
    panels  the panel for those of each class alone

    The options stand before the command's keyword-only parameters, and reach it in its ** parameter, None where they
    are not given. A setting of several classes has the help text of the last.
    """

    def decorate(command: Command) -> Command:
        own = list(inspect.signature(command).parameters.values())
        before = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
        after = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in own if p.kind is p.KEYWORD_ONLY]
        options = _parameters(shared, panels)
        parameters = [*before, *options, *after]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return decorate


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given as options, as the dataclasses take them."""
    return {name: _plain(value) for name, value in settings.items() if value not in (None, [])}


def option_name(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _parameters(shared: str, panels: Mapping[type, str]) -> list[inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for kind, panel in panels.items():
        hints = get_type_hints(kind)
        for field in fields(kind):
            if "about" in field.metadata:
                owners = sum(field.name in {other.name for other in fields(each)} for each in panels)
                found[field.name] = _parameter(field, hints[field.name], shared if owners > 1 else panel)
    return list(found.values())


def _parameter(field: "Field[Any]", hint: Any, panel: str) -> inspect.Parameter:
    option = typer.Option(help=field.metadata["about"], metavar=field.metadata["metavar"], rich_help_panel=panel)
    annotation = operator.getitem(cast(Any, Annotated), (_kind(field.name, hint) | None, option))
    return inspect.Parameter(field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)


def _kind(name: str, hint: Any) -> Any:
    """The type of an option for a setting of this type."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is Literal:
        return Enum(name, {choice: choice for choice in get_args(hint)}, type=str)  # typer knows Literal from 0.19 on
    return GenericAlias(list, get_args(hint)[:1]) if get_origin(hint) is tuple else hint


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return tuple(value) if isinstance(value, list) else value
