"""The option `compile=` of trainers and estimates: what it may be, and what `"auto"` says where there is no graph."""

from __future__ import annotations

import warnings
from typing import Any

AUTO = "auto"
FIX = "Fix: compile='auto', for where there can be kernels."


def check_compile(compile: Any, *, takes_mode: bool = False) -> None:
    """Refuse what is neither a truth value nor `"auto"`, nor the name of a mode of `torch.compile` where it may be one.

    Args:
        compile: what was handed over.
        takes_mode: whether it may name a mode, as a trainer's does.

    Raises:
        TypeError: for another kind of value.
        ValueError: for another word, with the modes that there are.
    """
    expected = (
        "True, False, 'auto' or the name of a mode" if takes_mode else "True, False or 'auto'"
    )
    if not isinstance(compile, (bool, str)):
        raise TypeError(f"compile: expected {expected}, got {compile!r}. {FIX}")
    if isinstance(compile, bool) or compile == AUTO:
        return
    if takes_mode:
        from torch._inductor import list_mode_options  # a second of imports, and only here needed

        modes = list(list_mode_options())
        expected = f"True, False, 'auto' or one of {modes}"
        if compile in modes:
            return
    raise ValueError(f"compile: expected {expected}, got {compile!r}. {FIX}")


def mode_of(compile: bool | str) -> str | None:  # noqa: FBT001
    """The mode of the compiler that an option names, if it names one."""
    return compile if isinstance(compile, str) and compile != AUTO else None


class FallBack:
    r"""Says by one warning that steps run eager, and why; whatever happens later, it has been said.

    Args:
        owner: whose steps they are.

    Attributes:
        said: what was said; trainers of one declaration share it.

    Example:
        >>> fall_back = FallBack("SVITrainer")
        >>> fall_back.reason(ValueError("compile: the program reads a value. Fix: torch.where."))
        'the program reads a value. Fix: torch.where.'
        >>> fall_back.reason(RuntimeError("no C++ compiler\nfound"))
        'RuntimeError: no C++ compiler found.'
    """

    def __init__(self, owner: str):
        self.owner = owner
        self.said: list[str] = []

    @classmethod
    def of(cls, owner: str, compile: bool | str) -> FallBack | None:  # noqa: FBT001
        """That of an option, which only `"auto"` has."""
        return cls(owner) if compile == AUTO else None

    def __call__(self, error: Exception) -> None:
        """Take an error that has kept a program from becoming kernels."""
        if self.said:
            return
        message = (
            f"{self.owner}: compile='auto' takes eager steps: {self.reason(error)} "
            "Fix: compile=False, which takes the same steps and says nothing."
        )
        self.said.append(message)
        warnings.warn(message, stacklevel=2)

    @staticmethod
    def reason(error: Exception) -> str:
        """An error as one line."""
        line = " ".join(str(error).split())
        if line.startswith("compile: "):
            return line.removeprefix("compile: ")
        return f"{type(error).__name__}: {line.rstrip('.')}."
