"""What is searched: Hydra's words and files say the same thing, conditions hold, and points have their places."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from plumbline.compose import compose, hydra_at
from plumbline.contract import ConfigError
from plumbline.search.compose import Points, checkpoints
from plumbline.search.prepare import apart
from plumbline.search.samplers import quasi_random
from plumbline.search.space import Space, corners, parse

CONF = [ROOT / "conf"]


def space_of(*words: str, **files: object) -> Space:
    with hydra_at(CONF) as loader:
        return parse(list(words), {key.replace("__", "."): value for key, value in files.items()}, loader)[0]


def test_a_grid_is_every_combination_the_last_parameter_moving_fastest() -> None:
    points = space_of("seed=0,1", "optimiser.lr=1e-3,1e-2", "epochs=3").grid()
    assert [tuple(point.values()) for point in points] == [("0", "0.001"), ("0", "0.01"), ("1", "0.001"), ("1", "0.01")]


def test_fixed_words_are_not_searched_and_searched_ones_not_fixed() -> None:
    with hydra_at(CONF) as loader:
        space, fixed = parse(["seed=0,1", "epochs=3", "model=mlp"], {}, loader)
    assert (space.names, fixed) == (["seed"], ["epochs=3", "model=mlp"])


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("model.hidden=choice([64],[128,64])", ["[64]", "[128,64]"]),
        ("epochs=range(1,10,3)", [1, 4, 7]),
        ("seed=range(3)", [0, 1, 2]),
        ("optimiser.lr=range(0.1,0.35,0.1)", [0.1, 0.2, 0.3]),
        ("schedule=glob(co*)", ["constant", "cosine", "cosine_restarts"]),
        ("optimiser=sgd,adamw,sgd", ["sgd", "adamw"]),
    ],
)
def test_hydras_words_give_these_values_in_a_grid(word: str, values: list) -> None:
    found = [point[word.partition("=")[0]] for point in space_of(word).grid()]
    assert found == pytest.approx(values) if isinstance(values[0], float) else found == values


def test_an_interval_is_in_log_where_it_says_so_and_no_grid_has_one() -> None:
    space = space_of("optimiser.lr=tag(log,interval(1e-4,1e-1))")
    parameter = space["optimiser.lr"]
    assert (parameter.low, parameter.high, parameter.log) == (1e-4, 1e-1, True)
    assert parameter.at(0.5) == pytest.approx(math.sqrt(1e-5))
    assert parameter.place(parameter.at(0.3)) == pytest.approx(0.3)
    with pytest.raises(ConfigError, match="search=tpe"):
        space.grid()


def test_a_file_says_what_the_command_line_says_and_the_command_line_has_the_last_word() -> None:
    there = {"optimiser__lr": "tag(log, interval(1e-4, 1e-1))", "seed": [0, 1]}
    assert (
        space_of(**there).plain()[0]["low"] == space_of("optimiser.lr=tag(log,interval(1e-4,1e-1))").plain()[0]["low"]
    )
    assert space_of(**there)["seed"].choices == ("0", "1")
    assert space_of("seed=5,6,7", **there)["seed"].choices == ("5", "6", "7")
    assert space_of("seed=5", **there).names == ["optimiser.lr"]


def test_a_condition_keeps_a_parameter_out_of_the_points_where_it_has_no_meaning() -> None:
    momentum = {"when": "optimiser=sgd", "values": "range(0.0,0.95,0.9)"}
    space = space_of("optimiser=sgd,adamw", optimiser__momentum=momentum)
    assert space.grid() == [
        {"optimiser": "sgd", "optimiser.momentum": 0.0},
        {"optimiser": "sgd", "optimiser.momentum": 0.9},
        {"optimiser": "adamw"},
    ]
    assert space.words({"optimiser": "adamw"}) == ["optimiser=adamw"]
    assert space_of("optimiser=sgd", optimiser__momentum=momentum)["optimiser.momentum"].when is None
    assert space_of("optimiser=adamw", optimiser__momentum=momentum).names == []


def test_keys_that_go_together_move_together() -> None:
    with hydra_at(CONF) as loader:
        pairs = {"model.hidden, optimiser.lr": [[[32], 3e-3], [[64, 64], 1e-3]]}
        space = parse([], pairs, loader)[0]
    assert [space.words(point) for point in space.grid()] == [
        ["model.hidden=[32]", "optimiser.lr=0.003"], ["model.hidden=[64,64]", "optimiser.lr=0.001"],
    ]  # fmt: skip


def test_a_space_survives_its_file() -> None:
    momentum = {"when": "optimiser=[sgd,rmsprop]", "values": "interval(0,0.9)"}
    space = space_of("optimiser=sgd,adamw,rmsprop", "epochs=range(1,9)", optimiser__momentum=momentum)
    assert Space.of(yaml.safe_load(yaml.safe_dump(space.plain()))) == space


@pytest.mark.parametrize(
    ("words", "files", "parts"),
    [
        (["optimiser.lr=tag(log,interval(0,1))"], {}, ["optimiser.lr", "above 0"]),
        (["optimiser.lr=interval(1,0)"], {}, ["optimiser.lr", "to a larger one"]),
        ([], {"optimiser__lr": 3}, ["space: optimiser.lr", "one value", "interval"]),
        ([], {"optimiser__lr": "interval(1"}, ["space: optimiser.lr", "cannot be read"]),
        ([], {"optimiser__lr": {"when": "optimiser=sgd"}}, ["space: optimiser.lr", "values"]),
        ([], {"optimiser__lr": {"when": "sgd", "values": [1, 2]}}, ["when", "key=value"]),
        (
            [],
            {"optimiser__lr": {"when": "optimizer=sgd", "values": [1, 2]}},
            ["optimizer", "neither searched nor given"],
        ),
        (
            ["optimiser=sgd,adamw"],
            {"optimiser__lr": {"when": "optimiser=sdg", "values": [1, 2]}},
            ["sdg", "no choice of it"],
        ),
        ([], {"a": {"when": "b=1", "values": [1, 2]}, "b": {"when": "a=1", "values": [1, 2]}}, ["in a circle"]),
        ([], {"model, seed": [[1, 2], [1]]}, ["go together", "2 values in each"]),
    ],
)
def test_a_mistake_in_a_space_is_said_with_what_would_be_right(words, files, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(*words, **files)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_every_choice_and_every_step_has_an_equal_share_of_the_cube() -> None:
    space = space_of(
        "seed=0,1,2", "epochs=range(1,5)", "batch_size=tag(log,int(interval(1,8)))", "optimiser.lr=interval(0,1)"
    )
    places = [k / 1200 for k in range(1200)]
    for name, count in (("seed", 3), ("epochs", 4)):
        values = [space[name].at(u) for u in places]
        assert sorted({values.count(value) for value in values}) == [1200 // count]
    assert {space["batch_size"].at(u) for u in places} == set(range(1, 9))


def test_quasi_random_points_are_known_by_their_number_and_fill_every_box() -> None:
    points = [quasi_random(2, number, 3) for number in range(64)]
    assert quasi_random(2, 17, 3) == points[17]
    assert {(int(8 * a), int(8 * b)) for a, b in points} == {(a, b) for a in range(8) for b in range(8)}


def test_a_sample_of_a_space_has_each_choice_and_each_end() -> None:
    momentum = {"when": "optimiser=sgd", "values": "interval(0,0.9)"}
    space = space_of("optimiser=adamw,sgd", "optimiser.lr=tag(log,interval(1e-4,1))", optimiser__momentum=momentum)
    points = corners(space, 20)
    assert {point["optimiser"] for point in points} == {"sgd", "adamw"}
    assert {1e-4, 1.0} <= {point["optimiser.lr"] for point in points}
    assert all(("optimiser.momentum" in point) == (point["optimiser"] == "sgd") for point in points)


def check(points, space, fixed, folders) -> None:
    composed = Points(space, fixed, "train", folders)
    for point in points:
        composed.check(point)


def test_a_point_is_composed_as_the_command_line_would_be() -> None:
    folders = [ROOT / "conf"]
    words = ["optimiser=sgd,adamw", "optimiser.lr=1e-3,0.1", "model.hidden=[3],[4,5]", "+transfer.more=1"]
    with hydra_at(folders) as loader:
        space, fixed = parse(words, {}, loader)
        composed = Points(space, ["epochs=3", *fixed], "train", folders)
        for point in space.grid():
            assert composed(point) == compose(["epochs=3", *fixed, *space.words(point)], "train")
    assert (len(space.grid()), len(composed.composed)) == (8, 2)


def test_every_choice_is_tried_before_what_differs_only_in_numbers() -> None:
    space = space_of("optimiser=sgd,adamw", "batch_size=8,16,32", "optimiser.lr=interval(0.1,0.2)")
    every = product((0.1, 0.2), ("sgd", "adamw"), (8, 16, 32))
    points = [{"optimiser.lr": lr, "optimiser": name, "batch_size": size} for lr, name, size in every]
    new, other = apart(space, points)
    assert new == points[:4]
    assert other == points[4:]
    ranges = space_of("optimiser.lr=interval(0.1,0.2)")
    assert apart(ranges, [{"optimiser.lr": 0.1}, {"optimiser.lr": 0.2}])[0] == [{"optimiser.lr": 0.1}]


def test_every_shipped_space_can_be_composed_at_every_checkpoint() -> None:
    for file in sorted((ROOT / "conf" / "space").glob("[!_]*.yaml")):
        with hydra_at(CONF) as loader:
            space, fixed = parse([], yaml.safe_load(file.read_text()), loader)
            points = checkpoints(space, None)
            check(points, space, fixed, CONF)
        assert len(points) >= 3, file
        assert all(parameter.log for parameter in space if parameter.name == "optimiser.lr"), file


def test_a_point_that_cannot_be_composed_is_said_with_its_trial_and_the_others_do_not_hide_it() -> None:
    with hydra_at(CONF) as loader:
        space, fixed = parse(["epochs=1,2,many", "seed=0,1"], {}, loader)
        with pytest.raises(ConfigError, match=r"epochs=many: must be a whole number.*in the trial epochs=many seed=0"):
            check(space.grid(), space, fixed, CONF)
        space, fixed = parse(["epochs=1,2", "ema=null,0.9", "swa=null,0.5"], {}, loader)
        with pytest.raises(ConfigError, match=r"two averages.*in the trial epochs=1 ema=0.9 swa=0.5"):
            check(space.grid(), space, fixed, CONF)
        space, fixed = parse(["model=mlp,mpl"], {}, loader)
        with pytest.raises(ConfigError, match=r"model=mpl: there is no such option \(did you mean 'mlp'\?\)"):
            check(space.grid(), space, fixed, CONF)
        space, fixed = parse(["optimiser=sgd,adamw", "optimiser.momentum=0.5"], {}, loader)
        with pytest.raises(ConfigError, match=r"optimiser.momentum.*optimiser=adamw"):
            check(space.grid(), space, fixed, CONF)


def test_a_config_dir_of_ones_own_is_composed_too(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = (ROOT / "conf/model/mlp.yaml").read_text()
    (tmp_path / "model" / "mine.yaml").write_text(text)
    folders = [*CONF, tmp_path]
    with hydra_at(folders) as loader:
        space, fixed = parse(["model=mlp,mine", "model.hidden=[3],[4]"], {}, loader)
        check(space.grid(), space, fixed, folders)
    assert len(space.grid()) == 4
