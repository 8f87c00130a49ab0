"""What files and flags say together, as one tree of settings, before anything is looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

CLASS, SETTINGS = "class_path", "init_args"


class Word(str):
    """The value of a flag: text that each type reads in its own way."""


def settings_said(arguments: Sequence[str]) -> dict[str, Any]:
    r"""The tree that plain arguments make, the last of them first.

    Example:
        >>> settings_said(["--config={\"epochs\": 3}", "--model=VAE", "--model.prior.layers=4"])
        {'epochs': 3, 'model': {'class_path': 'VAE', 'init_args': {'prior': {'layers': '4'}}}}
    """
    tree: dict[str, Any] = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name == "config":
            tree = _merged(tree, json.loads(value))
            continue
        node: Any = [_read(value)] if name.endswith("+") else _read(value)
        for part in reversed(name.removesuffix("+").split(".")):
            node = {part: node}
        tree = _merged(tree, node)
    return tree


def class_and_settings(value: Any) -> tuple[str | None, dict[str, Any]]:
    """The class that a value names, if it does, and the settings of it."""
    if isinstance(value, str):
        return value, {}
    settings = dict(value)
    name = settings.pop(CLASS, None)
    inner = settings.pop(SETTINGS, None)
    if inner is None:
        return name, settings
    return name, {**inner, **settings} if isinstance(inner, Mapping) else {SETTINGS: inner}


def _read(value: str) -> Any:
    """A flag's value: containers as such, everything else as text."""
    if value[:1] in ("{", "["):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            pass
    return Word(value)


def _merged(before: Any, after: Any) -> Any:
    if isinstance(after, str) and isinstance(before, Mapping):
        if CLASS not in before:
            return {CLASS: after, SETTINGS: dict(before)}
        is_same = str(before[CLASS]).rpartition(".")[2] == after.rpartition(".")[2]
        return before if is_same else after
    if not isinstance(after, Mapping):
        return after
    if isinstance(before, str):
        before = {CLASS: before}
    if not isinstance(before, Mapping) or after.get(CLASS, before.get(CLASS)) != before.get(CLASS):
        return after
    if CLASS in before and CLASS not in after and SETTINGS not in after:
        after = {SETTINGS: after}
    merged = dict(before)
    for name, value in after.items():
        merged[name] = _merged(merged[name], value) if name in merged else value
    return merged
