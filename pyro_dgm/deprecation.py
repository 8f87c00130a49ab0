"""Old names that are still answered: a keyword that was renamed warns and names the new one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accept old keywords under a `DeprecationWarning`; the signature that help and editors show is the new one.

    Args:
        renamed: new keywords by old ones.

    Raises:
        TypeError: in the call, if it has both the old and the new keyword.

    Example:
        >>> @renamed_argument(law="transformer")
        ... def layer(transformer):
        ...     return transformer
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     layer(law="affine"), str(caught[0].message)
        ('affine', 'layer: law= is now transformer=. Fix: layer(…, transformer=…).')
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def with_old_keywords(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in renamed.items():
                if old not in kwargs:
                    continue
                fix = f"Fix: {name}(…, {new}=…)."
                if new in kwargs:
                    raise TypeError(f"{name}: expected {new}= alone, got {old}= as well. {fix}")
                message = f"{name}: {old}= is now {new}=. {fix}"
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return with_old_keywords

    return decorate
