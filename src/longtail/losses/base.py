"""The base class of classification losses: a prior, checks of the arguments, a (weighted) mean."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.precision import full_precision
from longtail.prior import ClassPrior, check_prior
from longtail.ranges import check_range
from longtail.targets import check_labels, check_tensor, mean_over_rows


class ClassificationLoss(nn.Module, ABC):
    """A loss of logits and class indices that knows the prior of the training set.

    A subclass has a name, states which prior the raw logits express after training with it, and
    computes the nats of each sample; checks, precision and mean are handled here. Its settings are
    keywords of its `__init__`, which the command line offers as options.

    Args:
        prior: class prior of the training set.

    Attributes:
        name: the method's name on the command line.
        use: when to use it, for `longtail list` (default: the first sentence of the docstring).
        expresses: prior that the raw logits express after training: "source", "uniform" or
            (num_classes,) probabilities.
        head: the classifier that the loss is meant for, `linear` or `cosine`.
        smoothing: share of label smoothing, see `smooth_labels`.
        log_prior: (num_classes,), buffer, natural logarithm of the prior.
    """

    name: ClassVar[str]
    use: ClassVar[str]
    expresses: str | list[float]
    head: ClassVar[str] = "linear"
    log_prior: Tensor

    def __init__(self, prior: ClassPrior) -> None:
        super().__init__()
        check_prior(f"prior of {type(self).__name__}", prior)
        self.register_buffer("log_prior", prior.log_prior.clone())
        self.smoothing = 0.0

    @abstractmethod
    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample, (batch,), of logits that are float32 or better."""

    def any_class(self, logits: Tensor) -> Tensor:
        """Mean of `per_sample` over all classes as the target, (batch,), for label smoothing.

        A loss that has it must not override `forward`.

        Raises:
            InputError: for a loss for which label smoothing is not defined.
        """
        raise InputError(
            f"label_smoothing must be 0 for {type(self).__name__}, got {self.smoothing:g}: its "
            "loss of an image is not the cross-entropy of a class"
        )

    def smooth_labels(self, share: float) -> None:
        """Sets label smoothing: a share of each target is spread evenly over all classes.

        Equation 1 of Müller et al., When Does Label Smoothing Help?, NeurIPS 2019, arXiv
        1906.02629. The class weight (`class_weight`) remains that of the target. The logits then
        express their prior only approximately.

        Args:
            share: in [0, 1); 0: none.

        Raises:
            InputError: when the share is out of range, or the loss does not support it.
        """
        check_range("label_smoothing", share, least=0, below=1)
        self.smoothing = share
        if share:
            self.any_class(torch.zeros(1, len(self.log_prior)).to(self.log_prior))

    def class_weight(self) -> Tensor | None:
        """Weight of each class in the mean, (num_classes,); None: all are equal."""
        return None

    def set_progress(self, fraction: float) -> None:
        """Tells the loss which fraction of training is done, for losses with a schedule.

        Args:
            fraction: in [0, 1], steps done over all steps; `longtail train` tells it before each
                epoch, the callbacks for other trainers before each step.
        """

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean nats of the batch.

        Args:
            logits: (batch, num_classes), unnormalised natural-log scores, of any float type.
            target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
            weight: (batch,), weight of each sample; the mean is then over the sum of weights, as
                it is for a loss that weights the classes.

        Returns: scalar, nats, float32 or better; 0 if no sample counts.

        Raises: ValueError: when an argument has the wrong type or shape, or a target is not a
            class index.
        """
        name = type(self).__name__
        target, counts = check_batch(name, logits, target, len(self.log_prior))
        if weight is not None:
            check_tensor(name, "weight", weight, logits.device)
            if weight.shape != target.shape:
                raise InputError(
                    f"weight of {name} must have a value for each sample, got shape "
                    f"{tuple(weight.shape)} for target {tuple(target.shape)}"
                )
        logits = full_precision(logits)
        nats = self.per_sample(logits, target)
        if self.smoothing:
            nats = torch.lerp(nats, self.any_class(logits), self.smoothing)
        class_weight = self.class_weight()
        if class_weight is not None:
            by_class = class_weight[target]
            weight = by_class if weight is None else by_class * weight
        return mean_over_rows(nats, counts, weight)


def mean_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (batch, num_classes), mean over all classes as the target."""
    return logits.logsumexp(1) - logits.mean(1)


def check_batch(
    name: str, logits: Tensor, target: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The targets as int64, and which rows count; see `check_labels`.

    Raises: ValueError: when an argument has the wrong type or shape, with both shapes, or a target
        is not a class index.
    """
    check_tensor(name, "logits", logits)
    check_tensor(name, "target", target, logits.device)
    if target.ndim != 1 or logits.shape != (len(target), num_classes):
        raise InputError(
            f"logits of {name} must be (batch, {num_classes}) and target (batch,), "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    return check_labels(name, "target", target, num_classes)


def check_loss(name: str, loss: object) -> None:
    """Raises an error for anything but a `ClassificationLoss`; others take other arguments.

    Raises: ValueError: for losses of features, and of other packages.
    """
    if not isinstance(loss, ClassificationLoss):
        raise InputError(f"loss of {name} must be a ClassificationLoss, got {type(loss).__name__}")


def check_counts(class_counts: Tensor | Sequence[float]) -> Tensor:
    """Training samples of each class as float64, on their device; the rule is that of `ClassPrior`.

    It is not applied under `torch.compile`, where reading values would break the graph.

    Raises: ValueError: when a count is not finite and above 0.
    """
    if torch.compiler.is_compiling():
        return torch.as_tensor(class_counts).double()
    counts = ClassPrior(class_counts).counts.double()
    return counts.to(class_counts.device) if isinstance(class_counts, Tensor) else counts
