"""Mistakes of the user, and the words for them: a value as it is written, the nearest name, the line that raised."""

from __future__ import annotations

import difflib
import traceback
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


class ConfigError(ValueError):
    """A mistake in the command or the configuration: one message with path, value and what would be right."""


def require(path: str, value: Any, right: bool, accepted: str) -> None:
    """Raise ConfigError unless the value is right, saying what would be: `schedule.floor=2: must be in [0, 1]`."""
    if not right:
        raise ConfigError(f"{path}={value}: must be {accepted}")


def nearest(name: str, known: Any) -> str:
    """` (did you mean 'x'?)` for the closest known name, or nothing."""
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(item)}" for key, item in value.items()) + "}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def place(error: BaseException) -> str:
    """` (file, line n)`, the innermost that is not Python's own or an installed package's; or nothing."""
    others = ("/site-packages/", "/importlib/", "<frozen")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in others)]
    frames = [f for f in frames if f.name != "__torch_function__"]  # it stands between a line and torch, and passes on
    ours = str(Path(__file__).with_name("targets.py"))  # which imports what raised
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames and frames[-1].filename != ours else ""
