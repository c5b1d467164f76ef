"""Images on disk: streamed batches are what memory would give; an unreadable image is named and costs itself alone."""

from __future__ import annotations

import multiprocessing
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plumbline.config import ConfigError, build
from plumbline.data import Arrays, Data, Spec, folder, in_memory
from plumbline.data.scan import scan
from plumbline.data.stream import Images

OPENING = types.SimpleNamespace(written=True)
OPTIONS = {
    "split": "stratified", "split_seed": 0, "val_fraction": 0.2, "test_fraction": 0.2, "folds": 5, "fold": 0,
    "subset": None, "normalise": True, "size": 8, "channels": 3, "group": None, "workers": 0, "bad_files": "stop",
    "scan_cache": None,
}  # fmt: skip
CLASSES = ("bird", "cat", "dog")


def write(root: Path, count: int = 10, ending: str = "png") -> None:
    """`count` images of each class: noise of a brightness of its own."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            pixels = generator.integers(0, 100 + 50 * label, (12, 9 + k % 3, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"p{k // 2}-{k}.{ending}")


def images(root: Path, **changes) -> Data:
    return folder.image_folder(root=str(root), **OPTIONS | changes)


def gather(split, size: int = 7, order: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = zip(*split.batches(size, order), strict=True)
    return torch.cat(x), torch.cat(y)


def parts(data: Data):
    return data.train, data.val, data.open_test(OPENING)


def test_the_spec_comes_from_the_names_of_folders_alone(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
    (tmp_path / ".cache").mkdir()
    data = images(tmp_path, channels=1)
    assert data.spec == Spec("classification", (1, 8, 8), 3, CLASSES)
    with pytest.raises(ConfigError, match="bird holds no image"):
        _ = data.train


def test_every_image_is_in_one_part_with_the_class_of_its_folder(tmp_path):
    write(tmp_path)
    data = images(tmp_path)
    ids = [name for part in parts(data) for name in part.ids]
    assert [len(part) for part in parts(data)] == [18, 6, 6]
    assert sorted(ids) == sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    for part in parts(data):
        assert [CLASSES[y] for y in part.targets] == [name.split("/")[0] for name in part.ids]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalise", [True, False])
def test_streamed_batches_are_those_of_the_same_images_in_memory(tmp_path, channels, normalise):
    write(tmp_path)
    data = images(tmp_path, channels=channels, normalise=normalise)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    pixels = Images(tmp_path, np.array(files), size=8, channels=channels).__getitems__(list(range(len(files))))
    arrays = Arrays(pixels.numpy(), np.repeat(np.arange(3), 10), ids=np.array(files))
    keys = ("split", "split_seed", "val_fraction", "test_fraction", "folds", "fold", "subset")
    options = {key: OPTIONS[key] for key in keys} | {"normalise": normalise}
    memory = in_memory(data.spec, lambda: arrays, **options)
    order = torch.randperm(18)
    for streamed, held in zip(parts(data), parts(memory), strict=True):
        x, y = gather(streamed)
        assert np.array_equal(streamed.ids, held.ids)
        assert torch.equal(y, held.y)
        assert torch.allclose(x, held.x, atol=1e-5)
        assert x.dtype == torch.float32
    x, y = gather(data.train, order=order)
    assert torch.equal(y, memory.train.y[order])
    assert torch.allclose(x, memory.train.x[order], atol=1e-5)
    if normalise:
        assert torch.allclose(data.scale.mean, memory.scale.mean)
        assert torch.allclose(data.scale.std, memory.scale.std)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_and_scale_are_the_same_for_any_number_of_workers(tmp_path, workers):
    write(tmp_path)
    alone, helped = images(tmp_path), images(tmp_path, workers=workers)
    order = torch.randperm(18)
    for mine, theirs in zip(gather(alone.train, 4, order), gather(helped.train, 4, order), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(alone.scale.mean, helped.scale.mean)
    assert alone.fingerprint() == helped.fingerprint()


def test_no_worker_outlives_its_epoch_even_one_that_is_left_early(tmp_path):
    write(tmp_path)
    data = images(tmp_path, workers=2)
    before = len(multiprocessing.active_children())
    gather(data.train)
    assert len(multiprocessing.active_children()) == before
    batches = data.train.batches(2)
    next(batches)
    assert len(multiprocessing.active_children()) == before + 2
    batches.close()
    assert len(multiprocessing.active_children()) == before


def test_two_iterations_at_once_do_not_disturb_each_other(tmp_path):
    write(tmp_path)
    train = images(tmp_path, workers=1).train
    pairs = [(one, other) for (_, one), (_, other) in zip(train.batches(5), train.batches(5), strict=True)]
    both = [torch.cat(labels) for labels in zip(*pairs, strict=True)]
    assert torch.equal(both[0], train.y)
    assert torch.equal(both[1], train.y)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_draws_nothing_from_the_global_generator(tmp_path, workers):
    write(tmp_path)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    gather(images(tmp_path, workers=workers).train)
    assert torch.equal(torch.rand(3), expected)


def test_the_scale_is_that_of_the_images_of_train(tmp_path):
    write(tmp_path)
    data = images(tmp_path)
    x, _ = gather(data.train)
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert gather(data.val)[0].mean((0, 2, 3)).abs().max() > 1e-4
    assert data.scale.fitted_on == "train"


def test_batches_come_in_the_layout_that_is_asked_for(tmp_path):
    write(tmp_path)
    train = images(tmp_path).train
    train.to(torch.device("cpu"), channels_last=True)
    x, _ = next(train.batches(5))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous()
    assert list(train.batches(5, torch.arange(0))) == []


# --- images that cannot be read --------------------------------------------------------------------------------------


def break_some(root: Path) -> list[str]:
    (root / "cat" / "p0-0.png").write_bytes(b"this is no image")
    file = root / "dog" / "p1-3.png"
    file.write_bytes(file.read_bytes()[:60])
    (root / "bird" / "p2-4.png").write_bytes(b"")
    return ["bird/p2-4.png", "cat/p0-0.png", "dog/p1-3.png"]


def all_in_train_or_val(root: Path, names: list[str]) -> int:
    """A split seed for which none of the names is in test."""
    for seed in range(100):
        test = set(images(root, split_seed=seed).open_test(OPENING).ids)
        if not test & set(names):
            return seed
    raise AssertionError


def test_every_unreadable_image_is_named_in_one_message(tmp_path):
    write(tmp_path)
    names = ["bird/p2-4.png", "cat/p0-0.png", "dog/p1-3.png"]
    seed = all_in_train_or_val(tmp_path, names)
    assert break_some(tmp_path) == names
    for workers in (0, 2):
        with pytest.raises(ConfigError, match=r"3 of 24 images cannot be read.*data.bad_files=skip") as said:
            _ = images(tmp_path, split_seed=seed, workers=workers).train
        assert all(name in str(said.value) for name in names)


def test_skipping_leaves_out_the_unreadable_images_and_nothing_else(tmp_path):
    write(tmp_path)
    names = ["bird/p2-4.png", "cat/p0-0.png", "dog/p1-3.png"]
    seed = all_in_train_or_val(tmp_path, names)
    whole = images(tmp_path, split_seed=seed)
    before = {name for part in (whole.train, whole.val) for name in part.ids}
    break_some(tmp_path)
    data = images(tmp_path, split_seed=seed, bad_files="skip")
    assert {name for part in (data.train, data.val) for name in part.ids} == before - set(names)
    assert sorted(line.split(":")[0] for line in data.left_out) == names
    assert len(gather(data.train)[0]) == len(data.train) == len(data.train.targets)
    assert gather(data.train)[0].mean((0, 2, 3)).abs().max() < 1e-5  # the scale is that of what is left


@pytest.mark.parametrize("bad_files", ["stop", "skip"])
def test_test_images_are_not_opened_before_the_seal_is_broken_and_cost_only_themselves(tmp_path, bad_files):
    write(tmp_path)
    names = images(tmp_path).open_test(OPENING).ids
    good = gather(images(tmp_path).open_test(OPENING))[0]
    for name in names[:1]:
        (tmp_path / name).write_bytes(b"no image")
    data = images(tmp_path, bad_files=bad_files)
    assert len(data.train) + len(data.val) == 24
    assert data.left_out == []
    test = data.open_test(OPENING)
    assert list(test.ids) == list(names[1:])
    assert test.left_out[0].startswith(f"{names[0]}: ")
    assert torch.equal(gather(test)[0], good[1:])


def test_training_never_opens_a_test_image(tmp_path, monkeypatch):
    write(tmp_path)
    opened, real = [], Image.open

    def spy(path: Path) -> Image.Image:
        opened.append(path.relative_to(tmp_path).as_posix())
        return real(path)

    monkeypatch.setattr(Image, "open", spy)
    data = images(tmp_path)
    gather(data.train), gather(data.val), data.fingerprint(), data.identity()
    seen = set(opened)
    assert seen == {*data.train.ids, *data.val.ids}
    assert not seen & set(data.open_test(OPENING).ids)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_training_is_named(tmp_path, workers):
    write(tmp_path)
    train = images(tmp_path, workers=workers).train
    (tmp_path / train.ids[3]).unlink()
    with pytest.raises(ConfigError, match=f"{train.ids[3]}.*could be read when the run began"):
        gather(train)


# --- pixels ----------------------------------------------------------------------------------------------------------


def decoded(path: Path, size: int = 4, channels: int = 1):
    return Images(path.parent, np.array([path.name]), size=size, channels=channels).decode(0)


def test_a_black_image_among_streamed_ones_is_the_oddest(tmp_path):
    from conftest import composed

    from plumbline.checks.view import View, seen

    write(tmp_path, count=40)
    for name in CLASSES:
        Image.fromarray(np.zeros((12, 9, 3), np.uint8)).save(tmp_path / name / "black.png")
    cfg = composed("data.subset=null")
    view = View(images(tmp_path, test_fraction=0.05), cfg, 100)
    finding = build(cfg.checks.data.outliers)(view)
    black = [str(name) for name in view.data.train.ids if "black" in str(name)]
    assert finding.evidence["as_good_as_blank"] == len(black) > 0
    assert sorted(name for _, name, why in view.oddest if why == "as good as blank") == sorted(black)
    assert seen(view)["odd_images"].shape == (20, 3, 8, 8)


def test_the_middle_square_is_kept(tmp_path):
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (decoded(tmp_path / "a.png") == 200).all()


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    assert (decoded(tmp_path / "a.png") == 40_000 // 256).all()


def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    assert "no known range" in decoded(tmp_path / "a.tif")


def test_a_photograph_is_turned_as_its_tag_says(tmp_path):
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 255  # a white upper edge
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert (decoded(tmp_path / "a.png")[0, :, -1] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_usual_mode_has_the_channels_that_are_asked_for(tmp_path, mode, channels):
    ending = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{ending}")
    image = decoded(tmp_path / f"a.{ending}", channels=channels)
    assert image.shape == (channels, 4, 4)
    assert image.min() == 255


def test_a_jpeg_is_near_its_png(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(64, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    png, jpg = (decoded(tmp_path / f"a.{ending}", size=16).astype(int) for ending in ("png", "jpg"))
    assert np.abs(png - jpg).max() <= 4


# --- layout and options ----------------------------------------------------------------------------------------------


def test_a_root_with_its_own_parts_is_split_as_it_is(tmp_path):
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        write(tmp_path / part, count)
    data = images(tmp_path, split="predefined")
    assert data.spec.classes == CLASSES
    assert [len(part) for part in parts(data)] == [18, 9, 6]
    assert all(
        part.ids[0].split("/")[0] == name for part, name in zip(parts(data), ("train", "val", "test"), strict=True)
    )


def test_a_root_without_val_has_it_carved_from_train(tmp_path):
    write(tmp_path / "train", 10)
    write(tmp_path / "test", 2)
    data = images(tmp_path, split="predefined")
    assert [len(part) for part in parts(data)] == [24, 6, 6]
    assert data.val.ids[0].startswith("train/")


def layout(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("names", "changes", "says"),
    [
        (("train/a", "train/b", "test/a"), {}, "data.split=stratified: .* say data.split=predefined"),
        (("a", "b"), {"split": "predefined"}, "data.split=predefined: .*folders train, val and test"),
        (("train/a", "train/b"), {"split": "predefined"}, "has a folder train, but none called test"),
        (("train/a", "valid/a", "test/a"), {"split": "predefined"}, "folder valid should be called val"),
        (("train/a", "train/b", "test/c"), {"split": "predefined"}, "test/c is a class that train does not have"),
        (("a",), {}, "has 1 folders"),
        (("a", "b"), {"group": "p(", "split": "grouped"}, r"data.group=p\(: is no regular expression"),
        (("a", "b"), {"split": "grouped"}, "data.split=grouped: .*data.group"),
    ],
)
def test_what_cannot_be_is_said_at_the_call(tmp_path, names, changes, says):
    with pytest.raises(ConfigError, match=says):
        images(layout(tmp_path, *names), **changes)


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"data.root={tmp_path / 'no'}: is no folder"):
        images(tmp_path / "no")


def test_a_pattern_on_the_path_keeps_groups_whole(tmp_path):
    write(tmp_path)
    data = images(tmp_path, split="grouped", group="(p[0-9]+)-")
    groups = [set(part.groups) for part in parts(data)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 5
    with pytest.raises(ConfigError, match=r"data.group=q\[0-9\]: does not match the path bird/p0-0.png"):
        _ = images(tmp_path, split="grouped", group="q[0-9]").train


def test_the_identity_is_of_the_files_and_not_of_the_split(tmp_path):
    write(tmp_path)
    one, two = images(tmp_path), images(tmp_path, split_seed=1)
    assert one.identity() == two.identity()
    assert one.fingerprint() != two.fingerprint()
    before = one.identity()
    write(tmp_path, 11)
    assert images(tmp_path).identity() != before


def test_the_fingerprint_sees_a_changed_pixel(tmp_path):
    write(tmp_path)
    data = images(tmp_path)
    before, file = data.fingerprint(), tmp_path / data.train.ids[0]
    pixels = np.asarray(Image.open(file)).copy()
    pixels[6, 5] ^= 128
    Image.fromarray(pixels).save(file)
    assert images(tmp_path).fingerprint() != before


# --- the memory of the scan ------------------------------------------------------------------------------------------


def test_the_scan_remembers_what_did_not_change(tmp_path, monkeypatch):
    write(tmp_path / "root")
    (tmp_path / "root" / "cat" / "p0-0.png").write_bytes(b"no image")
    names = np.array(sorted(path.relative_to(tmp_path / "root").as_posix() for path in tmp_path.rglob("*.png")))
    looked = []
    real = Images.decode
    monkeypatch.setattr(Images, "decode", lambda self, index: looked.append(self.ids[index]) or real(self, index))

    def look(ids: np.ndarray):
        looked.clear()
        return scan(Images(tmp_path / "root", ids, size=8, channels=3), workers=0, cache=str(tmp_path / "cache"))

    first = look(names[:20])
    assert len(looked) == 20
    again = look(names)  # ten new ones
    assert len(looked) == 10
    for name in ("wrong", "digests", "sums", "squares"):
        assert np.array_equal(getattr(again, name)[:20], getattr(first, name))
    assert [line.split(":")[0] for line in again.left_out()] == ["cat/p0-0.png"]
    file = tmp_path / "root" / names[0]
    Image.new("RGB", (30, 30)).save(file)
    assert look(names).digests[0] != first.digests[0]
    assert looked == [names[0]]
    next((tmp_path / "cache").iterdir()).write_bytes(b"damaged")
    assert np.array_equal(look(names).digests[1:], again.digests[1:])
    assert len(looked) == 30
