"""What a run's numbers may depend on beside its configuration: the machine, the versions, the code."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import re
import shlex
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

JOB = (  # of SLURM's variables, those that find a job again and say on what it ran: no user, account or comment
    "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION",
    "SLURM_RESTART_COUNT",
)  # fmt: skip
SNAPSHOT = "snapshot.json"  # stands at the head of a copied tree, and says what it is a copy of

GIT = ("commit", "dirty", "changed", "diff")  # what is known of the code
SECRET_NAMES = (  # of files that a snapshot and a diff leave out, tracked or not; letters of any case
    ".env*", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd", ".boto", ".s3cfg",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore",
    "*.kdbx", "*.gpg", "*.age", "credentials", "credentials.json", "credentials.y*ml", "credentials.toml", "credentials.ini",
    "credentials.csv", "client_secret*.json", "service[-_]account*.json", "kaggle.json", "secrets.json", "secrets.y*ml",
    "secrets.toml", "secrets.ini",
)  # fmt: skip
SECRET_FOLDERS = (".aws", ".ssh", ".gnupg", ".azure", ".gcloud", ".kube", ".docker")
PRIVATE_KEY = re.compile(rb"^[ +-]?-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----\s*$", re.MULTILINE)


def is_secret_name(name: str) -> bool:
    """Whether a file is taken to hold a secret, by its name or that of a folder it is in."""
    *folders, last = name.lower().split("/")
    return not set(SECRET_FOLDERS).isdisjoint(folders) or any(fnmatch.fnmatchcase(last, p) for p in SECRET_NAMES)


def has_private_key(content: bytes) -> bool:
    """Whether a file, or a diff of it, has a private key in PEM's or PGP's armour."""
    return PRIVATE_KEY.search(content) is not None


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def command(overrides: list[str]) -> str:
    """The command line that makes this run again."""
    return shlex.join(["scripts/train", *overrides])


def environment() -> dict[str, Any]:
    """What the numbers may depend on beside the configuration."""
    import torch

    packages = ("numpy", "scikit-learn", "torchvision", "hydra-core", "omegaconf", "optuna", "wandb")
    facts: dict[str, Any] = {
        "python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages},
    }  # fmt: skip
    if torch.cuda.is_available():
        facts["gpu"], facts["cuda"] = torch.cuda.get_device_name(), torch.version.cuda
    facts |= {key: os.environ[key] for key in JOB if key in os.environ}
    return facts


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit, branch and, of a dirty tree, the diff of the code this run is made of; None outside a repository."""
    noted = Path(__file__).resolve().parents[2] / SNAPSHOT
    if noted.is_file():  # the repository around a copy is not what the copy was made from
        return {key: value for key, value in json.loads(noted.read_text()).items() if key in GIT}

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10, errors="replace"
        ).stdout

    try:
        top = git("rev-parse", "--show-toplevel").strip()
        changed = git("-C", top, "status", "--porcelain").strip()
        diff = _without_secrets(git("-C", top, "diff", "--no-color", "--no-ext-diff", "HEAD")) if changed else ""
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "dirty": bool(changed),
            "changed": changed.splitlines(),
            "diff": diff[:1_000_000],
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _without_secrets(diff: str) -> str:
    """A diff without those of files that a snapshot leaves out."""
    parts = re.split(r"^(?=diff --git )", diff, flags=re.MULTILINE)
    return "".join(part for part in parts if not (_of_secret(part) or has_private_key(part.encode(errors="replace"))))


def _of_secret(part: str) -> bool:
    above = part.partition("\n@@")[0]
    heads = re.findall(r"^(?:diff --git|---|\+\+\+|rename from|rename to|copy from|copy to) (.+)$", above, re.MULTILINE)
    names = [name.strip('"') for head in heads for name in re.split(r'\s"?[abciwo]/', f" {head}") if name.strip()]
    return any(is_secret_name(name) for name in names)
