"""ProCo: contrast with each class's von Mises-Fisher distribution, in closed form."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longtail.errors import InputError
from longtail.losses.log_bessel import log_bessel
from longtail.precision import full_precision, no_autocast
from longtail.prior import ClassPrior, check_prior
from longtail.ranges import MAX_WIDTH, check_range
from longtail.targets import check_labels, check_tensor, mean_over_rows

# A class with one sample, or equal ones, has a mean of norm 1 and an infinite concentration.
MAX_CONCENTRATION = 1e5


def proco_loss(
    features: Tensor, target: Tensor, mean: Tensor, log_prior: Tensor, *, temperature: float
) -> Tensor:
    """Contrast with infinitely many samples of every class's von Mises-Fisher distribution.

    The loss L_in of Du et al., Probabilistic Contrastive Learning for Long-Tailed Visual
    Recognition, TPAMI 2024, arXiv 2403.06726: the logit-adjusted cross-entropy of `vmf_scores`.
    Differences from the published code: see `vmf_scores`.

    Args:
        features: (batch, width), unit norm.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        mean: (num_classes, width), mean feature of each class, norm 0 to 1; no gradient.
        log_prior: (num_classes,), natural logarithm of the training set's prior.
        temperature: above 0, divides.

    Returns: scalar, nats per sample, mean over the batch.

    Raises: ValueError: when the temperature is not above 0, or an argument has the wrong type,
        shape or values.

    Examples:
        >>> log_prior = ClassPrior([1, 1]).log_prior
        >>> proco_loss(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), log_prior, temperature=0.5)
        tensor(0.1269)
    """
    check_range("temperature of proco_loss", temperature, above=0)
    check_tensor("proco_loss", "log_prior", log_prior)
    check_tensor("proco_loss", "features", features)
    check_tensor("proco_loss", "target", target, features.device)
    check_tensor("proco_loss", "mean", mean, features.device)
    if target.shape != features.shape[:1] or mean.shape != (len(log_prior), features.shape[-1]):
        raise InputError(
            f"features, target and mean of proco_loss must be (batch, width), (batch,) and "
            f"({len(log_prior)}, width), got {tuple(features.shape)}, {tuple(target.shape)} and "
            f"{tuple(mean.shape)}"
        )
    target, counts = check_labels("proco_loss", "target", target, len(log_prior))
    scores = vmf_scores(features, mean, temperature=temperature)
    nats = cross_entropy(scores + log_prior.to(scores), target, reduction="none")
    return mean_over_rows(nats, counts).to(full_precision(features).dtype)


def vmf_scores(features: Tensor, mean: Tensor, *, temperature: float) -> Tensor:
    """Log of the expected exp(feature . sample / temperature) over samples of each class.

    The closed form of proposition 1 of Du et al., arXiv 2403.06726: with mean direction mu,
    concentration kappa and kappa' = |kappa mu + feature / temperature|, the ratio of the
    distribution's normalisers C(kappa) / C(kappa'). The concentration is width r / (1 - r^2) for a
    mean of norm r, at most 1e5.
    Differences from the published code: the Bessel function is correct for any width, including odd
    ones, and finite for any concentration; kappa' costs one matrix product, where the code has a
    tensor (batch, num_classes, width).

    Args:
        features: (batch, width), unit norm.
        mean: (num_classes, width), mean feature of each class, norm 0 to 1; no gradient. 0 is the
            uniform distribution.
        temperature: above 0, divides.

    Returns: (batch, num_classes), natural-log scores, float64: they are small differences of large
        numbers.

    Examples:
        >>> uniform = torch.zeros(1, 3)  # sinh(k) / k in three dimensions, k = 2
        >>> vmf_scores(torch.eye(3)[:1], uniform, temperature=0.5).exp()
        tensor([[1.8134]], dtype=torch.float64)
    """
    features, mean = full_precision(features), full_precision(mean.detach()).to(torch.float64)
    width = features.shape[1]
    norm = torch.linalg.vector_norm(mean, dim=1)
    # kappa over norm is finite at a norm of 0, where mu is undefined and kappa mu is 0.
    per_norm = torch.minimum(width / (1 - norm**2).clamp(min=0), MAX_CONCENTRATION / norm)
    centre, kappa = per_norm[:, None] * mean, per_norm * norm
    features = features.double() / temperature
    with no_autocast(features):
        cross = features @ centre.T
    square = kappa**2 + 2 * cross + (features**2).sum(1, keepdim=True)
    # Rounding may make a vanishing square negative, and the root has no slope there.
    joint = square.clamp(min=1e-12).sqrt()
    order = width / 2 - 1
    return log_bessel(order, joint) - log_bessel(order, kappa)


class ProCoLoss(nn.Module):
    """Contrast with each class's von Mises-Fisher distribution, estimated during training.

    See `proco_loss`. Two running means of each class are kept, as in the published code: the one
    in use continues from the previous epoch; the other starts afresh each epoch and replaces it at
    the next one (`next_epoch`), so that old features are forgotten. Call `update` with the features
    of a view from all processes, then the loss with that view; the published code does so for one
    view after the other. Differences from the published code: a class without features has mean 0,
    the uniform distribution, where the code has a random direction.

    Args:
        prior: class prior of the training set.
        width: width of the features, 2 or more.
        temperature: above 0, divides.

    Attributes:
        log_prior: (num_classes,), buffer.
        total, count: (2, num_classes, width) and (2, num_classes), buffers: sum and number of
            features, for the means in use and for the next ones; float32 or better, whatever
            `.half()` or `.to()` do to the model.

    Raises: ValueError: when width is below 2 or the temperature is not above 0.

    Examples:
        >>> loss = ProCoLoss(ClassPrior([1, 1]), width=2, temperature=0.5)
        >>> loss.update(torch.eye(2), torch.tensor([0, 1]))
        >>> loss(torch.eye(2), torch.tensor([0, 1]))
        tensor(0.1269)
    """

    log_prior: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, prior: ClassPrior, *, width: int, temperature: float = 0.1) -> None:
        super().__init__()
        check_prior("prior of ProCoLoss", prior)
        check_range("temperature of ProCoLoss", temperature, above=0)
        check_range("width of ProCoLoss", width, least=2, most=MAX_WIDTH, whole=True)
        self.register_buffer("log_prior", prior.log_prior.clone())
        self.register_buffer(
            "total", torch.zeros(2, prior.num_classes, int(width), dtype=torch.float32)
        )
        self.register_buffer("count", torch.zeros(2, prior.num_classes, dtype=torch.float32))
        self.temperature = temperature

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the sums with the module; in 16 bits a count would stop at 256 or 2048."""
        sums = {"total": self.total, "count": self.count}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in sums.items():
            moved = getattr(self, name)
            if torch.finfo(moved.dtype).bits < 32:
                setattr(self, name, before.to(moved.device))
        return self

    @property
    def mean(self) -> Tensor:
        """Mean feature of each class, (num_classes, width), 0 for a class without features."""
        return self.total[0] / self.count[0].clamp(min=1)[:, None]

    @torch.no_grad()
    def update(self, features: Tensor, target: Tensor) -> None:
        """Adds a batch to the means.

        Args:
            features: (batch, width), unit norm.
            target: (batch,), class index in [0, num_classes), or -100 for an ignored
                sample.

        Raises: ValueError: when an argument has the wrong type, shape or values.
        """
        name, (num_classes, width) = "ProCoLoss.update", self.total.shape[1:]
        check_tensor(name, "features", features)
        check_tensor(name, "target", target, features.device)
        if target.ndim != 1 or features.shape != (len(target), width):
            raise InputError(
                f"features and target of {name} must be (batch, {width}) and (batch,), "
                f"got {tuple(features.shape)} and {tuple(target.shape)}"
            )
        target, counts = check_labels(name, "target", target, num_classes)
        features = torch.where(counts[:, None], features.to(self.total), 0.0)
        for total, count in zip(self.total, self.count, strict=True):
            total.index_add_(0, target, features)
            count.index_add_(0, target, counts.to(count.dtype))

    @torch.no_grad()
    def next_epoch(self, begun: Tensor | None = None) -> None:
        """Switches to the means of the epoch that ends, and starts the next ones afresh.

        Args:
            begun: scalar, bool; if false, nothing changes, and nothing waits for its value.
        """
        for sums in (self.total, self.count):
            anew = torch.stack([sums[1], torch.zeros_like(sums[1])])
            sums.copy_(anew if begun is None else torch.where(begun, anew, sums))

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Scalar, nats per sample; arguments as in `proco_loss`."""
        return proco_loss(features, target, self.mean, self.log_prior, temperature=self.temperature)
