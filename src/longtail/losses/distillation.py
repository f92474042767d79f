"""Distillation: the divergence of a student's class distribution from its teacher's."""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from longtail.errors import InputError
from longtail.precision import full_precision
from longtail.ranges import check_range
from longtail.targets import check_tensor, mean_over_rows


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher, softened by a temperature.

    Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531, section 2:
    t^2 KL(softmax(u / t) || softmax(s / t)) for the teacher's logits u and the student's s; the
    factor t^2 keeps the size of the gradients.
    Identical to the paper.

    Args:
        logits: (batch, num_classes), the student's natural-log scores.
        teacher_logits: (batch, num_classes), the teacher's; no gradient reaches them.
        temperature: t, above 0, divides both.

    Returns: scalar, nats per sample times t^2, mean over the batch.

    Raises: ValueError: when the temperature is not above 0, or the arguments are not tensors of
        one shape on one device.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> distillation_loss(logits, logits + 1.0, temperature=4.0)
        tensor(0.)
    """
    check_range("temperature of distillation_loss", temperature, above=0)
    check_tensor("distillation_loss", "logits", logits)
    check_tensor("distillation_loss", "teacher_logits", teacher_logits, logits.device)
    if logits.ndim != 2 or logits.shape != teacher_logits.shape:
        raise InputError(
            f"logits and teacher_logits of distillation_loss must both be (batch, num_classes), "
            f"got {tuple(logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    nats = distillation_nats(logits, teacher_logits, temperature)
    return mean_over_rows(nats, torch.ones_like(nats, dtype=torch.bool))


def distillation_nats(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of each sample times t^2, (batch,); arguments as in `distillation_loss`."""
    logits = full_precision(logits)
    student = log_softmax(logits / temperature, dim=1)
    teacher = log_softmax(teacher_logits.detach().to(logits) / temperature, dim=1)
    # A class that the teacher rules out, with log probability -inf, adds 0, not 0 times infinity.
    nats = torch.where(teacher == -torch.inf, 0.0, teacher.exp() * (teacher - student))
    return temperature**2 * nats.sum(1)


class DistillationLoss(nn.Module):
    """Kullback-Leibler divergence of a student's softened class distribution from its teacher's.

    See `distillation_loss`.

    Args:
        temperature: t, above 0, divides both logits.

    Examples:
        >>> loss = DistillationLoss(temperature=4.0)
        >>> loss(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor(0.)
    """

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        check_range("temperature of DistillationLoss", temperature, above=0)
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Scalar, nats per sample times t^2; see `distillation_loss`."""
        return distillation_loss(logits, teacher_logits, temperature=self.temperature)
