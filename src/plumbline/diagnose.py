"""`python -m plumbline.diagnose <log>`: reads a training log, ours or another's, and says what its curves tell. No torch."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from plumbline.checks.core import ALARMS, configured, ranked
from plumbline.checks.curve import Curve
from plumbline.config import MAXIMISE, MINIMISE, STOP_ON, ConfigError, build, nearest
from plumbline.exits import CHECK_FAILED, DONE, MISTAKE, outlast_the_reader
from plumbline.logs import ROLES, Log, read_log
from plumbline.output import make_console, print_error, print_safe

HELP = """\
python -m plumbline.diagnose <log> [train=… val=… metric=… lr=… direction=…] [stop_on=fail|warn|never] [--json]

Reads the curves of a training run and says what they tell: the headline first, with its numbers, the likely cause
and what to try, in order. The same checks, with the same thresholds (conf/checks/_curve.yaml), end every run of ours.

<log> is one of
  a CSV file          any column names; Keras' CSVLogger, Lightning's metrics.csv, an export from W&B, your own
  metrics.jsonl       one JSON object a line; also a JSON file of lists, or a list of objects
  TensorBoard events  an event file, or the folder that holds it
  the folder of a run ours, or any folder with one of the above in it

Columns are found by their names, and it is said which was taken for what. Where that is wrong, say it:
  train=<column>      the training loss            metric=<column>   what counts on validation
  val=<column>        the validation loss          lr=<column>       the learning rate
  direction=maximise  whether more of the metric is better, where its name does not tell (or minimise)

Leaves with 0, with 4 if something failed (stop_on=warn: already at a warning; never: not at all), with 2 if the log
cannot be read.

  python -m plumbline.diagnose lightning_logs/version_0/metrics.csv
  python -m plumbline.diagnose log.csv val=dev_nll metric=bleu direction=maximise
  python -m plumbline.diagnose runs/Nov25_12-00-00 --json | jq .findings[0]"""
WORDS = (*ROLES, "direction", "stop_on")


def main() -> int:
    """Diagnose the log that the command line names; return the exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(HELP)
        return DONE if words else MISTAKE
    try:
        path, given = read_words([word for word in words if word != "--json"])
        log = read_log(path, {role: given[role] for role in ROLES if role in given})
        curve = as_curve(log, given)
    except ConfigError as error:
        print_error(error)
        return MISTAKE
    except OSError as error:  # a path that cannot be
        print_error(f"{str(error.filename)[:200]}: {error.strerror}; name another")
        return MISTAKE
    found = diagnose(curve)
    if "--json" in words:
        from plumbline.files import as_json

        print_safe(as_json({"log": str(path), "columns": log.columns, "records": len(log.records), "findings": found}))
    else:
        show(path, log, curve, found)
    stop_on = given.get("stop_on", "fail")
    grave = () if stop_on == "never" else ALARMS[: ALARMS.index(stop_on) + 1]
    return CHECK_FAILED if any(finding["severity"] in grave for finding in found) else DONE


def read_words(words: list[str]) -> tuple[Path, dict[str, str]]:
    """(the log, what was said of it); raises ConfigError on a word that is neither."""
    given: dict[str, str] = {}
    paths = []
    for word in words:
        key, equals, value = word.partition("=")
        if Path(word).exists() or not equals:
            paths.append(word)
        elif key not in WORDS:
            raise ConfigError(f"{word}: is not one of {', '.join(f'{name}=…' for name in WORDS)}{nearest(key, WORDS)}")
        else:
            given[key] = value
    if len(paths) != 1:
        raise ConfigError(f"which log? Give one file or folder{': there are ' + ', '.join(paths) if paths else ''}")
    for key, accepted in (("direction", (MINIMISE, MAXIMISE)), ("stop_on", STOP_ON)):
        if key in given and given[key] not in accepted:
            raise ConfigError(
                f"{key}={given[key]}: no such choice{nearest(given[key], accepted)}; accepted: {', '.join(accepted)}"
            )
    return Path(paths[0]), given


def as_curve(log: Log, given: dict[str, str]) -> Curve:
    """What the checks of a curve look at; raises ConfigError where the better direction of the metric is not known."""
    if log.run is not None and not given:
        return Curve.of(log.run, log.records, ended=True, broken=log.broken)
    direction = given.get("direction", log.direction)
    if direction is None:
        raise ConfigError(
            f"metric={log.columns['metric']}: is more of it better? Say direction=maximise or direction=minimise"
        )
    return Curve(log.records, log.objective, direction, ended=True, unit=log.unit)


def diagnose(curve: Curve) -> list[dict[str, Any]]:
    """What the checks of a curve say, the headline first."""
    from plumbline.train import CONF

    cfg = OmegaConf.create({"checks": OmegaConf.load(CONF / "checks" / "_curve.yaml")}).checks
    said = [(name, build(node)(curve)) for name, node in configured(cfg, "curve")]
    return ranked([{"id": name, **asdict(finding)} for name, finding in said if finding is not None])


def show(path: Path, log: Log, curve: Curve, found: list[dict[str, Any]]) -> None:
    """What was read, then what it tells."""

    from plumbline.console import told

    console = make_console(soft_wrap=True)
    console.print(f"{path}: {len(log.records)} {curve.unit}s{log.note}", markup=False)
    for role, column in log.columns.items():
        console.print(f"  {role:<7} {column}", markup=False)
    console.print()
    for line, style in told(found, console.width):
        console.print(line, style=style, markup=False)


if __name__ == "__main__":
    outlast_the_reader()
    sys.exit(main())
