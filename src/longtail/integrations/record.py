"""Metadata with which a model's probabilities can be adjusted to another class prior."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from longtail.errors import InputError
from longtail.prior import ClassPrior, check_prior
from longtail.shift import adjust, expressed_prior, resolve_prior
from longtail.shift.priors import Prior
from longtail.training.card import CLASSES, wrong_entries

KEY = "longtail"  # in a configuration or a checkpoint


@dataclass(frozen=True)
class PriorRecord:
    """Training counts, class names and the prior that the logits of a model express.

    Args:
        prior: class prior of the training set.
        expresses: prior that the logits express, as `ClassificationLoss.expresses`: `source`,
            `uniform` or (C,) probabilities, which are stored as a list.
        class_names: name of each class, stored as a tuple of str; default: the class indices.

    Raises:
        InputError: if `prior` is not a `ClassPrior`, `class_names` does not have one name per
            class or repeats one, or `expresses` is not a prior.
    """

    prior: ClassPrior
    expresses: str | list[float]
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Fills in the names, and checks them and the expressed prior."""
        check_prior("prior of PriorRecord", self.prior)
        classes = self.prior.num_classes
        names = tuple(str(name) for name in self.class_names) or tuple(map(str, range(classes)))
        if len(names) != classes:
            raise InputError(f"class_names must have {classes} names, got {len(names)}")
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise InputError(f"class_names must differ, got {repeated[0]!r} more than once")
        expressed = expressed_prior(self.expresses, self.prior)
        object.__setattr__(self, "class_names", names)
        if not isinstance(self.expresses, str):
            object.__setattr__(self, "expresses", expressed.tolist())

    def adjust(self, logits: Tensor, target_prior: Prior | str) -> Tensor:
        """Adjusts logits (..., C) of the model to a target prior: `uniform`, `source` or (C,)."""
        classes = self.prior.num_classes
        expressed = expressed_prior(self.expresses, self.prior)
        target = resolve_prior(target_prior, self.prior, classes, self.class_names)
        return adjust(logits, expressed, target)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return {
            "class_counts": self.prior.counts.tolist(),
            "expresses": self.expresses,
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], owner: str) -> Self:
        """Reads what `to_dict` wrote.

        Args:
            stored: the configuration or checkpoint that should hold the record.
            owner: its name in error messages.

        Raises:
            InputError: if there is no record in it, or an invalid one.
        """
        record = stored.get(KEY)
        if not isinstance(record, Mapping):
            raise InputError(f"{owner} must have a {KEY!r} entry with the class prior, got none")
        if wrong := wrong_entries(dict(record), CLASSES):
            raise InputError(f"the class prior of {owner} is not valid: {'; '.join(wrong)}")
        prior = ClassPrior(record["class_counts"])
        return cls(prior, record["expresses"], tuple(record["class_names"]))
