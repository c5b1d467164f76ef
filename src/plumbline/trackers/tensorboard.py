"""TensorBoard: scalars, figures and hyper-parameters, beside the run's record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from plumbline.checks.core import summary
from plumbline.files import make_folder, read_text
from plumbline.ranges import Range


class TensorBoard:
    """Event files in `<run>/tensorboard`; look at them with `tensorboard --logdir outputs`."""

    identity = "tensorboard"

    def __init__(
        self,
        directory: Path,
        configuration: dict[str, Any],
        run: dict[str, Any],
        /,
        *,
        flush_seconds: Annotated[int, Range("[1, 86400]")],
    ):
        from torch.utils.tensorboard import SummaryWriter

        self.configuration = flat(configuration)
        done = len(read_text(directory / "metrics.jsonl").splitlines())
        self.writer = SummaryWriter(
            str(make_folder(directory, "tensorboard")), purge_step=done + 1 if done else None, flush_secs=flush_seconds
        )

    def log(self, record: dict[str, float]) -> None:
        for name, value in record.items():
            self.writer.add_scalar(name, value, int(record["epoch"]))

    def finish(self, run: dict[str, Any], figures: dict[str, Any]) -> None:
        for name, figure in figures.items():
            self.writer.add_figure(name, figure, int(run["best"]["epoch"]), close=False)
        said = summary(run["findings"])
        self.writer.add_text(
            "checks", f"{said['headline']}\n\n{said['fail']} failed, {said['warn']} warn", int(run["best"]["epoch"])
        )
        best = {f"best/{name}": value for name, value in run["best"].items() if name.startswith("val/")}
        self.writer.add_hparams(self.configuration, best, run_name=".")

    def close(self) -> None:
        self.writer.close()


def flat(configuration: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; what is not a number, a truth value or text becomes text."""
    found: dict[str, Any] = {}
    for key, value in configuration.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            found |= flat(value, name + ".")
        else:
            found[name] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
