"""From a command line to an sbatch file: what is asked for on each cluster, and what is refused. No SLURM is needed."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, composed, one_in

from plumbline.config import ConfigError
from plumbline.slurm.options import duration, read, seconds
from plumbline.slurm.render import script

CLUSTERS = sorted(file.stem for file in (ROOT / "conf/cluster").glob("[!_]*.yaml"))
RESOURCES = sorted(file.stem for file in (ROOT / "conf/resources").glob("[!_]*.yaml"))
ALWAYS = ["--job-name=run", "--output=/runs/a/slurm-%j.out"]
OURS = ["--requeue", "--open-mode=append", "--signal=USR1@120"]


def options(cluster: str, *overrides: str):
    return read(composed("launcher=slurm", f"cluster={cluster}", "resources=one_gpu", *overrides))


def rendered(cluster: str, *overrides: str, folder: Path = Path("/runs/a")) -> str:
    given = options(cluster, *overrides)
    python, words = given.cluster.python or "/env/python", ["-m", "plumbline.train", f"resume={folder}"]
    return script(given, what="w", name="run", folder=folder, code=folder / "code", python=python, command=words)


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


EXPECTED = {  # what each cluster is asked for one GPU and eight processors for twelve hours, beside ALWAYS and OURS
    "alvis": ["--account=project", "--partition=alvis", "--gpus-per-node=T4:1"],
    "arrhenius": ["--account=project-gpu", "--partition=gpu", "--gpus-per-node=1"],
    "generic": ["--account=project", "--gpus-per-node=1"],
    "here": ["--account=project", "--partition=normal", "--gpus-per-node=T4:1"],
    "kebnekaise": ["--account=project", "--gpus-per-node=1", "--constraint=l40s"],
    "pelle": ["--account=project", "--partition=gpu", "--gpus-per-node=l40s:1"],
    "tetralith": ["--account=project", "--gpus-per-task=1"],
}


@pytest.mark.parametrize("cluster", [name for name in CLUSTERS if name != "snowy"])
def test_a_cluster_is_asked_for_exactly_this(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "project")
    monkeypatch.setenv("PLUMBLINE_PYTHON", "/arm/python")
    shape = ["--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=8", "--time=0-12:00:00"]
    assert sorted(directives(rendered(cluster))) == sorted(ALWAYS + OURS + shape + EXPECTED[cluster])


@pytest.mark.parametrize(
    ("cluster", "resources"), one_in(3, itertools.product([name for name in CLUSTERS if name != "snowy"], RESOURCES))
)
def test_a_rendered_job_is_a_shell_script_on_every_cluster(
    cluster: str, resources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "project")
    monkeypatch.setenv("PLUMBLINE_PYTHON", "/arm/python")
    if cluster in ("pelle", "tetralith", "here") and resources in ("four_gpus", "two_nodes"):
        extra = ["++cluster.gpu_types.T4=4"]
    else:
        extra = []
    text = rendered(cluster, f"resources={resources}", *extra)
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""
    assert text.count("srun ") == 2  # the command, and a comment
    gpus = {"cpu": 0, "one_gpu": 1, "four_gpus": 4, "two_nodes": 4}[resources]
    asked = [int(re.split("[:=]", line)[-1]) for line in directives(text) if line.startswith("--gpus-per-node")]
    assert asked == ([gpus] if gpus and cluster != "tetralith" else [])


def test_every_cluster_file_says_where_its_facts_are_from_and_when_they_were_read() -> None:
    for name in CLUSTERS:
        head = (ROOT / f"conf/cluster/{name}.yaml").read_text().split("defaults:")[0]
        assert "Source: " in head, name
        assert re.search(r"\(.*20\d\d-\d\d-\d\d\)", head), name
        assert f"`cluster={name}`" in (ROOT / "slurm/README.md").read_text(), name


def test_a_cluster_that_is_gone_is_an_error_that_names_its_successor() -> None:
    with pytest.raises(ConfigError, match=r"2026-01-30; say cluster=pelle"):
        options("snowy")


@pytest.mark.parametrize("cluster", ["alvis", "tetralith"])
def test_a_cluster_that_ends_still_renders_with_a_notice_that_names_its_successor(cluster: str) -> None:
    given = options(cluster, "cluster.account=a")
    assert "2026-09-30" in given.cluster.notice
    assert "cluster=arrhenius" in given.cluster.notice


@pytest.mark.parametrize("cluster", ["kebnekaise", "pelle", "arrhenius", "alvis", "tetralith"])
def test_a_missing_account_is_an_error_that_says_where_to_set_it(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    with pytest.raises(ConfigError, match=r"cluster\.account: .*export SBATCH_ACCOUNT=.*cluster\.account="):
        options(cluster)


MISTAKES = [
    (["resources.time=24:00"], "days-hours:minutes:seconds"),  # which SLURM takes for 24 minutes
    (["resources.time=90"], "days-hours:minutes:seconds"),
    (["resources.time=1:00:61"], "days-hours:minutes:seconds"),
    (["resources.time=0:03:00"], r"warned 120 s before its end.*0-00:04:00"),
    (["resources.time=366-00:00:00"], "has a limit of 365-00:00:00"),
    (["resources.memory=16GB"], "is written as 16G"),
    (["resources.memory='16G; rm -rf ~'"], "is written as 16G"),
    (["resources.gpus=-1"], r"resources\.gpus=-1: must be a whole number in \[0, 10000\]"),
    (["resources.nodes=0"], r"resources\.nodes=0: must be a whole number in \[1, 100000\]"),
    (["resources.nodes=two"], "resources.nodes"),
    (["resources.processes=2"], r"each process has a GPU of its own, and resources\.gpus=1"),
    (["launcher.save_seconds=0"], r"launcher\.save_seconds=0: must be a whole number in \[1, 86400\]"),
    (["cluster.sbatch.partition='a b'"], r"cluster\.sbatch\.partition='a b': has a character"),
    (["cluster.sbatch.partition='$(id)'"], "has a character"),
    (["cluster.sbatch.partition='a\\\nb'"], "has a character"),
    (["+cluster.sbatch.Q_OS=a"], r"cluster\.sbatch\.Q_OS: is no option of sbatch"),
    (["+cluster.environment.a-b=1"], r"cluster\.environment\.a-b: is no name of a variable"),
    (["+cluster.partition=a"], r"cluster\.partition: there is no such key .did you mean"),
]


@pytest.mark.parametrize(("overrides", "message"), one_in(3, MISTAKES))
def test_a_mistake_is_one_message_with_the_key_at_fault(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options("generic", *overrides)


def test_a_kind_of_gpu_that_a_cluster_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.gpu=a10.*did you mean .a100.*v100, a100, a6000"):
        options("kebnekaise", "cluster.account=a", "cluster.gpu=a10")
    with pytest.raises(ConfigError, match=r"resources\.gpus=4: a node of Kebnekaise \(HPC2N\) has at most 2 a100"):
        options("kebnekaise", "cluster.account=a", "cluster.gpu=a100", "resources=four_gpus")


def test_arm_nodes_want_a_python_that_was_built_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_PYTHON", raising=False)
    with pytest.raises(ConfigError, match=r"cluster\.python: the GPU nodes of Arrhenius \(NAISS\) are aarch64"):
        options("arrhenius", "cluster.account=a")
    text = rendered("arrhenius", "cluster.account=a", "cluster.python=/arm/python")
    assert "python=/arm/python\n" in text
    assert '[ "$(uname -m)" = aarch64 ]' in text
    assert "uname" not in rendered("arrhenius", "cluster.account=a", "resources=cpu").replace("for $(uname -m) at", "")


@pytest.mark.parametrize(
    "name", ["plain", "with space", "a'b", "$(touch owned)", "per%cent", "näme", "semi;colon & more"]
)
def test_no_character_of_a_path_reaches_a_shell(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    text = rendered("generic", "++cluster.environment.A='$(touch owned) \"q\"'", folder=folder)
    (log,) = (line for line in directives(text) if line.startswith("--output"))
    assert log.removeprefix("--output=").strip('"').replace("%%", "%") == f"{folder}/slurm-%j.out"
    begin = text[: text.index('"$python" -c')] + 'printf "%s\\n%s" "$folder" "$A"'
    shown = subprocess.run(
        ["bash", "-uc", begin], capture_output=True, text=True, cwd=tmp_path, env={"SLURM_JOB_ID": "1"}
    )
    assert shown.stdout.splitlines() == [str(folder), '$(touch owned) "q"'], shown.stderr
    assert not (tmp_path / "owned").exists()


def test_a_time_limit_is_rounded_up_to_the_minutes_that_slurm_counts() -> None:
    assert seconds("t", "1-02:03:04") == 93784
    assert duration(93784 // 60 + 1) == "1-02:04:00"
    assert options("generic", "resources.time=0:59:01").minutes == 60
    assert "--time=0-01:00:00" in directives(rendered("generic", "resources.time=0:59:01"))


def test_the_warning_comes_early_enough_to_save_though_slurm_is_a_minute_early() -> None:
    assert "--signal=USR1@360" in directives(rendered("generic", "launcher.save_seconds=300"))


def test_a_dry_run_prints_the_script_the_jobs_and_the_hours_and_leaves_nothing(train, tmp_path: Path) -> None:
    done = train(
        "launcher=slurm",
        "cluster=pelle",
        "resources=one_gpu",
        "cluster.account=uppmax2026-1-1",
        "launcher.dry_run=true",
        "epochs=3",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n# scripts/train epochs=3  # submitted 20".replace("  #", " #"))
    assert "#SBATCH --account=uppmax2026-1-1" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith(
        "Pelle (UPPMAX): 1 job, each 1 node × 1 process of 8 CPUs, 1 GPU (l40s); at most 12.0 GPU-hours"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_would_end_the_job_at_once_is_said_before_it_is_submitted(train, tmp_path: Path) -> None:
    for words, message in (
        (["model.activation=reluu"], "model.activation=reluu"),
        (["device=cpu", "resources=one_gpu"], "device=cpu: resources.gpus=1 would stand idle"),
        (["device=cuda"], "device=cuda: resources.gpus=0 gives it none"),
        (["batch_size=0"], "batch_size=0: must be a whole number of at least 1 or auto"),
    ):
        done = train("launcher=slurm", "cluster=generic", "resources=cpu", *words)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_launcher_a_word_about_the_cluster_is_a_mistake_and_not_a_run_on_the_login_node(
    train, tmp_path
) -> None:
    done = train("cluster=here", "epochs=1")
    assert done.returncode == 2
    assert "cluster=here: says where to run, which is here without launcher=slurm" in done.stderr
    done = train("launcher=slurm", "epochs=1")
    assert done.returncode == 2
    assert "cluster: is not chosen" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_slurm_it_says_so_and_leaves_nothing(train, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = train("launcher=slurm", "cluster=generic", "resources=cpu", "epochs=1", PATH=str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "there is no sbatch here" in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["empty"]


STUDY = ["-m", "launcher=slurm", "cluster=generic", "cluster.account=a", "study=s", "data=iris"]


@pytest.mark.parametrize(
    ("words", "jobs", "workers"),
    [
        (["resources=cpu", "seed=range(12)"], 4, 1),
        (["resources=cpu", "seed=range(12)", "launcher.workers=7"], 7, 1),
        (["resources=cpu", "seed=range(12)", "launcher.workers=7", "search.workers=5"], 5, 1),
        (["resources=cpu", "seed=0,1"], 2, 1),  # no job without a trial
        (["resources=one_gpu", "resources.gpus=4", "seed=range(12)", "search.workers=6"], 2, 4),
    ],
)
def test_a_studys_workers_are_the_tasks_of_one_array(words, jobs: int, workers: int, train, tmp_path: Path) -> None:
    done = train(*STUDY, *words, "launcher.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert directives(done.stdout)[2] == f"--array=0-{jobs - 1}"
    study = tmp_path / "outputs/studies/s"
    assert f" -P -B -m plumbline.search.worker study={study} workers={workers}\n" in done.stdout
    assert f": {jobs} jobs, each 1 node" in done.stdout.splitlines()[-1]
    assert subprocess.run(["bash", "-n"], input=done.stdout.rpartition("exit $status")[0], text=True).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resources=cpu", "resources.nodes=2"], "resources: a study's workers train alone, and this asks for 2 × 1"),
        (["resources=cpu", "resources.processes=2"], "this asks for 1 × 2 processes for one network"),
        (["resources=cpu", "device=cuda"], "device=cuda: resources.gpus=0 gives it none"),
        pytest.param(
            ["resources=cpu", "model.activation=relu,reluu"], "model.activation=reluu", marks=pytest.mark.slow
        ),
        (["resources=cpu", "launcher.workers=0"], "launcher.workers=0: must be a whole number in [1, 10000]"),
        (["resources=cpu", "optimiser.lr=-1"], "optimiser.lr=-1"),  # which only the optimiser sees
        pytest.param(["resources=cpu"], "there is no sbatch here", marks=pytest.mark.slow),
    ],
)
def test_what_no_task_could_do_is_said_before_an_array_is_submitted(words, message: str, train, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = train(*STUDY, "seed=0,1", *words, PATH=str(tmp_path / "empty"))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["empty"]
