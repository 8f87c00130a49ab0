"""Tables of numbers, texts, identifiers and gaps: one fix reads them, and what a density should not have is told."""

import re
import shlex
import warnings

import numpy as np
import pytest
import torch

from pyro_dgm.datasets import File
from pyro_dgm.experiments.cli.command_line import main
from pyro_dgm.experiments.configuration.arguments import read_experiment
from pyro_dgm.files.errors import FileError

NUM = 120
GAP = 7  # every so manieth cell of a column with gaps is empty


def columns():
    """A column of each sort, the gaps as empty texts."""
    rng = np.random.default_rng(0)
    city = [["Bonn", "Köln", "Ulm"][row % 3] for row in range(NUM)]
    income = [str(value) for value in rng.lognormal(10.0, 0.5, NUM).round(2)]
    return {
        "id": list(range(1000, 1000 + NUM)),
        "date": [f"day {row}" for row in range(NUM)],
        "age": rng.integers(18, 90, NUM).tolist(),
        "income": ["" if row % GAP == 0 else value for row, value in enumerate(income)],
        "bmi": rng.normal(25.0, 4.0, NUM).round(1).tolist(),
        "smoker": ["yes" if row % 4 == 0 else "no" for row in range(NUM)],
        "city": ["" if row % GAP == 1 else name for row, name in enumerate(city)],
        "visits": rng.poisson(3.0, NUM).tolist(),
        "label": [row % 2 for row in range(NUM)],
    }


def write(path, table):
    lines = [",".join(table)]
    lines += [",".join(map(str, row)) for row in zip(*table.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "mixed.csv", columns())


def fix_of(path, flags):
    """The flags of the one fix, as a shell splits them."""
    with pytest.raises(
        ValueError, match="expected numbers, got 'day 0' in column 'date', row 1"
    ) as caught:
        _ = read_experiment(None, [f"--data={path}", *flags]).data
    fix = re.fullmatch(r".* Fix: (.*)\.", str(caught.value))[1]
    return shlex.split(fix)


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ([], ["--data.context=[smoker,city]", "--data.drop=[date]"]),
        (["--data.context=[smoker,city]"], ["--data.context=[smoker,city]", "--data.drop=[date]"]),
        (["--data.context=[city,age]"], ["--data.context=[city,age,smoker]", "--data.drop=[date]"]),
        (["--data.drop=[id]"], ["--data.context=[smoker,city]", "--data.drop=[id,date]"]),
        (["--data.missing=mask"], ["--data.context=[smoker,city]", "--data.drop=[date]"]),
    ],
)
@pytest.mark.filterwarnings("ignore:column 'id' has a different integer")
def test_a_mixed_table_has_one_fix_which_keeps_what_was_asked_for_and_works(table, given, fix):
    flags = fix_of(table, given)
    assert flags == [*fix, "--data.missing=mask"]
    data = read_experiment(None, [f"--data={table}", *flags]).data
    assert set(data.names) <= {"id", "age", "income", "bmi", "visits"}


def test_the_batch_that_is_context_unasked_stays_in_the_fix(tmp_path):
    table = {"x": [0.5, 1.5] * 20, "batch": [0, 1] * 20, "sex": ["f", "m"] * 20}
    with pytest.raises(ValueError, match=r"Fix: '--data\.context=\[batch,sex\]'\.$"):
        File(write(tmp_path / "t.csv", table))


def test_columns_of_texts_alone_have_no_flag_that_helps(tmp_path):
    with pytest.raises(
        FileError, match=r"got 'f' in column 'sex', row 1\. Fix: a table with a column"
    ):
        File(write(tmp_path / "t.csv", {"sex": ["f", "m"] * 20}))


def test_numbers_with_a_few_texts_are_told_apart_from_categories(tmp_path):
    table = {"x": [0.5, 1.5] * 20, "age": [*range(39), "n.d."]}
    with pytest.raises(
        ValueError,
        match=r"got 'n\.d\.' in column 'age', row 40\. Fix: '--data\.drop=\[age\]', or an empty cell "
        r"in place of 'n\.d\.', with --data\.missing=mask\.$",
    ):
        File(write(tmp_path / "t.csv", table))


def test_names_that_yaml_would_read_as_something_else_are_quoted(tmp_path):
    table = {"x": [0.5, 1.5] * 20, "no": ["f", "m"] * 20, "7": ["u", "v"] * 20}
    path = write(tmp_path / "t.csv", table)
    with pytest.raises(ValueError, match="expected numbers") as caught:
        File(path)
    (flag,) = shlex.split(re.fullmatch(r".* Fix: (.*)\.", str(caught.value))[1])
    assert flag == '--data.context=["no","7"]'
    assert read_experiment(None, [f"--data={path}", flag]).data.num_context == 4


@pytest.mark.filterwarnings("ignore:column 'id' has a different integer")
def test_dropped_columns_are_not_read(table):
    data = File(table, context=["smoker"], drop=["date", "city"], missing="mask")
    assert data.names == ["id", "age", "income", "bmi", "visits"]
    assert "data: not read: date, city (--data.drop)" in data.said
    of_yaml = {"class_path": "File", "init_args": {"path": table, "drop": ["date", "city", "id"]}}
    of_yaml["init_args"] |= {"context": ["smoker"], "missing": "mask"}
    assert read_experiment({"data": of_yaml}).data.names == data.names[1:]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"drop": ["dat", "id"]}, r"data\.drop: .*got 'dat', did you mean 'date'\. Fix: '--data\.drop=\[date,id\]'"),
        ({"drop": ["qqq"]}, r"data\.drop: .*got 'qqq'\. Fix: leave --data\.drop out\."),
        ({"drop": ["city", "id"], "context": ["city"]}, r"nor context, got 'city'\. Fix: '--data\.drop=.id.'"),
        ({"context": ["smokr", "city"]}, r"did you mean 'smoker'\. Fix: '--data\.context=\[smoker,city\]'"),
        ({"drop": list(columns())}, r"expected a column of data, got --data\.drop of all"),
    ],
)  # fmt: skip
def test_names_to_drop_that_do_not_fit_are_refused(table, options, match):
    with pytest.raises(ValueError, match=match):
        File(table, **options)


def test_arrays_have_no_columns_to_drop(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(30, 2)))
    with pytest.raises(ValueError, match=r"data\.drop: expected none .* since it is for tables"):
        File(str(tmp_path / "x.npz"), drop=["a"])


def gaps():
    rng = np.random.default_rng(0)
    table = columns()
    kept = {name: table[name] for name in ("income", "city", "label")}
    kept["bmi"] = table["bmi"]
    kept["visits"] = ["" if row % GAP == 2 else row % 5 for row in range(NUM)]
    kept["label"] = ["" if row % GAP == 3 else row % 2 for row in range(NUM)]
    kept["height"] = rng.normal(size=NUM).round(2).tolist()
    return kept


def rows_of(data, table):
    """The rows of the file that the training data are, by a column without gaps and repetitions."""
    place = data.names.index("height")
    return [table["height"].index(value) for value in data.train[:, place].tolist()]


def test_what_is_missing_beside_the_data_is_a_category_or_a_further_column(tmp_path):
    table = gaps()
    table["height"] = (np.arange(NUM) * 1.5 % 7.3).tolist()
    path = write(tmp_path / "t.csv", table)
    data = File(path, context=["city", "visits"], missing="mask")
    rows = rows_of(data, table)
    city, visits, _ = data.context["train"]
    categories = ["(missing)", "Bonn", "Köln", "Ulm"]
    expected = [categories.index(table["city"][row] or "(missing)") for row in rows]
    assert city.argmax(1).tolist() == expected
    is_there = torch.tensor([table["visits"][row] != "" for row in rows])
    assert torch.equal(visits[:, 1] == 1, is_there)
    assert bool((visits[~is_there, 0] == 0).all())
    seen = torch.tensor([float(table["visits"][row] or 0) for row in rows])[is_there]
    exact = (seen - seen.mean()) / seen.std(correction=0)
    torch.testing.assert_close(visits[is_there, 0], exact.to(visits.dtype))
    assert data.classes == ["(missing)", "0", "1"]
    classes = [
        data.classes.index(str(table["label"][row]) if table["label"][row] != "" else "(missing)")
        for row in rows
    ]
    assert data.labels["train"].tolist() == classes
    said = "\n".join(data.said)
    assert "context: city: 4 categories, one-hot, the missing ones are one of them" in said
    assert (
        "context: visits: 1 number, standardized by the training data, and where they are" in said
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"context": ["city"]}, r"got none in 'city', row 2\. Fix: --data\.missing=mask \(missing is a category"),
        ({"context": ["visits"]}, r"got none in 'visits', row 3\. Fix: --data\.missing=mask \(a further column"),
        ({"labels": "label"}, r"got none in 'label', row 4\. Fix: --data\.missing=mask \(missing is a category"),
    ],
)  # fmt: skip
def test_what_is_missing_beside_the_data_is_refused_with_a_fix_that_works(tmp_path, options, match):
    table = {name: gaps()[name] for name in ("bmi", *options.get("context", ["label"]))}
    path = write(tmp_path / "t.csv", table)
    with pytest.raises(FileError, match=match):
        File(path, **options)
    assert File(path, missing="mask", **options).has_mask


def test_infinite_context_is_told_from_a_missing_one(tmp_path):
    path = write(tmp_path / "t.csv", {"x": [0.5, 1.5] * 20, "age": [3.5, "inf"] * 20})
    with pytest.raises(FileError, match=r"expected finite numbers, got inf in 'age', row 2"):
        File(path, context=["age"], missing="mask")


def test_truths_with_gaps_are_numbers_and_no_texts(tmp_path):
    path = write(tmp_path / "t.csv", {"a": [True, False, ""] * 20, "b": [1, 0, 1] * 20})
    data = File(path, missing="mask")
    assert data.levels == 2
    assert set(data.train.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("values", "is_suspect"),
    [
        (range(1000, 1000 + NUM), True),
        (np.random.default_rng(0).permutation(NUM) + 7, True),
        (np.cumsum(np.random.default_rng(0).integers(1, 9, NUM)), True),
        (np.random.default_rng(0).permutation(10 * NUM)[:NUM], False),
        (np.sort(np.random.default_rng(0).poisson(900, NUM)), False),
        (np.arange(NUM) + 0.5, False),
    ],
    ids=["consecutive", "shuffled", "monotone", "prices", "sorted counts", "reals"],
)
def test_a_column_of_identifiers_is_warned_of_and_no_other(tmp_path, recwarn, values, is_suspect):
    table = {"key": list(values), "bmi": columns()["bmi"]}
    File(write(tmp_path / "t.csv", table))
    said = [str(warning.message) for warning in recwarn]
    what = "column 'key' has a different integer in every row: an identifier?"
    assert said == ([f"{what} Leave it out: '--data.drop=[key]'"] if is_suspect else [])


def test_a_warning_is_a_line_of_the_command_line_also_of_a_quiet_one(tmp_path, capsys):
    table = {"key": range(NUM), "bmi": columns()["bmi"]}
    path = write(tmp_path / "t.csv", table)
    small = [
        "--epochs=1",
        "--evaluation.num=5",
        "--device=cpu",
        "--quiet",
        f"--out={tmp_path / 'run'}",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["fit", f"--data={path}", *small])
    lines = capsys.readouterr().err.splitlines()
    what = "column 'key' has a different integer in every row: an identifier?"
    assert [line for line in lines if "key" in line] == [
        f"warning: {what} Leave it out: '--data.drop=[key]'"
    ]


@pytest.mark.parametrize("values", [[3] * NUM, [3, ""] * (NUM // 2), [""] * NUM])
def test_a_column_of_one_real_number_or_none_is_warned_of(tmp_path, values):
    path = write(tmp_path / "t.csv", {"bmi": columns()["bmi"], "unit": values})
    with pytest.warns(UserWarning, match=r"column 'unit' has one value or none in all rows, where"):
        File(path, missing="mask")


def test_identifiers_and_constants_are_left_out_by_one_flag(tmp_path, recwarn):
    table = {"bmi": columns()["bmi"], "key": range(NUM), "unit": [3] * NUM}
    File(write(tmp_path / "t.csv", table))
    assert len(recwarn) == 2
    for warning in recwarn:
        assert str(warning.message).endswith(" Leave it out: '--data.drop=[key,unit]'")


def test_a_text_that_all_rows_have_is_no_context(tmp_path):
    path = write(tmp_path / "t.csv", {"bmi": columns()["bmi"], "country": ["CH"] * NUM})
    with pytest.raises(FileError, match=r"Fix: '--data\.drop=\[country\]'\.$"):
        File(path)


def test_the_names_of_columns_are_said_as_far_as_they_go_on_a_line(tmp_path):
    rng = np.random.default_rng(0)
    table = {f"column{place}": rng.normal(size=30).tolist() for place in range(9)}
    (line, *_) = File(write(tmp_path / "t.csv", table)).said
    assert line.startswith(
        "data: 30 rows of 9 columns (column0, column1, column2, column3, column4, column5, …), "
    )


@pytest.mark.parametrize("value", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("number", ["f8", "i8", "u1"])
def test_numbers_that_are_all_the_same_are_refused(tmp_path, value, number):
    np.save(tmp_path / "x.npy", np.full((30, 2), value).astype(number))
    with pytest.raises(
        FileError, match=r"expected numbers that differ, got \d\.?5? in every place"
    ):
        File(str(tmp_path / "x.npy"))


def test_whole_numbers_in_floats_are_counts_with_a_warning(tmp_path, recwarn):
    np.save(tmp_path / "x.npy", np.arange(50.0))
    with pytest.warns(
        UserWarning, match=r"all numbers are whole, though of dtype float64: .*--data\.kind=real"
    ):
        data = File(str(tmp_path / "x.npy"))
    assert (data.kind.value, data.event_shape) == ("counts", (1,))
    File(str(tmp_path / "x.npy"), kind="counts")
    np.save(tmp_path / "x.npy", np.where(np.arange(50) % 9, np.arange(50.0), np.nan))
    File(str(tmp_path / "x.npy"), missing="mask")  # integers can't hold what is missing
    assert not recwarn.list


def test_one_row_is_too_few_in_plain_words(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1, 3)))
    with pytest.raises(
        FileError, match=r"expected 6 rows or more, 2 to train .*, got 1 row\. Fix: more"
    ):
        File(str(tmp_path / "x.npy"))
