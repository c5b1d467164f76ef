"""What does not go together is refused in one message that says what would; what looks odd and is sound trains."""

from __future__ import annotations

import math

import pytest
from conftest import noted, records

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
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[words for words, _ in REFUSED])
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
]


@pytest.mark.parametrize(("words", "updates"), WORKS, ids=[words for words, _ in WORKS])
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
