"""The stack of bits: exact inverses, and as many bits as the probabilities say."""

import numpy as np
import pytest

from pyro_dgm.compression.stack import PRECISION, EmptyStackError, Reservoir, Stack

WHOLE = 1 << PRECISION


def coins_and_counts(seed, num_data, columns, sharpness):
    random = np.random.default_rng(seed)
    logits = sharpness * random.standard_normal((num_data, columns))
    probability = 1 / (1 + np.exp(-logits))
    counts = np.clip(np.rint(probability * WHOLE), 1, WHOLE - 1).astype(np.uint64)
    return random.random((num_data, columns)) >= counts / WHOLE, counts


def state(stack):
    return stack.heads.tolist(), stack.tail.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_pop_undoes_push(seed):
    random = np.random.default_rng(seed)
    lanes, columns = int(random.integers(1, 10)), int(random.integers(0, 40))
    sharpness = float(random.choice([0.0, 1.0, 5.0, 30.0]))
    stack = Stack.random(Reservoir(lanes + 2, seed))  # lanes beyond the data stay as they are
    before = state(stack)
    coins, counts = coins_and_counts(seed, lanes, columns, sharpness)
    stack.push(coins, counts)
    assert np.array_equal(stack.pop(counts), coins)
    assert state(stack) == before


@pytest.mark.parametrize("seed", range(40))
def test_push_undoes_pop_of_random_bits(seed):
    random = np.random.default_rng(seed)
    reservoir = Reservoir(int(random.integers(1, 10)), seed)
    stack = Stack.random(reservoir)
    _, counts = coins_and_counts(seed, reservoir.lanes, int(random.integers(0, 40)), 3.0)
    stack.push(stack.pop(counts), counts)
    assert stack.holds(reservoir, stack.num_borrowed)


def test_what_was_pushed_last_is_popped_first():
    stack = Stack.random(Reservoir(4, 0))
    rounds = [coins_and_counts(seed, num, 7, 2.0) for seed, num in enumerate((4, 1, 3, 2))]
    for coins, counts in rounds:
        stack.push(coins, counts)
    for coins, counts in reversed(rounds):
        assert np.array_equal(stack.pop(counts), coins)


@pytest.mark.parametrize("probability", [0.5, 0.1, 0.9999])
def test_a_source_takes_its_entropy_to_a_thousandth(probability):
    random = np.random.default_rng(0)
    counts = np.full((50, 4_000), round(probability * WHOLE), np.uint64)
    coins = random.random(counts.shape) >= probability
    stack = Stack.random(Reservoir(50, 0))
    stack.push(coins, counts)
    of_zero = counts[0, 0] / WHOLE
    expected = -(np.log2(of_zero) * (~coins).sum() + np.log2(1 - of_zero) * coins.sum())
    assert stack.bits - stack.initial_bits == pytest.approx(expected, rel=1e-4)
    assert 32 * len(stack.tail) + 64 * 50 >= stack.bits


def test_popped_coins_have_the_probability_that_was_asked_for():
    """200,000 coins of probability 0.2: a standard error of 0.0009."""
    counts = np.full((50, 4_000), round(0.8 * WHOLE), np.uint64)
    coins = Stack.random(Reservoir(50, 3)).pop(counts)
    assert abs(coins.mean() - 0.2) < 5 * 0.0009


def test_words_are_borrowed_only_where_there_are_none():
    stack = Stack.random(Reservoir(2, 0))
    coins, counts = coins_and_counts(0, 2, 100, 0.0)
    stack.push(coins, counts)
    stack.pop(counts)
    assert stack.num_borrowed == 0
    stack.pop(counts)
    assert stack.num_borrowed > 0


def test_a_stack_without_a_reservoir_can_be_empty():
    stack = Stack(np.full(2, 1 << 32, np.uint64), np.empty(0, np.uint32))
    with pytest.raises(EmptyStackError, match="expected bits on the stack, got none"):
        stack.pop(np.full((2, 100), WHOLE // 2, np.uint64))


def test_words_of_a_reservoir_do_not_depend_on_how_many_are_asked_for():
    reservoir = Reservoir(3, 7)
    assert np.array_equal(reservoir.words(10)[-4:], reservoir.words(4))


def test_scrambling_twice_changes_nothing():
    reservoir = Reservoir(5, 2)
    stack = Stack.random(reservoir)
    stack.scramble(30, 1, 4)
    assert not stack.holds(reservoir, 30)
    assert stack.bits == pytest.approx(stack.initial_bits, abs=5)
    stack.scramble(30, 1, 4)
    assert stack.holds(reservoir, 30)


@pytest.mark.parametrize("head", [2**64 - 1, 2**63, 2**40 + 12_345, 2**32])
@pytest.mark.parametrize("probability", [0.5, 0.1])
def test_scrambled_bits_are_random_whatever_they_were(head, probability):
    """5,000 coins of equal heads at each of 100 steps, also before the first words: a standard error of 0.007."""
    lanes = 5_000
    stack = Stack(np.full(lanes, head, np.uint64), np.full(20_000, 2**32 - 1, np.uint32))
    stack.scramble(20_000, 0)
    coins = stack.pop(np.full((lanes, 100), round((1 - probability) * WHOLE), np.uint64))
    error = np.sqrt(probability * (1 - probability) / lanes)
    assert np.abs(coins.mean(0) - probability).max() < 5 * error


def test_scrambling_leaves_the_number_of_bits():
    """Of each head to an eighth."""
    heads = np.array([2**32, 2**33 - 1, 2**47 + 2**46, 2**64 - 1], np.uint64)
    stack = Stack(heads, np.zeros(10, np.uint32))
    stack.scramble(10, 3)
    assert np.abs(np.log2(stack.heads) - np.log2(heads)).max() < np.log2(1 + 1 / 8)
