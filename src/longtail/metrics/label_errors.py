"""Labels that may be wrong, found by a model that was not trained on them."""

import torch
from torch import Tensor

from longtail.metrics.scores import SampleScores


def suspected_label_errors(scores: SampleScores) -> Tensor:
    """Samples whose label may be wrong, the most certain first.

    A sample is suspected if a class other than its label is predicted with at least the average
    probability of that class over its samples (confident learning, Northcutt et al., JAIR 2021,
    arXiv 1911.00068). Suspects are sorted by how much more probable that class is than the label.
    Under the training prior, rare classes would be suspected for being rare: adjust the logits to
    the uniform prior first (`longtail.shift.adjust`). Where the classes are hard to separate, most
    suspects have the right label: docs/pictures.md has precision and recall on two data sets.

    Args:
        scores: scores of out-of-sample logits, under the uniform prior.

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
