"""What does not go together is refused in one message that says what would; what looks odd and is sound trains."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from conftest import composed, noted, one_in, records

from plumbline import evaluate
from plumbline.config import ConfigError

BATCH_OF_ONE = "batch_size=1: the network has batch norms, and one sample has no spread"

REFUSED = [
    ("model.norm=batch batch_size=1", BATCH_OF_ONE),
    ("data=digits_part model=cnn model.norm=batch batch_size=1", BATCH_OF_ONE),
    ("regulariser=[spectral_norm,weight_norm]", "computed by another norm of weights already; leave one of the two out"),
    *(
        (f"augment=[{name}] model={model} data={data}", rf"augment=\[{name}\]: moves the pixels .* choose cutout")
        for name in ("shift", "crop", "rotate", "flip")
        for model, data in (("unet", "shapes"), ("autoencoder", "digits_reconstruction"))
    ),
    ("regulariser=[cutmix] model=unet data=shapes", r"needs classes or numbers, not segmentation; choose mixup"),
    ("step=progressive_resizing", r"takes no images of 4x4; choose one that averages over positions .* model=resnet"),
    ("step=progressive_resizing model=cnn", r"takes no images of 4x4"),
    ("step=progressive_resizing model=unet data=shapes", r"takes no images of 16x16"),
    ("step=progressive_resizing data=iris", r"step=progressive_resizing: needs images"),
    ("model=lstm data=iris", r"model=lstm: needs sequences .* choose model=mlp, or data with an order"),
    ("model=cnn1d data=iris", r"model=cnn1d: needs sequences .* choose model=mlp, or data with an order"),
    ("model=cnn1d model.channels=[4,4,4,4]", "4 poolings leave nothing of 8 steps; give at most 3 channels"),
    ("model=unet", r"model=unet: paints masks, and these data ask for none; choose data=shapes"),
    ("model=siamese", r"model=siamese: needs pairs"),
    ("model=embedding_mlp", r"model=embedding_mlp: needs a table with categorical columns"),
    ("regulariser=[cutmix] data=diabetes", r"regulariser=\[cutmix\]: needs images"),
    ("regulariser=[label_smoothing] data=diabetes", r"regulariser=\[label_smoothing\]: needs classes, not regression"),
    ("regulariser=[kl]", r"regulariser=\[kl\]: MLP draws no code; choose model=vae"),
    ("regulariser=[dropblock] data=iris", r"names no Conv2d.*dropout serves those"),
    ("data.subset=2", r"data.subset=2: too few for one of each of the 10 classes"),
    ("transfer=weights transfer.freeze=[hidden,head]", "leaves nothing to train; leave out the last layer"),
    ("transfer=weights transfer.freeze=[hidden] transfer.thaw=[0.6,0.3]", r"transfer.thaw=.*two growing parts of the run"),
    ("model=siamese data=digit_pairs data.subset=2", r"data.subset=2: too few"),
    ("model=lstm data=sequences data.length=1", r"data.length=1: must be a whole number in .8, "),
    ("figures=[gradcam]", r"figures=\[gradcam\]: no layer of this network gives maps"),
    ("figures=[hidden_units] model=linear data=iris", r"has no hidden layer"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), one_in(3, REFUSED), ids=[words for words, _ in REFUSED])
def test_what_does_not_go_together_is_refused_before_anything_is_written(words: str, said: str, run, tmp_path) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        run(*words.split(), "epochs=1")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


WORKS = [  # and the number of updates an epoch
    ("batch_size=1 data=iris data.subset=20", 20),
    ("batch_size=100000 data=iris", 1),
    ("data=digits_part data.per_class=1 batch_size=4", 3),
    ("data.subset=65 model.norm=batch", 1),  # the last batch would be of one
    ("data=iris data.subset=3", 1),
    ("regulariser=[mixup] batch_size=1 data=iris data.subset=20", 20),
    ("regulariser=[mixup] data=diabetes data.subset=64", 1),
    ("model=unet data=shapes data.samples=60 data.size=13 batch_size=36", 1),
    ("step=sam accumulate=3 precision=bf16 data=iris batch_size=10", 3),
    ("ema=0.9 step=sam data=iris model.norm=batch batch_size=30", 3),
    ("augment=[cutout] model=unet data=shapes data.samples=60 batch_size=36", 1),
    ("data=pairs model=siamese data.subset=1", 1),
    ("model=transformer data=sequences data.samples=20", 1),
    ("swa=0.5 optimiser=sgd schedule=cosine_restarts schedule.cycles=1 data=iris", 2),
    ("accumulate=1000 data=iris", 1),
    ("watch=0 eval_batch_size=1 data=iris", 2),
    ("optimiser=adam_then_sgd optimiser.switch=100000 data=iris", 2),
    ("batch_size=auto data=iris data.subset=6", 1),
    ("model=resnet step=progressive_resizing data.subset=65 model.channels=[4]", 1),
]


@pytest.mark.parametrize(("words", "updates"), one_in(3, WORKS), ids=[words for words, _ in WORKS])
def test_what_looks_odd_and_is_sound_trains(words: str, updates: int, run) -> None:
    status, folder = run(*words.split(), "epochs=1", "report=false")
    (record,) = records(folder)
    assert (status, noted(folder)["status"], record["step"]) == (0, "finished", updates)
    assert math.isfinite(record["val/loss"])


def test_a_batch_size_that_is_found_is_the_one_that_the_checks_are_made_with(run) -> None:
    words = ["data=iris", "batch_size=auto", "checks=quick", "epochs=1", "report=false"]
    status, folder = run(*words)
    assert status == 0
    assert [it["id"] for it in noted(folder)["findings"] if "could not be made" in it["message"]] == []


# --- tables that others made -----------------------------------------------------------------------------------------

ROWS = [f"{k},{k % 7},{k % 3},{'ab'[k % 2]}" for k in range(60)]
TABLE = "\n".join(["p,q,r,y", *ROWS, ""])
LEVEL = "\n".join(["p,q,r,y", *(f"{k},{k % 7},red,{'ab'[k % 2]}" for k in range(60)), ""])
READ = {  # as it stands, and as other programs write it
    "Windows": (TABLE.replace("\n", "\r\n").encode(), []),
    "byte order mark": (b"\xef\xbb\xbf" + TABLE.encode(), []),
    "both": (b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(), []),
    "no last line end": (TABLE.rstrip().encode(), []),
}
REFUSED_TABLES = {
    "the same name twice": (TABLE.replace("p,q", "p,p", 1).encode(), [], "the header has 'p' more than once"),
    "a column of nothing": (LEVEL.replace("red", "nan").encode(), [], "'r' is not a finite number in 60 of 60 rows"),
    "a column of blanks": (LEVEL.replace("red", " ").encode(), [], "column 'r' is empty on line 2, and bad in 60 of 60"),
    "a column of words": (LEVEL.encode(), [], "column 'r' is not a finite number in 60 of 60 rows .line 2: 'red'"),
    "one class": (TABLE.replace(",b", ",a").encode(), [], "data.target=y: every row has the same label, 'a'"),
    "another separator": (TABLE.replace(",", ";").encode(), [], "no such column; is data.separator the right one"),
    "only a header": (b"p,q,r,y\n", [], "has no row that can be used, only a header"),
    "two rows": (b"p,q,y\n1,2,a\n2,3,b\n", [], "of 2 samples none is left for train"),
    "sixteen bits a letter": (TABLE.encode("utf-16"), [], "is not text .it has a zero byte"),
    "an open quotation": (TABLE.encode() + b'"1,2,3,a\n', [], "is a quotation mark left open"),
    "a role twice": (TABLE.encode(), ["data.categorical=[r,r]"], "must be a list of words, each once"),
    "the target left out": (TABLE.encode(), ["data.ignore=[y]"], "is data.target already; a column has one role"),
}  # fmt: skip


def table(folder: Path, content: bytes, *words: str) -> list[str]:
    (folder / "table.csv").write_bytes(content)
    return ["data=csv", f"data.file={folder / 'table.csv'}", "data.target=y", "epochs=1", "report=false", *words]


@pytest.mark.parametrize("name", READ)
def test_a_table_is_the_same_however_its_lines_end_and_begin(name: str, run, tmp_path: Path) -> None:
    content, words = READ[name]
    folders = []
    for number, text in enumerate((TABLE.encode(), content)):
        status, folder = run(*table(tmp_path, text, *words), folder=str(number))
        assert status == 0
        folders.append(folder)
    assert records(folders[0]) == records(folders[1])


def test_a_category_of_one_level_trains(run, tmp_path: Path) -> None:
    words = table(tmp_path, LEVEL.encode(), "data.categorical=[r]", "model=embedding_mlp")
    status, folder = run(*words)
    assert (status, math.isfinite(records(folder)[-1]["val/loss"])) == (0, True)


@pytest.mark.parametrize("name", REFUSED_TABLES)
def test_a_table_that_cannot_be_used_is_said_in_one_message(name: str, run, tmp_path: Path) -> None:
    content, words, said = REFUSED_TABLES[name]
    with pytest.raises(ConfigError, match=said) as error:
        run(*table(tmp_path, content, *words))
    assert str(error.value).startswith("data.")
    assert not (tmp_path / "run").exists()


# --- commands that come after a run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of several kinds, and with what is no run."""
    from plumbline.run import run_to_the_end

    here = tmp_path_factory.mktemp("kept")
    for name, words in {
        "digits": ["data.subset=65", "snapshots=[1]"],
        "split": ["data.subset=65", "data.split_seed=1"],
        "iris": ["data=iris"],
        "diabetes": ["data=diabetes"],
        "moved": ["data.subset=65", "augment=[shift]"],
    }.items():
        words = ["epochs=1", "checks=off", "report=false", "bootstrap=2", "threads=1", *words]
        assert run_to_the_end(composed(*words), here / name, words) == 0
    (here / "folder.pt").mkdir()
    (here / "text.pt").write_text("hello")
    (here / "empty.pt").write_text("")
    return here


ASKED = [
    ("run=diabetes temperature=true", "temperature=true: is for classes"),
    ("run=iris tta=3", "tta=3: the run was trained without augmentation"),
    ("run=moved tta=-1", "tta at least 0"),
    ("run=moved tta=1.5", "tta=1.5: must be a whole number"),
    ("run=digits beside=[iris]", "beside=iris: was trained on other data, or on another split"),
    ("run=digits beside=[split]", "beside=split: was trained on other data, or on another split"),
    ("run=digits beside=[digits/epoch-9.pt]", "beside=digits/epoch-9.pt: there are no such weights"),
    ("run=digits beside=[text.pt]", "is not the folder of a run"),
    ("run=digits beside=digits", "beside=digits: must be a list of words"),
    ("run=digits temperature=maybe", "temperature=maybe: must be true or false"),
    ("run=digits device=warm", "device=warm: no such device"),
    ("run=text.pt", "run=text.pt: is not the folder of a run"),
    ("run=folder.pt", "run=folder.pt: is not the folder of a run"),
    ("run=", "run="),
]


@pytest.mark.parametrize(("words", "said"), ASKED, ids=[words for words, _ in ASKED])
def test_what_cannot_be_evaluated_is_said_in_one_message(words, said, kept, monkeypatch, capfd) -> None:
    monkeypatch.chdir(kept)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["evaluate", "on=val", *words.split()])
    assert evaluate.main() == 2
    error = capfd.readouterr().err
    assert error.startswith("plumbline: ") and error.count("\n") == 1 and said in error, error


def test_a_run_beside_itself_or_its_only_snapshot_answers_as_it_does_alone(kept, monkeypatch) -> None:
    monkeypatch.chdir(kept)
    for beside in ("digits", "digits/epoch-1.pt"):
        request = evaluate.read_request(["run=digits", "on=val", f"beside=[{beside}]"])
        for both in evaluate.evaluate(request)["metrics"].values():
            assert both["together"]["value"] == pytest.approx(both["alone"]["value"], abs=1e-6)


FILES = [
    ("folder.pt", "there is no such file; name a run's folder"),
    ("text.pt", "text.pt is damaged"),
    ("empty.pt", "empty.pt is damaged"),
    ("iris", "has in another shape hidden.0.linear.weight, head.weight, head.bias; leave new layers out"),
]


@pytest.mark.parametrize(("file", "said"), FILES, ids=[file for file, _ in FILES])
def test_weights_that_cannot_be_taken_over_are_said_in_one_message(file: str, said: str, kept, run, tmp_path) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        run("transfer=weights", f"transfer.file={kept / file}", "epochs=1")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
