"""How a module shows itself: its settings on the line of its name, its parts below."""

from __future__ import annotations

from torch import nn


class SettingsFirst(nn.Module):
    """A module whose `repr` begins with its settings, as its `extra_repr` gives them, also where it has parts.

    Example:
        >>> class Scaled(SettingsFirst):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Identity()
        ...     def extra_repr(self):
        ...         return "scale=2.0"
        >>> Scaled()
        Scaled(scale=2.0,
          (net): Identity()
        )
    """

    def __repr__(self) -> str:
        text = super().__repr__()
        settings = self.extra_repr()
        below = f"{self._get_name()}(\n  {settings}\n"
        if not settings or not text.startswith(below):
            return text
        return f"{self._get_name()}({settings},\n{text.removeprefix(below)}"
