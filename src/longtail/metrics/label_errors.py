"""Labels that are probably wrong, by what a model says of samples that it was not trained on."""

import torch
from torch import Tensor

from longtail.metrics.scores import SampleScores


def suspected_label_errors(scores: SampleScores) -> Tensor:
    """Samples whose label is probably wrong, the surest first.

    A sample is suspected when another class than its label is predicted with at least the
    probability that samples of that class have on average (confident learning, Northcutt et al.,
    JAIR 2021, arXiv 1911.00068), and sorted by how much more probable than the label it is.
    Probabilities under the training prior would suspect rare classes for being rare: adjust the
    logits to the uniform prior first (`longtail.shift.adjust`).

    Args:
        scores: of out-of-sample logits, under the uniform prior.

    Returns: (suspects,) int64, positions of samples.
    Examples:
        >>> from longtail.metrics import score_samples
        >>> logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
        >>> suspected_label_errors(score_samples(logits, [0, 0, 1, 1])).tolist()
        [3]
    """
    own = (-scores.nll).exp()
    count = torch.bincount(scores.labels, minlength=scores.num_classes)
    sums = torch.bincount(scores.labels, weights=own, minlength=scores.num_classes)
    typical = sums / count  # NaN for a class without a label, which nothing exceeds
    suspected = ~scores.correct & (scores.confidence >= typical[scores.predicted])
    found = suspected.nonzero().flatten()
    margin = (scores.confidence - own)[found]
    return found[margin.argsort(descending=True, stable=True)]
