"""A check looks at one thing and says one `Finding`; `Checks` asks those that are configured, and ranks what they say."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from omegaconf import DictConfig

from plumbline.config import FAMILIES, build

if TYPE_CHECKING:
    from plumbline.record import Record

Severity = Literal["ok", "info", "warn", "fail"]
ALARMS = ("fail", "warn")  # gravest first


@dataclass(frozen=True)
class Finding:
    """What one check has to say. Its id is its place in the configuration: `data.overlap` is checks.data.overlap."""

    severity: Severity
    message: str  # one sentence with the numbers in it
    evidence: dict[str, Any] = field(default_factory=dict)
    cause: str = ""  # the likely one
    advice: tuple[str, ...] = ()  # what to try, in order
    source: str = ""  # of the rule
    symptom: bool = False  # says that something is wrong, not what: never the headline where a cause is known


class CheckFailed(Exception):
    """A check found what the run was asked to stop for."""

    status = "failed"


class Checks:
    """The checks of a run. A finding never changes its numbers: random states are restored, subjects are copies."""

    def __init__(self, cfg: DictConfig, record: Record):
        self.cfg, self.record = cfg, record
        self.built: dict[str, Any] = {}  # by id: the curve's checks are asked after each epoch

    def ask(self, phase: str, subject: Any) -> None:
        """Ask each check of a phase about its subject, and note what they say in place of what they said before."""
        found = []
        for name, node in configured(self.cfg, phase):
            began = time.perf_counter()
            finding = self._answer(name, node, subject)
            if finding is not None:
                seconds = time.perf_counter() - began
                found.append({"id": name, "phase": phase, **asdict(finding), "seconds": seconds})
        before = [(it["id"], it["message"]) for it in self.record.run["findings"] if it["phase"] == phase]
        if before != [(it["id"], it["message"]) for it in found]:  # to note is to write two files
            self.record.found(phase, found)

    def _answer(self, name: str, node: DictConfig, subject: Any) -> Finding | None:
        if muted(name, self.cfg.mute):
            return None
        try:
            with untouched():
                if name not in self.built:
                    self.built[name] = build(node)
                finding = self.built[name](subject)
        except Exception as error:  # a check that cannot cope shall not cost the run
            return Finding("info", f"this check could not be made: {type(error).__name__}: {error}")
        if finding is not None and finding.severity != "ok" and muted(name, self.cfg.fatal):
            return Finding(**{**vars(finding), "severity": "fail"})
        return finding

    def stop(self) -> None:
        """Raise CheckFailed if something was found that the run is to stop for."""
        if self.cfg.stop_on == "never":
            return
        grave = ALARMS[: ALARMS.index(self.cfg.stop_on) + 1]
        stopping = [finding for finding in ranked(self.record.run["findings"]) if finding["severity"] in grave]
        if stopping:
            raise CheckFailed(f"{stopping[0]['id']}: {stopping[0]['message']}")


def configured(cfg: DictConfig, phase: str) -> Iterator[tuple[str, DictConfig]]:
    """(id, node) of each check of a phase, in the order in which one would be believed: causes before consequences."""
    for family in FAMILIES[phase]:
        for name, node in cfg[family].items():
            if node is not None:
                yield f"{family}.{name}", node


def muted(name: str, names: Iterable[str]) -> bool:
    """Whether a check is listed, by its id or by its family."""
    return name in names or name.partition(".")[0] in names


def ranked(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings with the headline first: alarms before the rest, causes before symptoms, the grave before the less grave."""
    order = {"fail": 0, "warn": 1, "info": 2, "ok": 3}
    return sorted(
        findings, key=lambda it: (it["severity"] not in ALARMS, it["symptom"], order[it["severity"]])
    )  # stable: within these, as the checks are configured


def summary(findings: list[dict[str, Any]]) -> dict[str, Any]:
    """The headline in a line (empty: there is no alarm) and how many findings each severity has."""
    first = next((finding for finding in ranked(findings) if finding["severity"] in ALARMS), None)
    counts = {severity: sum(finding["severity"] == severity for finding in findings) for severity in get_args(Severity)}
    return {"headline": f"{first['id']}: {first['message']}" if first else "", **counts}


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever is drawn inside, every random state is afterwards what it was."""
    import numpy as np
    import torch  # not above: the record of a run can be read without it

    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
