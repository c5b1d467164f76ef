"""A user's own table: every bad row is named, everything fitted is fitted on train, nothing else is lost."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import torch

from plumbline.config import ConfigError
from plumbline.data import Data, table

OPENING = types.SimpleNamespace(written=True)
OPTIONS = {
    "split": "stratified", "split_seed": 0, "val_fraction": 0.2, "test_fraction": 0.2, "folds": 5, "fold": 0,
    "subset": None, "normalise": True, "task": "classification", "categorical": [], "group": None, "ignore": [],
    "id": None, "split_column": None, "separator": ",", "bad_rows": "stop", "standardise_target": True,
    "select": [], "keep": 10, "correlated_above": 0.95, "columns": None,
}  # fmt: skip


def lines_of(rows: int = 60) -> list[str]:
    """A header and rows: age,city,height,kind; line k + 2 is row k."""
    generator = np.random.default_rng(0)
    return ["age,city,height,kind"] + [
        f"{20 + k},{('Oslo', 'Bergen', 'Bodø')[k % 3]},{generator.normal(170, 10):.2f},{('cat', 'dog')[k % 2]}"
        for k in range(rows)
    ]


def read(folder: Path, lines: list[str] | str | bytes, target: str = "kind", **changes) -> Data:
    path = folder / "table.csv"
    content = "\n".join(lines) + "\n" if isinstance(lines, list) else lines
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return table.csv(file=str(path), target=target, **OPTIONS | {"categorical": ["city"]} | changes)


def message(folder: Path, lines, **changes) -> str:
    with pytest.raises(ConfigError) as said:
        _ = read(folder, lines, **changes).train
    return str(said.value)


def parts(data: Data):
    return data.train, data.val, data.open_test(OPENING)


def test_the_spec_is_computed_from_the_file(tmp_path):
    data = read(tmp_path, lines_of())
    assert data.spec.classes == ("cat", "dog")
    assert data.spec.outputs == 2
    assert data.spec.features == ("age", "city=Bergen", "city=Bodø", "city=Oslo", "height")
    assert data.spec.shape == (5,) == tuple(data.train.x.shape[1:])
    assert [len(part) for part in parts(data)] == [36, 12, 12]


def test_every_row_is_what_its_line_says(tmp_path):
    lines = lines_of()
    data = read(tmp_path, lines, normalise=False)
    seen = []
    for part in parts(data):
        for x, y, line in zip(part.x, part.y, part.ids, strict=True):
            age, city, height, kind = lines[line - 1].split(",")
            one_hot = [float(city == name) for name in ("Bergen", "Bodø", "Oslo")]
            assert x.tolist() == pytest.approx([float(age), *one_hot, float(height)])
            assert data.spec.classes[y] == kind
            seen.append(int(line))
    assert sorted(seen) == list(range(2, 62))


def test_inputs_are_scaled_by_train_alone(tmp_path):
    data = read(tmp_path, lines_of())
    x = data.train.x.double()
    assert x.mean(0).abs().max() < 1e-5
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-5
    assert data.val.x.double().mean(0).abs().max() > 1e-3


def test_a_regression_takes_the_number_and_standardises_it_on_train(tmp_path):
    data = read(tmp_path, lines_of(), target="height", task="regression", ignore=["kind"])
    assert (data.spec.task, data.spec.outputs, data.spec.classes) == ("regression", 1, ())
    assert data.train.y.shape == (36, 1)
    assert data.train.y.mean().abs() < 1e-5
    heights = {k + 2: float(line.split(",")[2]) for k, line in enumerate(lines_of()[1:])}
    assert data.target_scale.inverse(data.val.y)[:, 0].tolist() == pytest.approx(
        [heights[line] for line in data.val.ids], rel=1e-5
    )


def test_numeric_labels_are_sorted_as_numbers(tmp_path):
    lines = ["x,label"] + [f"{k},{(2, 10, 1)[k % 3]}" for k in range(60)]
    data = read(tmp_path, lines, target="label", categorical=[], normalise=False)
    assert data.spec.classes == ("1", "2", "10")
    assert all(data.spec.classes[y] == str((2, 10, 1)[int(x) % 3]) for x, y in zip(data.val.x, data.val.y, strict=True))


def test_a_class_that_only_val_has_is_still_a_class(tmp_path):
    lines = ["x,part,kind"] + [f"{k},{('train', 'val', 'test')[k % 3]},{('a', 'b')[k // 3 % 2]}" for k in range(30)]
    lines[2] = "1,val,rare"
    data = read(tmp_path, lines, categorical=[], split="predefined", split_column="part")
    assert data.spec.classes == ("a", "b", "rare")
    assert 2 in data.val.y
    assert 2 not in data.train.y


def test_ids_groups_and_marks_are_columns_and_no_inputs(tmp_path):
    lines = ["name,patient,part,x,kind"] + [
        f"n{k},p{k // 4},{('train', 'train', 'val', 'test')[k // 4 % 4]},{k},{('a', 'b')[k % 2]}" for k in range(80)
    ]
    roles = {"categorical": [], "id": "name", "group": "patient", "ignore": ["part"]}
    grouped = read(tmp_path, lines, **roles, split="grouped")
    assert grouped.spec.features == ("x",)
    assert set(grouped.val.ids) < {f"n{k}" for k in range(80)}
    assert sum(len(set(part.groups)) for part in parts(grouped)) == 20
    marked = read(tmp_path, lines, **roles | {"ignore": []}, split="predefined", split_column="part")
    assert [len(part) for part in parts(marked)] == [40, 20, 20]
    assert set(marked.open_test(OPENING).ids) == {f"n{k}" for k in range(80) if k // 4 % 4 == 3}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("30,Oslo,170", "line 6: has 3 cells, but the header has 4"),
        ("30,Oslo,170,cat,extra", "line 6: has 5 cells"),
        (",Oslo,170,cat", "line 6: age is empty"),
        ("30,Oslo,nan,cat", "line 6: height is nan, not a finite number"),
        ("30,Oslo,-inf,cat", "line 6: height is -inf, not a finite number"),
        ("1e300,Oslo,170,cat", "line 6: age is 1e300, beyond what single precision holds (1e38)"),
        ("thirty,Oslo,170,cat", "line 6: age is 'thirty', not a number"),
        ("1_000,Oslo,170,cat", "line 6: age is '1_000', not a number"),
        ("30,Oslo,170,", "line 6: kind is empty"),
        ("x,Oslo,,cat", "line 6: age is 'x', not a number, height is empty"),
    ],
)
def test_each_kind_of_bad_row_is_named_by_line_and_column(tmp_path, row, says):
    lines = lines_of()
    lines[5] = row
    said = message(tmp_path, lines)
    assert says in said
    assert "1 of 60 rows" in said
    assert "data.bad_rows=skip" in said
    assert "data.categorical" in said
    skipped = read(tmp_path, lines, bad_rows="skip")
    assert sum(map(len, parts(skipped))) == 59
    assert len(skipped.left_out) == 1
    assert says in skipped.left_out[0]


def test_all_bad_rows_are_counted_and_the_first_ten_shown(tmp_path):
    lines = lines_of()
    for k in range(10, 33):
        lines[k] = lines[k].replace("Oslo", "").replace("Bergen", "").replace("Bodø", "") + ",extra"
    said = message(tmp_path, lines)
    assert "23 of 60 rows" in said
    assert "line 20:" in said
    assert "line 21:" not in said
    assert "and 13 more" in said
    assert len(read(tmp_path, lines, bad_rows="skip").left_out) == 23


@pytest.mark.parametrize("bad_rows", ["stop", "skip"])
def test_a_column_of_text_is_said_to_be_one(tmp_path, bad_rows):
    said = message(tmp_path, lines_of(), categorical=[], bad_rows=bad_rows)
    assert "column 'city' is not a finite number in 60 of 60 rows (line 2: 'Oslo')" in said
    assert "data.categorical" in said


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    lines = ['a,note,kind', '1,"two', 'lines",x', "", '2,plain,y', 'bad,plain,x']  # fmt: skip
    lines += [f"{k},plain,{'xy'[k % 2]}" for k in range(20)]
    said = message(tmp_path, "\r\n".join(lines), categorical=["note"])
    assert "line 6: a is 'bad'" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"age,city,height,kind\n", "no row that can be used, only a header"),
        (b"age,city,age,kind\n1,a,2,b\n", "the header has 'age' more than once"),
        (b"a\0b", "is not text"),
        ("age,city,height,kind\n1,Bodø,2,cat\n".encode("latin1"), "line 2 has the byte 0xf8, which is not UTF-8"),
        (b'age,city,height,kind\n1,a,2,b\n1,"a,2,b\n3,a,2,b\n', "line 3: .*quotation mark"),
        (b"age;city;height;kind\n1;a;2;b\n", r"no such column; is data.separator the right one\?"),
    ],
)
def test_what_is_no_table_is_said_in_one_message(tmp_path, content, says):
    with pytest.raises(ConfigError, match=f"data.*table.csv.*{says}"):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    for path, says in ((tmp_path / "no.csv", "there is no such file"), (tmp_path, "is a folder")):
        with pytest.raises(ConfigError, match=says):
            table.csv(file=str(path), target="kind", **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": "knd"}, r"data.target=knd: .*no such column \(did you mean 'kind'\?\); it has: age, city"),
        ({"categorical": ["cty"]}, r"data.categorical=cty: .*did you mean 'city'"),
        ({"ignore": ["kind"]}, "data.ignore=kind: is data.target already"),
        ({"id": "age", "group": "age"}, "data.id=age: is data.group already"),
        ({"separator": "::"}, "data.separator='::': must be one character"),
        ({"split": "grouped"}, "data.split=grouped: .*data.group=<column>"),
        ({"split": "predefined"}, "data.split=predefined: .*data.split_column=<column>"),
        ({"split_column": "city"}, "data.split_column=city: is read only with data.split=predefined"),
        ({"id": "city", "categorical": []}, "data.id=city: .*'Bergen' more than once"),
        ({"ignore": ["age", "height"], "categorical": [], "id": None, "group": "city"}, "no column is left"),
    ],
)
def test_roles_that_make_no_sense_are_named(tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        read(tmp_path, lines_of(), **changes)


def test_a_column_without_a_name_has_to_be_ignored(tmp_path):
    lines = [f",{lines_of()[0]}"] + [f"{k},{line}" for k, line in enumerate(lines_of()[1:])]
    assert "column 1 has no name" in message(tmp_path, lines)
    assert read(tmp_path, lines, ignore=["column 1"]).spec == read(tmp_path, lines_of()).spec


def test_a_target_of_one_label_is_refused(tmp_path):
    assert "every row has the same label, 'cat'" in message(
        tmp_path, [line.replace("dog", "cat") for line in lines_of()]
    )


def test_tabs_a_byte_order_mark_blanks_and_blank_lines_change_nothing(tmp_path):
    plain = read(tmp_path, lines_of())
    lines = [line.replace(",", " \t ") for line in lines_of()]
    other = read(tmp_path, ("\ufeff" + "\n".join(lines) + "\n\n"), separator="\\t")
    assert other.spec == plain.spec
    assert torch.equal(other.train.x, plain.train.x)


def marked(lines: list[str]) -> list[str]:
    """Rows 0 … 39 are train, 40 … 49 val, 50 … 59 test."""
    return [lines[0] + ",part"] + [
        f"{line},{'train' if k < 40 else 'val' if k < 50 else 'test'}" for k, line in enumerate(lines[1:])
    ]


PREDEFINED = {"split": "predefined", "split_column": "part"}


def test_a_category_that_train_lacks_is_a_bad_row_of_val(tmp_path):
    lines = lines_of()
    lines[45] = "30,Tromsø,170,cat"
    said = message(tmp_path, marked(lines), **PREDEFINED)
    assert "line 46: city=Tromsø: a category that train lacks" in said
    data = read(tmp_path, marked(lines), **PREDEFINED, bad_rows="skip")
    assert data.left_out == ["line 46: city=Tromsø: a category that train lacks"]
    assert len(data.val) == 9
    assert 46 not in data.val.ids
    assert len(data.train) == 40


@pytest.mark.parametrize("bad_rows", ["stop", "skip"])
def test_a_category_that_train_lacks_costs_test_that_row_alone_and_is_named(tmp_path, bad_rows):
    lines = lines_of()
    whole = read(tmp_path, marked(lines), **PREDEFINED).open_test(OPENING)
    lines[55] = "30,Tromsø,170,cat"
    data = read(tmp_path, marked(lines), **PREDEFINED, bad_rows=bad_rows)
    test = data.open_test(OPENING)
    assert data.left_out == []
    assert test.left_out == ["line 56: city=Tromsø: a category that train lacks"]
    assert list(test.ids) == [line for line in range(52, 62) if line != 56]
    assert torch.equal(test.x, whole.x[whole.ids != 56])
    assert torch.equal(test.y, whole.y[whole.ids != 56])


def test_an_empty_category_is_a_value_of_its_own(tmp_path):
    lines = [line.replace("Oslo", "") for line in lines_of()]
    data = read(tmp_path, lines)
    assert data.spec.features == ("age", "city=", "city=Bergen", "city=Bodø", "height")
    assert data.left_out == []


def test_the_width_is_that_of_trains_categories(tmp_path):
    lines = lines_of()
    lines[55] = "30,Tromsø,170,cat"
    assert "city=Tromsø" not in read(tmp_path, marked(lines), **PREDEFINED).spec.features


def test_the_identity_is_of_the_file_and_its_target(tmp_path):
    one = read(tmp_path, lines_of())
    assert one.identity() == read(tmp_path, lines_of(), split_seed=1, bad_rows="skip").identity()
    assert one.identity() != read(tmp_path, lines_of(), target="city", categorical=["kind"]).identity()
    assert one.identity() != read(tmp_path, lines_of(61)).identity()
    assert one.fingerprint() != read(tmp_path, lines_of(), split_seed=1).fingerprint()
