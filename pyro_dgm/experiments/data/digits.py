"""The handwritten digits that scikit-learn carries."""

from __future__ import annotations

import torch

from .datasets import Data
from .splits import shuffle


class Digits(Data):
    """The 1,797 handwritten 8×8 digits of scikit-learn: integers 0, …, 16, shuffled once by a fixed seed.

    Args:
        num_val: size of the validation split.
        num_test: size of the test split.

    References:
        Alpaydin, Kaynak 1998, *Optical recognition of handwritten digits*, UCI machine learning repository.
    """

    def __init__(self, num_val: int = 150, num_test: int = 300):
        from sklearn.datasets import load_digits

        images = torch.as_tensor(load_digits().data, dtype=torch.get_default_dtype())
        num_train = len(images) - num_val - num_test
        if min(num_train, num_val, num_test) < 1:
            raise ValueError(
                f"Digits: expected non-empty splits of {len(images)} images, got num_val={num_val} "
                f"and num_test={num_test}. Fix: Digits(num_val=150, num_test=300)."
            )
        test, val, train = shuffle(images, seed=0).split([num_test, num_val, num_train])
        super().__init__(train, val, test, event_shape=(8, 8), levels=17)
