"""What is wrong with a command line or an option file, said to a person: what, where, what is accepted. No torch here."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import re
import traceback
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plumbline.config import COMBINED, GROUPS, PRESETS, Config, value_types
from plumbline.contract import ConfigError, describe, nearest, shown
from plumbline.parsing import parse_yaml

SINGLE = GROUPS + PRESETS  # of these a run has exactly one option
COMPOSITION = (ConfigError, HydraException, OmegaConfBaseException, yaml.YAMLError)
ANYTHING = (
    *COMPOSITION,
    ValueError,
    OSError,
    AssertionError,
    RecursionError,
    ArithmeticError,
)  # Hydra's own, and a file's


def groups(folders: list[Path]) -> list[str]:
    """The groups that have options. folders: where option files lie, our conf/ first, then those of --config-dir."""
    return sorted({item.name for folder in folders for item in folder.glob("*/") if options(item.name, folders)})


def options(group: str, folders: list[Path]) -> dict[str, Path]:
    """Name -> file of a group's options, by name; a later folder's stands before an earlier one's, as Hydra has it."""
    files = [file for folder in folders for file in (folder / group).glob("[!_]*.yaml") if file.is_file()]
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


# --- before Hydra looks at the words ---------------------------------------------------------------------------------


def parse(words: list[str]) -> argparse.Namespace:
    """The command line as Hydra reads it: its flags, and `overrides`; they may stand in any order."""

    def refuse(message: str) -> typing.NoReturn:
        raise ConfigError(f"{message}; accepted are group=option, key=value and what --hydra-help lists")

    parser = get_args_parser()
    parser.error = refuse
    return parser.parse_intermixed_args(words)


def check_words(overrides: list[str], folders: list[Path]) -> None:
    """Raise ConfigError on overrides that Hydra would trip over, or would take for what nobody means."""
    for folder in folders[1:]:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir={folder}: there is no such folder")
    for place in search_path(overrides):
        check_place(place)
    for override in OverridesParser.create().parse_overrides(overrides):
        word, key, value = override.input_line, override.key_or_group, override.value()
        if not key:
            raise ConfigError(f"{word}: has no key; say key=value")
        if override.is_delete() or override.is_sweep_override() or not any((f / key).is_dir() for f in folders):
            continue
        if key in SINGLE and value in (None, ""):
            raise ConfigError(f"{word}: a run needs one {key}; name an option: {key}=…")
        if key in SINGLE and isinstance(value, list):
            raise ConfigError(
                f"{word}: {key} takes one option, not a list; the groups that combine are {', '.join(COMBINED)}"
            )
        check_once(key, value)
        if value in (None, ""):
            raise ConfigError(f"{word}: name an option, or leave it out; none of a group that combines is []")
        if not isinstance(value, str | list | dict):
            raise ConfigError(_unknown_option(key, str(value), folders))


def search_path(words: list[str]) -> list[str]:
    """The places that hydra.searchpath names, further folders of option files; none where it cannot be read."""
    found: list[str] = []
    for word in words:
        if word.lstrip("+").startswith("hydra.searchpath="):
            with contextlib.suppress(HydraException, TypeError):  # Hydra says it
                places = OverridesParser.create().parse_override(word).value()
                found += map(str, [places] if isinstance(places, str) else places or [])
    return found


def check_place(place: str) -> None:
    """Raise ConfigError unless a place of hydra.searchpath exists; Hydra passes over one that does not."""
    kind, given, path = place.rpartition("://")
    if not given or kind == "file":
        if not Path(path).is_dir():
            raise ConfigError(f"hydra.searchpath=[{place}]: there is no such folder; name one, or leave it out")
    elif kind == "pkg":
        spec = importlib.util.find_spec(path.partition("/")[0].partition(".")[0])
        if spec is None or spec.submodule_search_locations is None:
            raise ConfigError(f"hydra.searchpath=[{place}]: there is no such package; name one, or leave it out")


def check_choices(choices: Mapping[str, object], folders: list[Path]) -> None:
    """Raise ConfigError unless an option file left each plain group with exactly one option; Hydra merges several."""
    for group in SINGLE:
        if not isinstance(choices.get(group), str):
            raise ConfigError(
                f"{group}: a run needs exactly one {group}; say {group}=…, in a file `override /{group}: …`"
            )
    for group, chosen in choices.items():
        if isinstance(chosen, str) and (file := _file(f"{group}/{chosen}", folders)) is not None:
            check_lists(file)


def check_lists(file: Path) -> None:
    """Raise ConfigError where an option file's defaults list chooses an option of a group twice."""
    text = file.read_text(encoding="utf-8")
    if not any(f"{group}:" in text for group in COMBINED):
        return
    for entry in yaml.safe_load(text).get("defaults", []):
        for group, chosen in entry.items() if isinstance(entry, dict) else ():
            check_once(group.removeprefix("override").strip().lstrip("/"), chosen, f"{file}: ")


def check_once(group: str, chosen: object, where: str = "") -> None:
    """Raise ConfigError on an option that is chosen twice; Hydra would take the second for the first."""
    names = chosen if isinstance(chosen, Sequence) and not isinstance(chosen, str) else []
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        written = f"[{','.join(map(str, dict.fromkeys(names)))}]"
        raise ConfigError(
            f"{where}{group}={shown(list(names))}: {twice} is chosen twice, and acts once; say {group}={written}"
        )


# --- what Hydra, OmegaConf and YAML complain of ----------------------------------------------------------------------


@contextlib.contextmanager
def explained(folders: list[Path], where: str = "") -> Iterator[None]:
    """Turn what composition complains of into a ConfigError with one message, which begins with `where`."""
    try:
        yield
    except ANYTHING as error:
        raise ConfigError(f"{where}{explain(error, folders)}") from error


def explain(error: Exception, folders: list[Path]) -> str:
    """One message for a mistake that composition saw."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException):
        group, _, name = (error.missing_cfg_file or _found(r"'([^']+/[^']+)'\.?\n", str(error)) or "").rpartition("/")
        return _plain(error) if group.startswith("hydra") or not group else _unknown_option(group, name, folders)
    if isinstance(error, OverrideParseException):
        quoted = "quote what the shell or Hydra takes for its own: 'key=\"…\"'"
        return f"{error.override}: cannot be read as key=value ({_plain(error)}); {quoted}"
    if isinstance(error, UnicodeDecodeError):
        every = [file for folder in folders for file in folder.rglob("*.yaml") if file.is_file()]
        files = [file for file in every if error.object in file.read_bytes()]
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"{files[0] if files else 'an option file'}: is not UTF-8: {error.reason} in line {line}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}; runs go where outputs=… says"
    if isinstance(error, RecursionError):
        frames = traceback.extract_tb(error.__traceback__)
        if sum("defaults_list.py" in frame.filename for frame in frames) > len(frames) // 2:
            return "an option file's defaults list includes itself"
        return "a value is nested too deeply, or is an interpolation that leads back to itself"
    if isinstance(error, AssertionError):
        return "an option file's defaults list needs `override` before a group: `- override /group: option`"
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    return _of_a_key(error, folders)


def _of_a_key(error: Exception, folders: list[Path]) -> str:
    """The message on a key that does not exist, or whose value does not fit."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = f"{error}\n{cause}"
    key = getattr(cause, "full_key", None) or _found(r"full_key: (\S+)", text) or ""
    file = _file(_found(r"In '([^']+)'", text), folders)
    subject = _found(r"(?:use \+|merging override )(.+)", text) or _written(key, file, cause)
    if given := _found(r"Ambiguous value for argument '([^\n]+)'", text):
        return f"{given}: several values are a search: put -m in front; a list is written {given.partition('=')[0]}=[…]"
    if twice := re.search(r"Multiple values for \S+ To override a value use 'override (\S+): (\S+)'", text):
        group, name = twice.groups()
        return f"{group}={name}: {group} is chosen already; say {group}={name} without a +, in a file `override /{group}: {name}`"
    if group := _found(r"Could not override '([^']+)'\. No match in the defaults list", text):
        known = groups(folders)
        return f"{file}: override /{group}: there is no such group{nearest(group, known)}; groups: {', '.join(known)}"
    if re.search(r"not in '|is not in struct", text):
        return _no_key(subject, key, cause, file)
    annotation = value_types().get(key) or typing.get_type_hints(Config).get(key)
    if annotation is not None and "Interpolation" not in type(cause).__name__:
        return f"{subject}: must be {describe(annotation)}"
    return f"{subject}: {_plain(cause)}" if subject else _plain(cause)


def _no_key(subject: str, key: str, cause: Exception, file: Path | None) -> str:
    above, _, last = key.rpartition(".")
    if file is not None and key == file.parent.name:
        return f"{file}: must open with `# @package _global_`, so that its keys are the run's own"
    if above in COMBINED:
        return f"{subject}: {last} is not chosen, so it has no options; say {above}=[{last}] too"
    parent = getattr(cause, "parent_node", None)
    known = [str(name) for name in parent] if OmegaConf.is_dict(parent) else list(Config.__annotations__)
    known = [name for name in known if name not in ("hydra", "_target_")]
    if above.startswith("hydra") and not OmegaConf.is_dict(parent):
        return f"{subject}: Hydra has no such key; --cfg hydra shows those it has"
    others = nearest(last, known) or f"; {above or 'a run'} has: {', '.join(known)}"
    return f"{subject}: there is no such key{others}"


def _unknown_option(group: str, name: str, folders: list[Path]) -> str:
    known = list(options(group, folders))
    if not any((folder / group).is_dir() for folder in folders):
        return f"{group}={name}: there is no group {group}{nearest(group, groups(folders))}; groups: {', '.join(groups(folders))}"
    written = f"[{name}]" if group in COMBINED else name
    return f"{group}={written}: there is no such option{nearest(name, known)}; {group} has: {', '.join(known) or 'none yet'}"


def _written(key: str, file: Path | None, cause: Exception) -> str:
    """A key with its value and its file, as far as they can be told."""
    if file is None:
        parent = getattr(cause, "parent_node", None)
        raw = OmegaConf.to_container(parent, resolve=False) if OmegaConf.is_dict(parent) else {}
        return f"{key}={shown(raw[cause.key])}" if raw and cause.key in raw else key
    value = parse_yaml(file.read_text(encoding="utf-8"))
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return f"{key}={shown(value)} (in {file})" if key else str(file)


def _file(option: str | None, folders: list[Path]) -> Path | None:
    """The file of an option such as model/mlp; a later folder's stands before an earlier one's."""
    files = [folder / f"{option}.yaml" for folder in reversed(folders)]
    return next((file for file in files if file.exists()), None)


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _plain(error: object) -> str:
    """A complaint on one line, without the name of the file it opens with and what it ends with for programmers."""
    lines = re.sub(r"^In '.*: \w+ raised while composing config:\n", "", str(error)).strip().splitlines()
    kept = [
        line.strip()
        for line in lines
        if not re.match(r"\s*(full_key|object_type|reference_type|See https|\^|Config search path|provider)", line)
    ]
    return " ".join(kept) or type(error).__name__
