"""Hydra's and OmegaConf's complaints, said to a person: what, where, what is accepted, the nearest name. No torch here."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plumbline.config import COMBINED, GROUPS, Config, ConfigError, describe, nearest

COMPOSITION = (ConfigError, HydraException, OmegaConfBaseException, yaml.YAMLError)


def refuse_choices(arguments: list[str]) -> None:
    """A run has exactly one of each plain group; Hydra would fail obscurely on none, and merge two into a third."""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in GROUPS and value in ("null", ""):
            raise ConfigError(f"{argument}: a run needs one {key}; name an option: {key}=…")
        if equals and key in GROUPS and value.startswith("["):
            raise ConfigError(f"{argument}: {key} takes one option, not a list; the groups that combine are {', '.join(COMBINED)}")


def explain(error: Exception, folders: list[Path]) -> str:
    """One message for a mistake that composition saw. folders: where option files lie, our conf/ first."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _no_option(error, folders)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value ({_first(error)}); quote what the shell or Hydra takes for its own: 'key=\"…\"'"
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = f"{error}\n{cause}"
    where = re.search(r"In '([^']+)'", text)
    place = f" (in {_file(where[1], folders)})" if where else ""
    key = (
        getattr(cause, "full_key", None)
        or _found(r"full_key: (\S+)", text)
        or _found(r"override '?([^\s'=]+)", text)
        or ""
    )
    if "Ambiguous value" in text:
        given = _found("argument '([^\n]+)'", text)
        return f"{given}: several values are a search: put -m in front of the overrides; a list is written {key or 'key'}=[…]"
    if re.search(r"not in '?(struct|Config)|is not in struct", text):
        return _no_key(key, cause, place)
    if "Interpolation" in type(cause).__name__:
        return f"{key}{place}: {_first(cause)}"
    if annotation := Config.__annotations__.get(key):
        value = _found(r"Value '([^\n]*)' of type", text)
        given = "null" if "not Optional" in text else value
        return f"{key}{'' if given is None else '=' + given}{place}: must be {_words(key, annotation)}"
    return f"{key + ': ' if key else ''}{_first(cause)}{place}"


def _no_option(error: MissingConfigException, folders: list[Path]) -> str:
    group, _, name = (error.missing_cfg_file or _found(r"'([^']+/[^']+)'\.?\n", str(error)) or "").rpartition("/")
    options = sorted(
        {file.stem for folder in folders for file in (folder / group).glob("*.yaml") if not file.stem.startswith("_")}
    )
    if not group:
        return f"--config-name {name}: there is no such file{nearest(name, options)}"
    if not options and not any((folder / group).is_dir() for folder in folders):
        groups = sorted(
            {item.name for folder in folders if folder.is_dir() for item in folder.iterdir() if item.is_dir()}
        )
        return f"{group}={name}: there is no group {group}{nearest(group, groups)}; groups: {', '.join(groups)}"
    written = f"[{name}]" if group in COMBINED else name
    return f"{group}={written}: there is no such option{nearest(name, options)}; {group} has: {', '.join(options)}"


def _no_key(key: str, cause: Exception, place: str) -> str:
    parent = getattr(cause, "parent_node", None)
    above, _, last = key.rpartition(".")
    known = [str(item) for item in parent] if OmegaConf.is_dict(parent) else list(Config.__annotations__)
    known = [name for name in known if name not in ("hydra", "_target_")]
    if above in COMBINED:
        return f"{key}{place}: is not chosen, so it has no options; say {above}=[{last}] too"
    return f"{key}{place}: there is no such key{nearest(last, known)}; {above or 'a run'} has: {', '.join(known)}"


def _words(key: str, annotation: object) -> str:
    import typing

    return describe(typing.get_type_hints(Config)[key])


def _file(option: str, folders: list[Path]) -> str:
    for folder in reversed(folders):
        if (folder / f"{option}.yaml").exists():
            return f"{folder.name}/{option}.yaml"
    return option


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _first(error: object) -> str:
    return (str(error).strip().splitlines() or [""])[0]
