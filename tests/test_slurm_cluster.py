"""On a real SLURM: every cluster file is accepted once its names exist, the doctor, and processes of several nodes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, noted, records
from slurm_here import Here, running, until
from test_slurm_submit import CLUSTERS, rendered

from plumbline.slurm.doctor import LEAST_GB

NODES = """
NodeName=x[1-2] NodeHostname=nowhere Port=17999 CPUs=288 RealMemory=2000000 State=CLOUD \
Gres=gpu:T4:8,gpu:l40s:10 Features=l40s,NOGPU,T4
PartitionName=gpu Nodes=x[1-2] MaxTime=10-00:00:00
PartitionName=cpu Nodes=x[1-2] MaxTime=10-00:00:00
PartitionName=alvis Nodes=x[1-2] MaxTime=10-00:00:00
PartitionName=open Nodes=x[1-2],n[1-2] MaxTime=10-00:00:00
"""


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    yield from running(NODES)


@pytest.mark.parametrize("resources", ["cpu", "one_gpu"])
@pytest.mark.parametrize("cluster", [name for name in CLUSTERS if name != "snowy"])
def test_a_real_sbatch_accepts_what_every_cluster_file_renders(
    cluster: str, resources: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_HERE", str(here.folder))
    monkeypatch.setenv("PLUMBLINE_PYTHON", "/arm/python")
    file = tmp_path / "job.sh"
    file.write_text(rendered(cluster, f"resources={resources}", "cluster.account=project"))
    named = any("--partition" in line for line in file.read_text().splitlines())
    words = ["sbatch", "--test-only", *([] if named else ["--partition=open"]), str(file)]
    done = subprocess.run(words, env=here.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


def doctor(here: Here, cwd: Path, *words: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "plumbline.slurm.doctor", *words]
    done = subprocess.run(command, env=here.environment, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_doctor_finds_nothing_where_all_is_well(here: Here, tmp_path: Path) -> None:
    status, lines = doctor(here, tmp_path, "cluster=here")
    assert (status, lines[-1]) == (0, "all is well"), lines
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert LEAST_GB > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["cluster.sbatch.partition=nope"], "invalid partition specified: nope"),
        (["cluster.gpu_types.T4=9", "resources.gpus=9"], "Requested node configuration is not available"),
        (["cluster.python=/nowhere/python"], "scripts/setup"),
        (["cluster.environment.SLURM_CONF=/nowhere/slurm.conf"], "launcher=slurm: sinfo refused"),
        (["cluster.account_like=projYYYY-N"], "export SBATCH_ACCOUNT="),
    ],
)
def test_the_doctor_says_how_to_mend_what_is_wrong(words: list[str], cure: str, here: Here, tmp_path: Path) -> None:
    status, lines = doctor(here, tmp_path, "cluster=here", *words)
    missed = [line for line in lines if line.startswith("MISS")]
    assert (status, len(missed)) == (2, 1), lines
    assert cure in missed[0]


@pytest.mark.slow
def test_two_nodes_of_two_processes_have_the_curve_of_one_process_and_survive_a_requeue(
    here: Here, tmp_path: Path
) -> None:
    words = ("epochs=200", "checks=off", "data.subset=1000")
    job = here.train(tmp_path, *words, "batch_size=16", "resources.nodes=2", "resources.processes=2")
    path = tmp_path / "run" / "metrics.jsonl"
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= 20, "epoch 20", 120)
    here("scontrol", "requeue", job)
    here.gone(job, 400)
    run = noted(tmp_path / "run")
    log = "\n".join(file.read_text() for file in (tmp_path / "run").glob("slurm-*.out"))
    assert (run["status"], run["restarts"], run["processes"]) == ("finished", 1, 4), log
    (tmp_path / "one").mkdir()
    here.gone(here.train(tmp_path / "one", *words, "batch_size=64"), 400)
    ours, theirs = records(tmp_path / "run"), records(tmp_path / "one" / "run")
    assert [record["epoch"] for record in ours] == [record["epoch"] for record in theirs] == list(range(1, 201))
    for mine, its in list(zip(ours, theirs, strict=True))[:50]:  # rounding grows with the steps
        assert mine["fit/loss"] == pytest.approx(its["fit/loss"], rel=1e-2, abs=1e-4)
        assert mine["val/loss"] == pytest.approx(its["val/loss"], rel=1e-2, abs=1e-4)


def test_up_is_at_once_where_it_is_up_and_status_says_so(here: Here) -> None:
    assert here(ROOT / "slurm/here/up").startswith("export SLURM_CONF=")
    shown = here(ROOT / "slurm/here/status")
    assert "normal*" in shown
    assert "urgent" in shown
