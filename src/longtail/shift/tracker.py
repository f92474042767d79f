"""Class prior of a stream of predictions, with forgetting, in bounded memory."""

from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.arrays import as_tensor
from longtail.errors import InputError
from longtail.ranges import check_range
from longtail.shift.estimation.calibration import Calibration
from longtail.shift.estimation.em import FLOOR, default_strength
from longtail.shift.estimation.posterior import Logits, as_logits
from longtail.shift.priors import Prior, probabilities

# EM steps on each new batch; the past is not revisited.
STEPS = 5


class PriorTracker:
    """Tracks the class prior of the data that a deployed model sees, from its logits alone.

    Online EM on sufficient statistics (Cappe and Moulines, On-line expectation-maximization
    algorithm for latent data models, JRSS B 71, 2009, arXiv 0712.4273, section 2.2): the statistics
    are the expected class counts; those of the past are halved every `half_life` samples, those of
    a new batch are computed by a few EM steps under the resulting prior, and the prior is the
    counts plus `strength` samples of the source prior. Memory: the counts and one batch.
    Differences from the paper: several steps on each batch, which follow a sudden change faster.

    The counts of the past were computed under the priors of their time, so the prior follows
    a change with a lag: about one half-life for classes that the model tells apart, several for
    classes that it confuses. Samples within a batch count as equally old.

    Args:
        expressed: prior that the logits express.
        half_life: number of samples after which an observation counts half, above 0.
        source_prior: prior towards which the estimate is shrunk with few samples. Default:
            `expressed`.
        calibration: calibration of the logits, see `fit_calibration`. Default: none.
        strength: samples that the source prior counts for, 0 or more. Default: from the current
            effective samples, see `default_strength`.

    Attributes:
        prior: (num_classes,), float64, current class prior.
        effective_samples: size of an unweighted sample that would be as noisy (Kish).

    Raises: ValueError: when a prior is not one, or a number is out of range.

    Examples:
        >>> tracker = PriorTracker(expressed=[0.5, 0.5], half_life=100)
        >>> for _ in range(50):
        ...     tracker.update(torch.tensor([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]))
        >>> [round(p, 2) for p in tracker.prior.tolist()]
        [0.75, 0.25]
    """

    def __init__(
        self,
        expressed: Prior,
        *,
        half_life: float = 10_000.0,
        source_prior: Prior | None = None,
        calibration: Calibration | None = None,
        strength: float | None = None,
    ) -> None:
        if not half_life > 0:
            raise InputError(f"half_life of PriorTracker must be above 0, got {half_life}")
        if strength is not None:
            check_range("strength of PriorTracker", strength, least=0)
        self.expressed = probabilities(expressed, "expressed of PriorTracker")
        classes = len(self.expressed)
        self.source_prior = self.expressed
        if source_prior is not None:
            name = "source_prior of PriorTracker"
            self.source_prior = probabilities(source_prior, name, classes)
        self.half_life = half_life
        self.strength = strength
        self.calibration = calibration or Calibration.none(classes)
        self.prior = self.source_prior.clone()
        self._counts = torch.zeros(classes, dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    @property
    def effective_samples(self) -> float:
        """Squared sum of the samples' weights over the sum of their squares; 0 before the first."""
        if not self._squares:
            return 0.0
        return float(self._counts.sum() ** 2 / self._squares)

    def update(self, logits: Logits) -> None:
        """Updates the prior with a batch (samples, num_classes); a rejected batch changes nothing.

        Raises: ValueError: when the batch is empty, not finite, or of the wrong shape.
        """
        batch = as_logits(logits, "logits of PriorTracker", len(self.prior))
        samples = len(batch)
        posteriors = self.calibration.posteriors(batch, self.expressed, self.source_prior)
        fade = 0.5 ** (samples / self.half_life)
        past = fade * self._counts
        weight = past.sum() + samples
        strength = self.strength
        if strength is None:
            strength = default_strength(len(self.prior), float(weight))
        possible = self.source_prior > 0
        for _ in range(STEPS):
            ratio = torch.where(possible, self.prior / self.source_prior, 1.0).to(posteriors)
            ratio.clamp_(min=FLOOR)  # a class that was not seen yet may still occur
            fresh = ratio * ((posteriors @ ratio).reciprocal() @ posteriors)
            self._counts = past + fresh.double().cpu()
            shrunk = self._counts + strength * self.source_prior
            self.prior = shrunk / (weight + strength)
        self._squares = fade**2 * self._squares + samples

    def state_dict(self) -> dict[str, Tensor]:
        """State that the next update depends on, apart from the arguments; tensors only."""
        return {"counts": self._counts, "squares": self._squares, "prior": self.prior}

    def load_state_dict(self, state: Mapping[str, ArrayLike | Tensor]) -> None:
        """Loads a `state_dict` of a tracker with the same number of classes; a rejected one changes
        nothing.

        Args:
            state: its entries may also be arrays or lists, as from JSON.

        Raises: ValueError: when an entry is missing, has another shape, or cannot be of a tracker.
        """
        read = {}
        for name, now in self.state_dict().items():
            what = f"{name} in the state of PriorTracker"
            value = as_tensor(state[name], what) if name in state else None
            if value is None or value.shape != now.shape:
                got = "nothing" if value is None else tuple(value.shape)
                raise InputError(
                    f"state of PriorTracker must have {name} of shape {tuple(now.shape)}, got {got}"
                )
            for number in value.flatten().tolist():
                check_range(what, number, least=0)
            read[name] = value.to("cpu", torch.float64, copy=True)
        read["prior"] = probabilities(read["prior"], "prior in the state of PriorTracker")
        self._counts, self._squares, self.prior = read["counts"], read["squares"], read["prior"]
