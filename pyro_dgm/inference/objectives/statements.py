"""`pyro.param` statements of the programs: their unconstrained leaves as parameters of an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import nn
from torch.distributions import transform_to

OF_MODULE = "$$$"  # in the names of a `pyro.module` statement
BASELINE = (
    "__baseline_"  # how Pyro calls the averages that its estimators keep, and move, themselves
)


class Statements(nn.ParameterDict):
    """Leaves of `pyro.param` statements by name; they are those of Pyro's store, which the programs read.

    So a step, a checkpoint and an average move what every estimate sees.
    """

    def adopt(self, name: str) -> nn.Parameter | None:
        """Make a parameter of a leaf in Pyro's store, and put it there in its place.

        Returns:
            The parameter; none if there was one already, whose value is now that of the store.
        """
        key = _key(name)
        store = pyro.get_param_store()
        found = store._params[name]
        leaf = found if isinstance(found, nn.Parameter) else nn.Parameter(found.detach())
        is_known = key in self
        if is_known:  # somebody has cleared the store, and the statement has begun anew
            leaf = self[key]
            leaf.data.copy_(found.detach())
        store._params[name] = leaf  # as PyroModule does with its own parameters
        store._param_to_name[leaf] = name
        self[key] = leaf
        return None if is_known else leaf

    def release(self, name: str) -> None:
        """Forget a leaf that was adopted; it stays in Pyro's store."""
        del self[_key(name)]

    def read(self) -> Messenger:
        """A handler under which programs read the leaves here, so that a graph finds them among its inputs."""
        return _Reading(self)


class _Reading(Messenger):
    """Takes the value of a statement from a module in place of Pyro's store."""

    def __init__(self, statements: Statements):
        super().__init__()
        self.statements = statements

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        key = _key(msg["name"])
        if key in self.statements:
            constraint = pyro.get_param_store()._constraints[msg["name"]]
            leaf = self.statements[key]
            msg["value"] = transform_to(constraint)(leaf)


class SeenStatements(Messenger):
    """Remembers which `pyro.param` statements have run under it, whatever program they stand in.

    The baselines of `TraceGraph_ELBO` are none of a program's: no optimizer moves them. A `pyro.module` statement only
    registers what a module holds, whatever Pyro's store has under that name from another program: it runs with the
    parameters of its module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._registered: dict[str, Any] = {}  # by `pyro.module`
        self._num_asked = 0

    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        name, arguments = msg["name"], msg["args"]
        if name.startswith(BASELINE) or name in self.names:
            return
        if OF_MODULE in name and len(arguments) > 1:
            if not isinstance(
                arguments[1], nn.Parameter
            ):  # a graph has put its inputs into the module
                return
            self._registered[name] = arguments[1]
        self.names.append(name)

    def foreign_to(self, module: nn.Module) -> list[str]:
        """Names of those whose leaves are no parameters of a module."""
        return self._foreign(self.names, module)

    def new_foreign_to(self, module: nn.Module) -> list[str]:
        """The same of those that have first run since this was last asked; next to free where none has."""
        new = self.names[self._num_asked :]
        self._num_asked = len(self.names)
        return self._foreign(new, module) if new else []

    def _foreign(self, names: Sequence[str], module: nn.Module) -> list[str]:
        """Names of the leaves that the programs ran with and that are no parameters of a module."""
        own = {id(p) for p in module.parameters()}
        leaves = {**pyro.get_param_store()._params, **self._registered}
        return [name for name in names if name in leaves and id(leaves[name]) not in own]


def statements_of(state: Mapping[str, Any], module: nn.Module) -> list[str]:
    """Names of the statements in a checkpoint that a module has not adopted yet.

    Args:
        state: tensors of an objective by name.
        module: the objective.

    Raises:
        ValueError: if one has not run in this process: its constraint stands in the program alone.
    """
    prefix = "statements."
    keys = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    keys -= {key.removeprefix(prefix) for key in module.state_dict()}
    known = {_key(name): name for name in pyro.get_param_store()._params}
    missing = sorted(keys - set(known))
    if missing:
        raise ValueError(
            f"resume: expected the pyro.param statements of the checkpoint, {missing}, to have run in "
            "this process, got none: their constraints stand in the programs alone. "
            "Fix: objective.preflight(*batch) before resume."
        )
    return sorted(known[key] for key in keys)


def _key(name: str) -> str:
    """The name as a key of a module, in which a dot would be a path."""
    return name.replace(".", "/")
