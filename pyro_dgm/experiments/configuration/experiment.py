"""An experiment: what a file and flags say, and the parts that are built from it when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor, nn

from ...inference.data.batches import Batches
from ...inference.objectives.elbo import ELBO, Objective
from ...inference.process.numbers import check_count
from ...inference.process.states import check_seed
from ...inference.training.svi import SVITrainer
from ...inference.training.trainer import Trainer
from ..data.datasets import Data
from ..recipes import density, own, vae  # noqa: F401 - a class has its short name once it is imported
from ..recipes.adversarial import Adversarial
from ..recipes.recipe import Recipe
from ..runs.loggers import Logger
from .blame import with_flag
from .reading import build
from .trust import only_trusted
from .wanted import places_of


@dataclass(frozen=True)
class Evaluation:
    """How the test data are scored.

    Args:
        num: importance draws per test datum.
        limit: score only so many test data.

    Raises:
        ValueError: for no draw, and for fewer than two data, which have no standard error.
    """

    num: int = 1000
    limit: int | None = None

    def __post_init__(self) -> None:
        check_count("evaluation", "num", self.num, fix="--evaluation.num=1000")
        if self.limit is not None and self.limit < 2:
            raise ValueError(
                f"limit: expected at least 2 test data, for a standard error, got {self.limit}. "
                "Fix: --evaluation.limit=100, or leave it out."
            )


def schema(
    model: Recipe,
    data: Data,
    objective: Callable[[nn.Module, nn.Module], Objective] = ELBO,
    trainer: Callable[[Objective], SVITrainer] = SVITrainer,
    adversarial: Adversarial | None = None,
    evaluation: Evaluation = Evaluation(),
    epochs: int = 150,
    batch_size: int = 100,
    patience: int | None = None,
    seeds: int | list[int] = 1,
    loggers: list[Logger] = [],  # noqa: B006 - the parser copies it
) -> None:
    """The places of an experiment, which files and flags fill.

    Args:
        model: the declaration of a model and its guide.
        data: a file or a folder, or a data set by a name that `--data.help` lists.
        objective: what is minimized, without its model and guide.
        trainer: the trainer, without its objective.
        adversarial: a critic and a game, in place of objective and trainer, or beside the objective.
        evaluation: how the test data are scored.
        epochs: epochs in all; the weights of the best validation epoch are kept.
        batch_size: data per step.
        patience: stop after so many epochs without a better validation −ELBO.
        seeds: how many runs that differ in their seed (0, 1, …), or the seeds themselves.
        loggers: who is told of steps and epochs, such as `PrintEvery` or `TensorBoard`.
    """


class Experiment:
    """What a file and flags say, parsed and checked; each part is built when it is asked for.

    Args:
        parser: that has the schema.
        settings: what it has parsed.
        trust: modules that it may name, beside those of torch, Pyro and this package.

    Attributes:
        settings: without what belongs to the command alone.
        trust: the modules that it may name.
    """

    def __init__(self, parser: ArgumentParser, settings: Namespace, trust: Sequence[str] = ()):
        self._parser = parser
        self.trust = trust
        self.settings = settings
        check_count("fit", "epochs", self.epochs, fix="--epochs=100")
        check_count("fit", "batch_size", self.batch_size, fix="--batch_size=100")
        if self.patience is not None:
            check_count("fit", "patience", self.patience, fix="--patience=20")
        _ = self.seeds, self.evaluation  # mistakes show before the first step

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.settings.epochs

    @property
    def batch_size(self) -> int:
        """Data per step."""
        return self.settings.batch_size

    @property
    def patience(self) -> int | None:
        """Epochs without a better one, after which a run stops."""
        return self.settings.patience

    @cached_property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        given = self.settings.seeds
        if not isinstance(given, list):
            check_count("fit", "seeds", given, fix="--seeds=5")
            return list(range(given))
        seeds = [check_seed(seed) for seed in given]
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(
                f"seeds: expected at least one, each once, got {seeds}. Fix: --seeds=5."
            )
        return seeds

    @cached_property
    def data(self) -> Data:
        """The data, read once."""
        return self._built("data")

    @property
    def loggers(self) -> list[Logger]:
        """Who is told of the training."""
        return self._built("loggers")

    @cached_property
    def evaluation(self) -> Evaluation:
        """How the test data are scored."""
        return self._built("evaluation")

    def with_evaluation(self, evaluation: Evaluation) -> Experiment:
        """The same experiment, on the same data, evaluated in another way."""
        other = copy(self)
        vars(other)["evaluation"] = evaluation
        return other

    def with_data_of(self, other: Experiment) -> Experiment:
        """The same experiment, on the data that another one has read: its own are the same."""
        found = copy(self)
        vars(found)["data"] = other.data
        return found

    def programs(self) -> nn.Module:
        """A module with model and guide, in the sizes of the data, with weights of its own by the global seed."""
        recipe: Recipe = self._built("model")  # anew: modules that it names are drawn with it
        data = self.data
        return self._used("model", recipe, lambda recipe: recipe.build(data))

    @property
    def has_likelihood(self) -> bool:
        """Whether its guide is trained, so that the test data can be scored: not by a game alone."""
        game = self.settings.get("adversarial")
        return game is None or bool((game.get("init_args") or game).get("bound"))

    @cached_property
    def adversarial(self) -> Adversarial | None:
        """The critic and the game, if there are any."""
        return self._built("adversarial")

    def trainer(self, programs: Any, device: torch.device) -> Trainer:
        """What trains such programs."""
        game = self.adversarial
        loss: Any = None
        if self.has_likelihood:
            pair = programs.model, programs.guide
            objective = self._built("objective")
            loss = self._used("objective", objective, lambda objective: objective(*pair)).to(device)
        if game is not None:
            data = self.data
            return self._used("adversarial", game, lambda game: game.build(programs, data, loss))
        return self._used("trainer", self._built("trainer"), lambda trainer: trainer(loss))

    def batches(self) -> Batches:
        """The training data as its trainer takes them."""
        if self.adversarial is not None:
            return self.adversarial.batches(self.data, self.batch_size)
        return self.data.batches(self.batch_size)

    def validation(self) -> tuple[Tensor, ...] | None:
        """What epochs are compared by: none of a game alone, which has no best epoch."""
        return self.data.split("val") if self.has_likelihood else None

    def dump(self) -> str:
        """The experiment as YAML, which repeats it."""
        with only_trusted(self.trust):
            return self._parser.dump(self.settings)

    def _built(self, name: str) -> Any:
        try:
            return self._instantiated(name, self.settings[name])
        except ValueError as error:
            raise ValueError(self._with_flag(name, str(error), lambda part: part)) from error

    def _used(self, name: str, part: Any, use: Callable[[Any], Any]) -> Any:
        """What a part builds; an error names the flag that it comes from."""
        try:
            return build(name, partial(use, part))
        except ValueError as error:
            raise ValueError(self._with_flag(name, str(error), use)) from error

    def _with_flag(self, name: str, message: str, use: Callable[[Any], Any]) -> str:
        def attempt(settings: Namespace) -> str:
            try:
                build(name, partial(use, self._instantiated(name, settings)))
            except ValueError as error:
                return str(error)
            return ""

        with only_trusted(self.trust):
            owner = next(iter(places_of(schema, "")[name].kinds), None)
            return with_flag(name, self.settings[name], owner, message, attempt)

    def _instantiated(self, name: str, settings: Any) -> Any:
        only = Namespace({name: settings})
        with only_trusted(self.trust):
            return build(name, partial(self._parser.instantiate, only))[name]


def experiment_parser(description: str = "", without: Sequence[str] = ()) -> ArgumentParser:
    """A parser that has the schema.

    Args:
        description: what `--help` begins with.
        without: places that it does not have.
    """
    parser = ArgumentParser(description=description, allow_abbrev=False, exit_on_error=False)
    with only_trusted():
        parser.add_function_arguments(schema, skip=set(without))
    return parser
