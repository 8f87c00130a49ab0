"""What is chosen where nothing is asked for, what can be asked for, and what contradicts the numbers."""

import numpy as np
import pytest
import torch

from pyro_dgm.datasets import File, Kind

RNG = np.random.default_rng(0)
BITS = RNG.random((30, 6)) < 0.5
BYTES = RNG.integers(0, 256, (30, 2, 3), dtype=np.uint8)
FEW = RNG.integers(0, 17, (30, 2, 3))
FEW[0, 0, 0] = 16
COUNTS = RNG.poisson(4.0, (30, 6))
REALS = RNG.normal(size=(30, 6))


@pytest.fixture
def read(tmp_path):
    def reader(array, **options):
        np.save(tmp_path / "x.npy", array)
        return File(str(tmp_path / "x.npy"), **options)

    return reader


@pytest.mark.parametrize(
    ("array", "kind", "levels"),
    [
        (BITS, Kind.BINARY, 2),
        (BITS.astype(float), Kind.BINARY, 2),
        (BYTES, Kind.LEVELS, 256),
        (FEW, Kind.LEVELS, 17),
        (FEW.astype(float), Kind.LEVELS, 17),
        (FEW * 1000, Kind.COUNTS, None),
        (FEW.reshape(30, 6), Kind.COUNTS, None),
        (COUNTS, Kind.COUNTS, None),
        (-COUNTS, Kind.REAL, None),
        (REALS, Kind.REAL, None),
        (REALS[:, 0], Kind.REAL, None),
    ],
)
def test_kind_and_levels_are_found_by_the_numbers_and_the_shape(read, array, kind, levels):
    data = read(array)
    assert (data.kind, data.levels) == (kind, levels)
    assert kind is not Kind.LEVELS or "(--data.levels)" in data.said[0]
    assert kind is Kind.LEVELS or "--data.kind" in data.said[0]


@pytest.mark.parametrize(
    ("array", "options", "kind", "levels"),
    [
        (COUNTS, {"levels": 100}, Kind.LEVELS, 100),
        (COUNTS, {"kind": "levels"}, Kind.LEVELS, COUNTS.max() + 1),
        (COUNTS, {"kind": "real"}, Kind.REAL, None),
        (BITS, {"kind": "counts"}, Kind.COUNTS, None),
        (BITS, {"kind": "real"}, Kind.REAL, None),
        (BITS, {"levels": 3}, Kind.LEVELS, 3),
        (BITS, {"kind": "binary"}, Kind.BINARY, 2),
        (BYTES, {"kind": "counts"}, Kind.COUNTS, None),
    ],
)
def test_what_is_asked_for_holds(read, array, options, kind, levels):
    data = read(array, **options)
    assert (data.kind, data.levels) == (kind, levels)


@pytest.mark.parametrize(
    ("array", "options", "match"),
    [
        (
            COUNTS,
            {"levels": 4},
            r"expected integers 0, …, 3, got \d+ in column \d, row \d.*levels=",
        ),
        (REALS, {"levels": 4}, r"expected integers 0, …, 3, got .*Fix: --data\.kind=real"),
        (REALS, {"kind": "counts"}, r"expected counts 0, 1, …, got "),
        (
            -COUNTS,
            {"kind": "levels"},
            r"expected integers 0, 1, …, got -\d+ .*Fix: --data\.kind=real",
        ),
        (COUNTS, {"kind": "binary"}, r"expected integers 0, …, 1, got "),
        (COUNTS, {"kind": "counts", "levels": 9}, r"data\.levels: expected none with kind=counts"),
        (COUNTS, {"levels": 1}, r"data\.levels: expected 2 or more, got 1"),
        (
            COUNTS,
            {"val": 29},
            r"expected 2 rows or more to train, got 30 rows, 3 to test and 29 to validate\. Fix: smaller",
        ),
        (COUNTS, {"val": 1}, r"data\.val: expected a share .* or a number of rows from 2, got 1 "),
        (
            COUNTS,
            {"test": 2.5},
            r"data\.test: expected a share .*got 2\.5 .*Fix: --data\.test=0\.1",
        ),
        (COUNTS, {"test": -0.5}, r"data\.test: expected a share "),
        (COUNTS, {"test": float("nan")}, r"data\.test: expected a share .*got nan"),
        (COUNTS, {"split_seed": -1}, r"data\.split_seed: expected 0, …, 2\*\*63 - 1, got -1"),
        (COUNTS, {"split_seed": 2**64}, r"data\.split_seed: expected "),
        (
            COUNTS,
            {"size": 4},
            r"data\.size: expected none for .*since it is for pictures in a folder",
        ),
        (COUNTS, {"layer": "raw"}, r"data\.layer: expected none for .*h5ad files, got raw"),
        (COUNTS, {"binarize": "fixed"}, r"data\.binarize: expected levels, or numbers from 0 to 1"),
        (BYTES, {"binarize": "dynamc"}, r"data\.binarize: expected no, dynamic, .*got 'dynamc'"),
        (BYTES, {"binarize": 1.5}, r"data\.binarize: .*a threshold between 0 and 1, got 1\.5"),
    ],
)
def test_what_contradicts_the_numbers_is_refused(read, array, options, match):
    with pytest.raises(ValueError, match=match):
        read(array, **options)


def test_splits_are_shares_or_numbers(read):
    data = read(COUNTS, val=0.2, test=5)
    assert [len(part) for part in (data.train, data.val, data.test)] == [19, 6, 5]


@pytest.mark.parametrize("array", [BYTES, FEW, FEW / 16])
def test_images_are_binarized_anew_in_each_epoch(read, array):
    data = read(array, binarize="dynamic")
    raw = read(array)
    assert (data.kind, data.levels, data.dynamic) == (Kind.BINARY, 2, True)
    assert set(data.val.unique().tolist()) | set(data.test.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(data.val, read(array, binarize="dynamic").val)
    batches = data.batches(30)
    draws = torch.stack([next(batches.in_order().epoch())[0] for _ in range(4000)])
    high = {"uint8": 255, "int64": 16}.get(array.dtype.name, 1)
    p = raw.train / high
    stderr = (p * (1 - p) / 4000).sqrt()
    assert bool(((draws.mean(0) - p).abs() <= 5 * stderr + 1e-9).all())


def test_one_fixed_draw_and_thresholds_are_not_dynamic(read):
    before = torch.get_rng_state()
    fixed = read(BYTES, binarize="fixed")
    assert torch.equal(before, torch.get_rng_state())
    assert (fixed.kind, fixed.dynamic) == (Kind.BINARY, False)
    assert torch.equal(fixed.train, read(BYTES, binarize="fixed").train)
    raw = read(BYTES)
    assert torch.equal(read(BYTES, binarize=0.5).train, (raw.train > 127).to(fixed.train.dtype))
    few = read(FEW, binarize=0.25)
    assert torch.equal(few.train, (read(FEW).train > 4).to(few.train.dtype))


def test_counts_beyond_the_digits_of_float32_stay_integers(read):
    torch.set_default_dtype(torch.float32)
    try:
        data = read(COUNTS * 10**7 + 1)
        assert data.train.dtype is torch.int64
        assert read(COUNTS).train.dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float64)


def test_numbers_beyond_the_dtype_are_refused(read):
    torch.set_default_dtype(torch.float32)
    try:
        with pytest.raises(
            ValueError, match=r"expected numbers that torch\.float32 holds, got -1e\+39"
        ):
            read(REALS.clip(-1, 1) - 1e39 * (REALS < -1))
    finally:
        torch.set_default_dtype(torch.float64)


def test_missing_paths_are_answered_with_the_nearest_name(tmp_path):
    np.save(tmp_path / "digits.npy", COUNTS)
    with pytest.raises(
        ValueError,
        match=r"digts\.npy: expected a file or a folder of data, got no such file in .*, did "
        r"you mean 'digits\.npy'\. Fix: --data\.path=.*digits\.npy",
    ):
        File(str(tmp_path / "digts.npy"))
    with pytest.raises(ValueError, match=r"/nowhere/x\.npy: .*, got no such file, and no folder /"):
        File("nowhere/x.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected a folder of pictures, .*, got none"):
        File(str(tmp_path / "empty"))
    (tmp_path / "x.xlsx").write_text("text")
    with pytest.raises(ValueError, match=r"x\.xlsx: expected a file of data .*got the suffix"):
        File(str(tmp_path / "x.xlsx"))
