"""Augmentations: what they move, what they leave, and where their chance comes from."""

from math import pi
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from plumbline import augment
from plumbline.config import ConfigError, build, check_node

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "augment").glob("[!_]*.yaml"))
NOTHING = {
    "shift": {"pixels": 0},
    "rotate": {"degrees": 0.0},
    "flip": {"horizontal": 0.0, "vertical": 0.0},
    "crop": {"padding": 0},
    "cutout": {"size": 0},
}


def option(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"augment/{name}").augment[name]


def images(samples=16, channels=3, height=12, width=16, seed=0):
    return torch.randn(samples, channels, height, width, generator=torch.Generator().manual_seed(seed))


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_option_is_tested_at_strength_0():
    assert set(OPTIONS) == set(NOTHING)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_seed_decides_all_and_another_seed_gives_another_batch(name):
    node = option(name)
    check_node(f"augment.{name}", node, ["plumbline"])
    change, x = build(node), images()
    before = torch.get_rng_state()
    assert torch.equal(change(x, chance(1)), change(x, chance(1)))
    assert not torch.equal(change(x, chance(1)), change(x, chance(2)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, images())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_type_and_layout_are_kept(name, layout, dtype):
    x = images().to(dtype, memory_format=layout)
    changed = build(option(name))(x, chance())
    assert (changed.shape, changed.dtype) == (x.shape, dtype)
    assert changed.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_layout_does_not_change_the_images(name):
    change, x = build(option(name)), images()
    torch.testing.assert_close(change(x, chance()), change(x.to(memory_format=torch.channels_last), chance()))


@pytest.mark.parametrize("name", OPTIONS)
def test_strength_0_returns_the_batch_itself_and_draws_nothing(name):
    x, generator = images(), chance(5)
    before = generator.get_state()
    assert getattr(augment, name)(x, generator, **NOTHING[name]) is x
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_no_image_is_refused(name):
    with pytest.raises(ConfigError, match=rf"augment=\[{name}\]: needs images \(C, H, W\), not \(64,\)"):
        build(option(name))(torch.zeros(4, 64), chance())


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, -3), (-2, 3), (1, 1)])
def test_a_shift_is_a_roll_with_the_border_repeated(down, right):
    x = images()
    moved = augment.shifted(x, torch.full((16,), down), torch.full((16,), right))
    rolled = x.roll((down, right), (2, 3))
    inside = (..., slice(3, -3), slice(3, -3))
    assert torch.equal(moved[inside], rolled[inside])
    padded = torch.nn.functional.pad(x, (3, 3, 3, 3), mode="replicate")
    assert torch.equal(moved, padded[:, :, 3 - down : 15 - down, 3 - right : 19 - right])


def test_each_sample_moves_by_its_own_shift():
    x = images()
    down, right = torch.randint(-3, 4, (2, 16), generator=chance())
    moved = augment.shifted(x, down, right)
    for i in range(16):
        assert torch.equal(moved[i : i + 1], augment.shifted(x[i : i + 1], down[i : i + 1], right[i : i + 1]))


@pytest.mark.parametrize("name", ["shift", "crop"])
def test_every_shift_is_equally_likely(name):
    dots = torch.zeros(20000, 1, 9, 9)
    dots[:, :, 4, 4] = 1
    moved = augment.shift(dots, chance(), pixels=2) if name == "shift" else augment.crop(dots, chance(), padding=2)
    counts = moved.sum((0, 1))
    assert counts.sum() == 20000
    assert counts[2:7, 2:7].sum() == 20000
    expected = 20000 / 25
    assert ((counts[2:7, 2:7] - expected).square() / expected).sum() < 52  # chi square of 24, p = 0.001


def test_a_crop_is_a_window_of_the_padded_image():
    x = images(channels=1) + 10
    cropped = augment.crop(x, chance(3), padding=3)
    padded = torch.nn.functional.pad(x, (3, 3, 3, 3))
    windows = padded.unfold(2, 12, 1).unfold(3, 16, 1).flatten(1, 3)  # (B, 49, H, W)
    assert ((windows == cropped).flatten(2).all(2).sum(1) == 1).all()


@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_is_torchs(side):
    x = images(height=side, width=side)
    for quarters in range(4):
        turned = augment.rotated(x, torch.full((16,), quarters * pi / 2))
        torch.testing.assert_close(turned, x.rot90(quarters, (2, 3)), atol=1e-4, rtol=0)


def test_half_a_turn_is_both_flips_and_no_turn_is_the_image_also_when_it_is_not_square():
    x = images(height=10, width=15)
    torch.testing.assert_close(augment.rotated(x, torch.full((16,), pi)), x.flip(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(augment.rotated(x, torch.zeros(16)), x, atol=1e-5, rtol=0)


def test_a_turn_keeps_lengths_when_the_image_is_not_square():
    rows, columns = torch.meshgrid(torch.arange(20.0) - 9.5, torch.arange(40.0) - 19.5, indexing="ij")
    ring = (-(((rows.square() + columns.square()).sqrt() - 6) / 2).square()).exp()[None, None]
    turned = augment.rotated(ring, torch.tensor([0.9]))
    assert (turned - ring).abs().max() < 0.1  # interpolation alone
    assert augment.rotated(rows.expand(1, 1, 20, 40).contiguous(), torch.tensor([pi / 2]))[
        0, 0, 10, 25
    ] == pytest.approx(columns[10, 25].item(), abs=0.01)


def test_angles_are_spread_evenly_over_both_directions():
    slope = (torch.arange(9.0) - 4).expand(4000, 1, 9, 9).contiguous()  # grows to the right
    turned = augment.rotate(slope, chance(), degrees=30.0)
    angles = torch.asin((turned[:, 0, 5, 4] - turned[:, 0, 4, 4]).clamp(-1, 1)) * 180 / pi
    assert angles.abs().max() <= 30.01
    counts = torch.histc(angles, 10, -30, 30)
    assert ((counts - 400).square() / 400).sum() < 28  # chi square of 9, p = 0.001


@pytest.mark.parametrize(("axis", "key"), [(3, "horizontal"), (2, "vertical")])
def test_a_certain_flip_is_a_flip(axis, key):
    x = images()
    flipped = augment.flip(x, chance(), **{**NOTHING["flip"], key: 1.0})
    assert torch.equal(flipped, x.flip(axis))


def test_a_flip_has_its_probability():
    x = images(4000, 1, 4, 4)
    flipped = augment.flip(x, chance(), horizontal=0.3, vertical=0.0)
    share = (flipped != x).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_leaves_one_square_of_zeros_cut_off_by_the_edge(size):
    x = torch.ones(2000, 2, 12, 16)
    cut = augment.cutout(x, chance(), size=size) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(cut[:, 0].flatten(1).sum(1), rows * columns)
    assert (rows.max(), columns.max(), rows.min(), columns.min()) == (size, size, (size + 1) // 2, (size + 1) // 2)
    assert cut[:, 0].any(0).all()


@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("shift", {"pixels": 12}, "shift.pixels=12"),
        ("crop", {"padding": 12}, "crop.padding=12"),
        ("cutout", {"size": 13}, "cutout.size=13"),
    ],
)
def test_a_strength_out_of_range_is_refused(name, values, key):
    with pytest.raises(ConfigError, match=rf"augment\.{key}: must be in \["):
        getattr(augment, name)(images(), chance(), **values)
