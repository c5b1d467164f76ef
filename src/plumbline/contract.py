"""The rule between an option file and its target: equal keys, right types, values in range."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from plumbline.errors import ConfigError, nearest, place, require, shown
from plumbline.ranges import WHOLE, Range
from plumbline.targets import allowed, check_call, locate

__all__ = ["ConfigError", "allowed", "check_node", "locate", "nearest", "place", "require", "shown"]


def check_node(path: str, node: DictConfig, allow: list[str]) -> None:
    """Raise ConfigError unless the node's keys are its target's: equal for keyword-only ones, known for the others."""
    name = shown(node["_target_"])
    target = locate(path, name, allow)
    given = {str(key): None if OmegaConf.is_missing(node, key) else node[key] for key in node if key != "_target_"}
    check_keys_of_hydra(path, node)
    for key in given:
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{path}.{key}: has no value (???); give one: {path}.{key}=…")
    accepted, own, open_ended = parameters(target)
    for key in given:
        if key not in accepted and not open_ended:
            raise ConfigError(
                f"{path}.{key}={shown(given[key])}: no such key{nearest(key, accepted)}; "
                f"{node['_target_']} takes: {', '.join(accepted) or 'none'}"
            )
    for key, annotation in accepted.items() if own else ():  # torch's own classes keep their defaults
        if key not in given:
            raise ConfigError(
                f"{path}.{key}: has no value; {node['_target_']} needs it, so write it into the option's file "
                f"or say +{path}.{key}=…"
            )
        if OmegaConf.is_dict(given[key]) and "_target_" in given[key]:
            continue  # another node, which is checked by itself
        value = OmegaConf.to_container(given[key], resolve=True) if OmegaConf.is_config(given[key]) else given[key]
        check_value(f"{path}.{key}", value, annotation)
    check_call(path, name, target, given)


def check_keys_of_hydra(path: str, node: DictConfig) -> None:
    """Raise ConfigError on `_args_`, `_partial_` and the like, which change how a node is built."""
    for key in map(str, node):
        if key != "_target_" and key.startswith("_") and key.endswith("_"):
            raise ConfigError(f"{path}.{key}: is Hydra's own word and is not used here; remove it")


def check_value(path: str, value: Any, annotation: Any) -> None:
    """Raise ConfigError unless a plain value is of the annotated type and within its range."""
    if not fits(value, annotation):
        raise ConfigError(f"{path}={shown(value)}: must be {describe(annotation)}{_hint(value, annotation)}")


def parameters(target: Callable[..., Any]) -> tuple[dict[str, Any], bool, bool]:
    """(name -> annotation of what configuration may give, whether the target is in our idiom, whether **kwargs are free)."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        signature = inspect.signature(target)
    except ValueError:  # of torch's functions in C: nothing can be known
        return {}, False, True
    try:
        annotations = typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name that only a type checker sees: the names of the keys can still be checked
        annotations = {}
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    own = inspect.Parameter.KEYWORD_ONLY in kinds or inspect.Parameter.VAR_KEYWORD in kinds
    accepted, open_ended = {}, False
    for name, parameter in signature.parameters.items():
        annotation = annotations.get(name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            bundle = typing.get_args(annotation)
            if typing.get_origin(annotation) is typing.Unpack:
                accepted |= typing.get_type_hints(bundle[0], include_extras=True)
            else:
                open_ended = True
        elif parameter.kind is parameter.KEYWORD_ONLY:
            accepted[name] = annotation
            own = own and parameter.default is parameter.empty
    if own or not _foreign(target):
        return accepted, True, open_ended
    named = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return (
        {
            name: annotations.get(name, Any)
            for name, parameter in signature.parameters.items()
            if parameter.kind in named
        },
        False,
        open_ended,
    )


def _foreign(target: Any) -> bool:
    return (getattr(target, "__module__", None) or "").partition(".")[0] in ("torch", "torchvision")


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value is of the annotated type and range; an int serves as a float, a bool never as a number."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is inspect.Parameter.empty:
        return True
    if origin is typing.Annotated:
        ranges = [mark for mark in arguments[1:] if isinstance(mark, Range)]
        return fits(value, arguments[0]) and all(value in accepted for accepted in ranges)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if annotation in (None, type(None)):
        return value is None
    if origin in (list, tuple):
        items = arguments[0] if arguments else Any
        if origin is tuple and len(arguments) > 1 and arguments[-1] is not Ellipsis:
            return isinstance(value, list) and len(value) == len(arguments) and all(map(fits, value, arguments))
        return isinstance(value, list) and all(fits(item, items) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and value in WHOLE
    return isinstance(value, annotation) if isinstance(annotation, type) else True


MANY = {int: "whole numbers", float: "numbers", str: "words"}


def _many(annotation: Any) -> str:
    """An annotation of a list's items, in the plural."""
    if typing.get_origin(annotation) is typing.Annotated:
        item, *marks = typing.get_args(annotation)
        return " ".join([_many(item), *(str(mark) for mark in marks if isinstance(mark, Range))])
    return MANY.get(annotation, describe(annotation))


def describe(annotation: Any) -> str:
    """An annotation in words a person would use."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return " ".join([describe(arguments[0]), *(str(mark) for mark in arguments[1:] if isinstance(mark, Range))])
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin in (list, tuple):
        if origin is tuple and Ellipsis not in arguments:
            return f"a list of {len(arguments)}: {', '.join(map(describe, arguments))}"
        return f"a list of {_many(arguments[0])}" if arguments else "a list"
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        dict: "a mapping",
        list: "a list",
    }
    return words.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _hint(value: Any, annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    literals = [
        choice
        for argument in (annotation, *arguments)
        if typing.get_origin(argument) is typing.Literal
        for choice in typing.get_args(argument)
    ]
    return nearest(str(value), [str(choice) for choice in literals])
