"""Weights & Biases: online when logged in, offline otherwise, never a prompt."""

from __future__ import annotations

import io
import netrc
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from plumbline.checks.core import summary
from plumbline.files import make_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


class Wandb:
    """One W&B run for one folder, however often it is stopped and goes on (docs.wandb.ai, guides/runs/resuming)."""

    def __init__(
        self, directory: Path, configuration: dict[str, Any], run: dict[str, Any], /, *,
        project: str, entity: str | None, group: str | None, tags: list[str], mode: Literal["auto", "online", "offline"],
    ):  # fmt: skip
        import wandb

        noted = str(run["trackers"].get("wandb", ""))  # by an earlier start of this run
        self.identity = noted if re.fullmatch(r"[0-9a-f]{16}", noted) else secrets.token_hex(8)
        mode = mode if mode != "auto" else "online" if logged_in() else "offline"
        make_folder(directory, "wandb")
        settings = wandb.Settings(silent=True, console="off", init_timeout=60, disable_git=True)
        self.run = wandb.init(
            id=self.identity, resume="allow", mode=mode, name=label(directory.resolve()), dir=directory, config=configuration,
            project=project, entity=entity, group=group, tags=tags, notes=run["question"], settings=settings,
        )  # fmt: skip

    def log(self, record: dict[str, float]) -> None:
        self.run.log(record, step=int(record["epoch"]))

    def finish(self, run: dict[str, Any], figures: dict[str, Any]) -> None:
        import wandb

        self.run.log({f"figures/{name}": wandb.Image(picture(figure)) for name, figure in figures.items()})
        self.run.summary.update(
            {
                "status": run["status"],
                "best": run["best"],
                "baseline": run["baseline"],
                "findings": {f["id"]: f["severity"] for f in run["findings"]},
                "checks": summary(run["findings"]),
            }
        )

    def close(self) -> None:
        self.run.finish()


def label(directory: Path) -> str:
    """A run's name: its folder's. With the trial's before, where a trial has several runs, which are alike in all trials."""
    trial = directory.parent
    return f"{trial.name}-{directory.name}" if (trial.parent / "study.yaml").is_file() else directory.name


def picture(figure: Figure) -> Image:
    """A figure as pixels: W&B's own way would need pyplot and its global state."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return Image.open(buffer)


def logged_in() -> bool:
    """Whether W&B has a key to use without asking: in WANDB_API_KEY or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
