"""The rule between an option file and its target: equal keys, right types, from an allowed package; and how it is said."""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
import types
import typing
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from plumbline.output import printable
from plumbline.ranges import WHOLE, Range


class ConfigError(ValueError):
    """A mistake in the command or the configuration: one message with path, value and what would be right."""


def require(path: str, value: Any, right: bool, accepted: str) -> None:
    """Raise ConfigError unless the value is right, saying what would be: `schedule.floor=2: must be in [0, 1]`."""
    if not right:
        raise ConfigError(f"{path}={value}: must be {accepted}")


def allowed(path: str, name: str, allow: list[str], home: str | None = None) -> None:
    """Raise ConfigError unless the dotted name, or the module it is at home in, lies in an allowed package.

    Nothing is imported before that.
    """
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{path}._target_={name}: must be a dotted path, such as package.module.Name")
    where = home or name
    if not any(where == prefix or where.startswith(prefix + ".") for prefix in allow):
        raise ConfigError(
            f"{path}._target_={name}: {f'is borrowed from {home}, which ' if home else ''}lies outside the packages that may "
            f"be used ({', '.join(allow)}); if you trust it, say 'allow=[{','.join([*allow, where.partition('.')[0]])}]' "
            "or add it to allow in conf/train.yaml"
        )


def check_node(path: str, node: DictConfig, allow: list[str]) -> None:
    """Raise ConfigError unless the node's keys are its target's: equal for keyword-only ones, known for the others."""
    target = locate(path, shown(node["_target_"]), allow)
    given = {str(key): None if OmegaConf.is_missing(node, key) else node[key] for key in node if key != "_target_"}
    for key in given:
        if key.startswith("_") and key.endswith("_"):
            raise ConfigError(f"{path}.{key}: is Hydra's own word and is not used here; remove it")
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{path}.{key}: has no value (???); give one: {path}.{key}=…")
    accepted, own, open_ended = parameters(target)
    for key in given:
        if key not in accepted and not open_ended:
            raise ConfigError(
                f"{path}.{key}={shown(given[key])}: no such key{nearest(key, accepted)}; "
                f"{node['_target_']} takes: {', '.join(accepted) or 'none'}"
            )
    if not own:
        return  # not in our idiom (torch's own classes): they keep their defaults
    for key, annotation in accepted.items():
        if key not in given:
            raise ConfigError(
                f"{path}.{key}: has no value; {node['_target_']} needs it, so write it into the option's file "
                f"or say +{path}.{key}=…"
            )
        value = OmegaConf.to_container(given[key], resolve=True) if OmegaConf.is_config(given[key]) else given[key]
        check_value(f"{path}.{key}", value, annotation)


def check_value(path: str, value: Any, annotation: Any) -> None:
    """Raise ConfigError unless a plain value is of the annotated type and within its range."""
    if not fits(value, annotation):
        raise ConfigError(f"{path}={shown(value)}: must be {describe(annotation)}{_hint(value, annotation)}")


def locate(path: str, name: str, allow: list[str]) -> Any:
    """The object of a dotted name, if its true home is allowed too (`torch.os.system` is not torch's)."""
    allowed(path, name, allow)
    module_name, _, attribute = name.rpartition(".")
    try:
        importlib.invalidate_caches()  # a module written a moment ago is there, too
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not (module_name == missing or module_name.startswith(missing + ".")):
            said = f"{module_name} imports {missing}, which is not installed{place(error)}"
        else:
            said = (
                f"there is no module {missing}{_modules_near(missing)}; it is looked for on PYTHONPATH, in the current "
                "folder, in the --config-dir and in the folder that holds it"
            )
        raise ConfigError(f"{path}._target_={name}: {said}") from error
    except SyntaxError as error:
        raise ConfigError(f"{path}._target_={name}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever a module may do when it is imported
        said = f"importing {module_name} failed: {type(error).__name__}: {error}{place(error)}"
        raise ConfigError(f"{path}._target_={name}: {said}") from error
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{path}._target_={name}: {module_name} has no {attribute}{nearest(attribute, public)}")
    target = getattr(module, attribute)
    if not callable(target):
        raise ConfigError(f"{path}._target_={name}: is not a function or class")
    home = getattr(target, "__module__", None) or module_name
    if home != module_name:
        allowed(path, name, allow, home)
    return target


def place(error: BaseException) -> str:
    """` (file, line n)`, the innermost that is not Python's own or an installed package's; or nothing."""
    others = ("/site-packages/", "/importlib/", "<frozen")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in others)]
    frames = [f for f in frames if f.name != "__torch_function__"]  # it stands between a line and torch, and passes on
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""


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


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(item)}" for key, item in value.items()) + "}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), printable(value))


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


def nearest(name: str, known: Any) -> str:
    """` (did you mean 'x'?)` for the closest known name, or nothing."""
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _modules_near(name: str) -> str:
    """The closest importable module to a mistyped one, among those beside it."""
    import pkgutil

    parent, _, last = name.rpartition(".")
    try:
        where = importlib.import_module(parent).__path__ if parent else None
    except (ImportError, AttributeError):
        return ""
    return nearest(last, [item.name for item in pkgutil.iter_modules(where)])
