import pytest

import pyro_dgm as dgm


def history():
    return dgm.results.History(
        [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0, "val_loss": 1.5}]
    )


def test_a_column_holds_the_epochs_that_have_it():
    assert history().column("train_loss") == [2.0, 1.0]
    assert history().column("val_loss") == [1.5]


def test_an_unknown_column_raises_with_the_names_there_are():
    with pytest.raises(
        KeyError, match=r"expected one of \['epoch', 'train_loss', 'val_loss'\], got 'loss'"
    ):
        history().column("loss")


def test_it_is_a_sequence_of_rows():
    rows = history()
    assert len(rows) == 2
    assert rows[-1] == {"epoch": 2, "train_loss": 1.0, "val_loss": 1.5}
    assert list(rows) == rows.rows
    assert len(dgm.results.History()) == 0


def test_the_table_has_a_line_per_epoch_and_blanks_where_nothing_was_measured():
    lines = str(history()).splitlines()
    assert [line.split() for line in lines] == [
        ["epoch", "train_loss", "val_loss"],
        ["1", "2"],
        ["2", "1", "1.5"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_rows_are_copies():
    row = {"epoch": 1}
    rows = dgm.results.History()
    rows.append(row)
    row["epoch"] = 9
    assert rows[0] == {"epoch": 1}


def test_it_is_a_table_of_pandas_with_nan_where_nothing_was_measured():
    table = history().to_dataframe()
    assert list(table.columns) == ["epoch", "train_loss", "val_loss"]
    assert table["train_loss"].tolist() == [2.0, 1.0]
    assert table["val_loss"].isna().tolist() == [True, False]
    assert "<table" in history()._repr_html_()


def test_its_repr_is_one_line():
    assert repr(history()) == "History(2 epochs of epoch, train_loss, val_loss)"
    assert repr(dgm.results.History()) == "History(0 epochs of nothing)"
