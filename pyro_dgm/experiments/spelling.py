"""What a mistyped name may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The nearest of some names, whatever its case; nothing if none is near.

    Args:
        name: what was written.
        names: what may stand there.
        cutoff: the least likeness, of 0 to 1, as `difflib` measures it.

    Example:
        >>> nearest("realnpv", ["MAF", "RealNVP"])
        'RealNVP'
    """
    by_case = {known.lower(): known for known in names}
    found = get_close_matches(name.lower(), by_case, n=1, cutoff=cutoff)
    return by_case[found[0]] if found else None
