"""Environment variables in a configuration: a run uses their values, its record keeps `${oc.env:NAME}` as written."""

from __future__ import annotations

import os
import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from plumbline.contract import ConfigError
from plumbline.output import hide

HARMLESS = frozenset({  # names and places, whose values a record may hold; all others stay as written
    "HOME", "USER", "LOGNAME", "HOST", "HOSTNAME", "PWD", "TMPDIR", "SCRATCH", "WORK", "PROJECT", "DATA", "DATA_DIR",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PLUMBLINE_DATA", "PLUMBLINE_PYTHON", "SLURM_HERE", "SLURM_CONF",
    "SLURM_TMPDIR", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SBATCH_ACCOUNT",
})  # fmt: skip
SECRET_KEY = re.compile(r"(?i)(.*_)?(api_?key|access_?key|secret(_?key)?|password|passwd|(access|auth|api)_?token)")
SECRET_URL = re.compile(r"[a-z][\w+.-]*://[^/\s:@]+:[^/\s@*]+@")
_touched: set[str] = set()  # names of variables that are not harmless, as they are looked up


def register() -> None:
    """Take the place of OmegaConf's `oc.env`: the same values, and those that are not harmless are noted."""
    OmegaConf.register_new_resolver("oc.env", _resolve, replace=True)


def _resolve(name: str, *default: str | None) -> str | None:
    if name not in HARMLESS:
        _touched.add(name)
        if name in os.environ:
            hide(os.environ[name], f"${{oc.env:{name}}}")
    return oc.env(name, *default)


def recorded(node: Any) -> Any:
    """A configuration as plain values for a record: resolved, but as written where a value is not to be recorded."""
    register()
    keys = node.keys() if isinstance(node, DictConfig) else range(len(node))
    found = {key: recorded_value(node, key) for key in keys}
    return list(found.values()) if isinstance(node, ListConfig) else found


def recorded_value(node: Any, key: Any) -> Any:
    """One value of a configuration, for a record."""
    if OmegaConf.is_missing(node, key):
        return "???"
    if is_private(node, key):
        return node._get_node(key)._value()
    value = node[key]
    if isinstance(value, str) and OmegaConf.is_interpolation(node, key):
        return value.replace("${", "\\${")  # text by now, and not to be resolved when it is read back
    return recorded(value) if OmegaConf.is_config(value) else value


def is_private(node: Any, key: Any) -> bool:
    """Whether the value of a key is computed from an environment variable that is not harmless."""
    if not OmegaConf.is_interpolation(node, key):
        return False
    _touched.clear()
    node[key]
    return bool(_touched)


def is_private_at(cfg: DictConfig, path: str) -> bool:
    """`is_private` of a dotted path; one that is not there is not."""
    above, _, key = path.rpartition(".")
    node = OmegaConf.select(cfg, above) if above else cfg
    return isinstance(node, DictConfig) and key in node and is_private(node, key)


def check_secrets(cfg: DictConfig) -> None:
    """Raise ConfigError where a secret stands in a configuration, which is recorded, and not in a variable."""
    _check(OmegaConf.to_container(cfg, resolve=False), "")


def _check(node: Any, path: str) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check(item, f"{path}[{index}]")
    elif isinstance(node, dict):
        for key, item in node.items():
            _check(item, f"{path}.{key}" if path else str(key))
    elif isinstance(node, str) and "${" not in node and node not in ("", "???"):
        last = path.rpartition(".")[2]
        if SECRET_KEY.fullmatch(last) or SECRET_URL.match(node):
            raise ConfigError(
                f"{path}=…: a secret is not written into a configuration, which is recorded; export it under a name "
                f"of your own, and give '{path}=${{oc.env:MY_{re.sub(r'[^A-Z0-9]', '_', last.upper())}}}'"
            )


def written_words(words: Any) -> list[str]:
    """The overrides of a list of OmegaConf's as they were written: iterating over one would resolve what is in them."""
    return [str(word) for word in OmegaConf.to_container(words, resolve=False)]
