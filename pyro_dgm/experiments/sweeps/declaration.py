"""The experiment of a sweep, and that of each of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..configuration.arguments import Source, flags_of, read_experiment
from ..configuration.catalogue import find_experiment
from ..configuration.experiment import Experiment
from ..configuration.reading import read_config
from .plan import Settings
from .ranges import Range, Space


@dataclass(frozen=True)
class Declaration:
    """The experiment whose settings are changed.

    Attributes:
        source, flags, trust: what was said.
        base: the experiment itself, whose data all trials share.
    """

    source: Source
    flags: Sequence[str]
    trust: Sequence[str]
    base: Experiment

    @classmethod
    def of(cls, source: Source, flags: Sequence[str], trust: Sequence[str]) -> Declaration:
        """What a source says and flags change; a file is read once."""
        if source is not None and not isinstance(source, Mapping):
            source = read_config(find_experiment(str(source)))
        return cls(source, flags, trust, read_experiment(source, flags, trust))

    def trial(self, settings: Settings) -> Experiment:
        """The experiment of a trial."""
        flags = [*self.flags, *flags_of(settings)]
        changed = read_experiment(self.source, flags, self.trust)
        return changed.with_data_of(self.base)

    def check(self, space: Space) -> None:
        """Refuse data, a setting or a value that is none, before the first trial.

        Raises:
            ValueError: with its path.
        """
        ends = {}
        for path, values in space.items():
            ends[path] = [values.low, values.high] if isinstance(values, Range) else values
        first = {path: values[0] for path, values in ends.items()}
        for path, values in ends.items():
            for value in values:
                self.trial({**first, path: value})
        assert self.base.seeds
