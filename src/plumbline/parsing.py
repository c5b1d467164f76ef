"""JSON and YAML of unknown origin: bounded in depth, in expanded size and in numbers. No torch.

A YAML file of a kilobyte can stand for gigabytes (aliases of aliases), and a deep one can exhaust the stack of the
process. The readers of this module refuse such files with an error that the callers of `json` and `yaml` expect.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import yaml

MAX_DEPTH = 60  # levels of nesting; our own files have at most 8
MAX_VALUES = 50_000  # of a YAML file with its aliases written out; a run's configuration has about 300
MAX_COMPOSED = 10_000  # of an option file, which is read by a loader in Python: about 1 s
MAX_CHARACTERS = 500_000  # of a YAML file
SAFE_FOR_C = 1000  # levels that libyaml's recursive composer is known to survive


class TooLarge(yaml.YAMLError):
    """A document beyond the bounds."""


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """The value of a JSON text; NaN and infinities are null. Raises ValueError on what is no JSON or out of bounds."""
    try:
        value = json.loads(text, parse_int=_whole_number, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_depth(value)
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half a character, which no file and no terminal takes
        whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
        return json.loads(whole, parse_constant=lambda _: None)
    return value


def _whole_number(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"a whole number of {len(text)} digits is out of range")
    return int(text)


def check_depth(value: Any) -> None:
    """Raise ValueError where lists and mappings are nested too deeply."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [each for each in item.values() if isinstance(each, dict | list)]
            elif isinstance(item, list):
                inner += [each for each in item if isinstance(each, dict | list)]
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested too deeply: more than {MAX_DEPTH} levels")


# --- YAML ------------------------------------------------------------------------------------------------------------


def parse_yaml(text: str, as_options: bool = False) -> Any:
    """The value of a YAML text, by libyaml where it is there. Raises yaml.YAMLError on what is no YAML or out of bounds.

    as_options: read numbers as OmegaConf does, to which 1e-5 is one.
    """
    try:
        return yaml.load(text, Loader=_fast_loader(as_options))
    except RecursionError:
        raise TooLarge("it is nested too deeply") from None
    except (ValueError, TypeError, OverflowError) as error:  # such as a date of the 99th of May, or a list as a key
        raise yaml.YAMLError(str(error)) from error


@cache
def _fast_loader(as_options: bool) -> type:
    if not hasattr(yaml, "CSafeLoader"):
        return _bounded(_omegaconf_loader() if as_options else yaml.SafeLoader)

    class Fast(yaml.CSafeLoader):
        def __init__(self, stream: Any):
            text = _limited(stream)
            if text.count(",") + text.count("\n") > MAX_VALUES:  # to count the values themselves takes seconds
                raise TooLarge(f"it holds more than {MAX_VALUES:,} values")
            if _depth_at_most(text) > SAFE_FOR_C:
                _check_events(text)
            super().__init__(text)

        def get_single_node(self) -> yaml.Node | None:
            node = super().get_single_node()
            check_size(node)
            return node

    if as_options:
        Fast.yaml_implicit_resolvers = _omegaconf_loader().yaml_implicit_resolvers
    return Fast


def _omegaconf_loader() -> type:
    import omegaconf._utils

    return omegaconf._utils.get_yaml_loader()


def _bounded(loader: type) -> type:
    """A loader in Python with the bounds."""

    class Bounded(loader):
        def __init__(self, stream: Any):
            self.depth = self.count = 0
            super().__init__(_limited(stream))
            self.name = getattr(stream, "name", self.name)

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            self.depth, self.count = self.depth + 1, self.count + 1
            if self.depth > MAX_DEPTH:
                raise TooLarge(f"{self.name}: it is nested too deeply: more than {MAX_DEPTH} levels")
            if self.count > MAX_COMPOSED:
                raise TooLarge(f"{self.name}: it holds more than {MAX_COMPOSED:,} values")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def get_single_node(self) -> yaml.Node | None:
            node = super().get_single_node()
            check_size(node, f"{self.name}: ", MAX_COMPOSED)
            return node

        def get_single_data(self) -> Any:
            try:
                return super().get_single_data()
            except (ValueError, TypeError, OverflowError) as error:  # such as a whole number of 5,000 digits
                raise yaml.YAMLError(f"{self.name}: {error}") from error

    return Bounded


def install() -> None:
    """Give OmegaConf, and with it Hydra, the loader with the bounds in place of its own."""
    import omegaconf._utils
    import omegaconf.basecontainer

    if omegaconf._utils.get_yaml_loader.__module__ != __name__:
        loader = _bounded(omegaconf._utils.get_yaml_loader())

        def bounded_loader() -> type:
            return loader

        for module in (omegaconf._utils, omegaconf.basecontainer):
            module.get_yaml_loader = bounded_loader


def check_size(node: yaml.Node | None, where: str = "", most: int = MAX_VALUES) -> None:
    """Raise TooLarge where the nodes of a document, with aliases written out, are too many, too deep or endless."""
    sizes: dict[int, tuple[int, int]] = {}  # (values, levels) of the nodes that are done
    opened: set[int] = set()
    waiting = [] if node is None else [node]
    while waiting:
        current = waiting[-1]
        if id(current) in sizes:
            waiting.pop()
            continue
        inner = _inner(current)
        if id(current) not in opened:
            opened.add(id(current))
            for each in inner:
                if id(each) in opened and id(each) not in sizes:
                    raise TooLarge(f"{where}an alias in it leads back to what holds it")
                if id(each) not in sizes:
                    waiting.append(each)
            continue
        if any(id(each) not in sizes for each in inner):
            raise TooLarge(f"{where}an alias in it leads back to what holds it")
        values = 1 + sum(sizes[id(each)][0] for each in inner)
        levels = 1 + max((sizes[id(each)][1] for each in inner), default=0)
        if values > most:
            raise TooLarge(f"{where}it stands for more than {most:,} values; write fewer aliases")
        if levels > MAX_DEPTH:
            raise TooLarge(f"{where}it is nested too deeply: more than {MAX_DEPTH} levels")
        sizes[id(current)] = values, levels
        waiting.pop()


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _limited(stream: Any) -> str | bytes:
    text = stream.read(MAX_CHARACTERS + 1) if hasattr(stream, "read") else stream
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(f"{getattr(stream, 'name', 'it')} has more than {MAX_CHARACTERS:,} characters")
    return text


def _depth_at_most(text: str | bytes) -> int:
    """An upper bound of the levels, found without parsing: each needs a bracket or a column of its own."""
    text = text if isinstance(text, str) else text.decode("utf-8", "replace")
    columns = max(map(len, re.findall(r"^[ \t\-?:]+", text, re.MULTILINE)), default=0)
    return 2 * columns + text.count("[") + text.count("{") + 2


def _check_events(text: str | bytes) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise TooLarge(f"it is nested too deeply: more than {MAX_DEPTH} levels")
