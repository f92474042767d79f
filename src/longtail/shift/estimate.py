"""The class mix of unlabelled data, from a model's logits: estimate, interval and test."""

import warnings
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.errors import InputError
from longtail.shift.estimation.calibration import Calibration
from longtail.shift.estimation.estimator import Estimator, Method, PriorEstimate, Source
from longtail.shift.estimation.posterior import Logits, as_labels, as_logits
from longtail.shift.priors import Prior, probabilities

# Source samples of a class from which its column of the confusion matrix shows its own noise.
ENOUGH = 10


def estimate_prior(
    source_logits: Logits | None,
    source_labels: ArrayLike | Tensor | None,
    target_logits: Logits,
    expressed: Prior,
    method: Method = "em",
    *,
    source_prior: Prior | None = None,
    training_prior: Prior | None = None,
    calibration: Literal["auto", "bcts", "vs", "none"] | Calibration = "auto",
    strength: float | None = None,
    resamples: int = 200,
    interval: bool = True,
    level: float = 0.05,
    generator: torch.Generator | None = None,
) -> PriorEstimate:
    """Class mix of unlabelled data, with an interval for every class and a test for no shift.

    Label shift is assumed: p(x | class) is the same for source and target. Three priors have a
    part. `expressed` is what the logits express. The mix of `source_labels` may be any (a balanced
    validation set of a long-tailed model, say): it is divided out. `source_prior` is the mix that
    holds until the data speak against it: the hypothesis that is tested, the answer when it is not
    rejected, and what few samples are drawn towards. By default it is `expressed`, so that a model
    is left as it is, bit for bit, unless there is evidence for a change.

    Between "no shift" and "any mix at all" lies the shift that long-tailed data mostly meet: the
    classes that were rare in training are less rare, or more. Its mixes are source_prior *
    training_prior^power, and the one number is found from moments, well even where samples are
    fewer than classes (see `Tilts`). The nearest of them is what a free estimate is drawn towards.
    It needs source samples and a training prior that is not uniform.

    Methods: `em` maximises the likelihood (Saerens et al. 2002; see `em_prior`) and is the one to
    use; `bbse` and `bbse_soft` invert the confusion matrix of predicted classes or of posteriors
    (Lipton et al. 2018; see `bbse_prior`); `rlls` is the regularised form of `bbse_soft`
    (Azizzadenesheli et al. 2019; see `rlls_prior`) and answers for both where the matrix cannot be
    inverted: its condition number is above 1e4, or there are more than 2,048 classes. All work on
    logits corrected by BCTS or VS (Alexandari et al. 2020; see `fit_calibration`).

    Few samples: the result is drawn towards `tilted` as if `strength` more samples had been seen
    with that mix (a Dirichlet prior with 1 + strength * tilted). The interval is drawn about an
    estimate with far less pull, so it may leave `estimated` out where samples are few. A class
    without a source sample keeps a calibration bias of 0, and its column of the confusion matrix is
    the one that the model expects. With one target sample nothing is tested: `shifted` is False.
    The intervals of `bbse`, `bbse_soft` and `rlls` are too narrow where a class has fewer than ten
    source samples, since nobody knows its column then; a warning says so.

    Args:
        source_logits: (source samples, num_classes), labelled samples that the model was not
            trained on; None, together with `source_labels`, for `em` on uncalibrated logits.
        source_labels: (source samples,), class index of each.
        target_logits: (samples, num_classes), unlabelled.
        expressed: the prior that the logits express.
        method: see above.
        source_prior: see above; 0 only where `expressed` is 0 or the class is ruled out.
        calibration: `auto` (by sample size, see `fit_calibration`), `bcts`, `vs`, `none`, or a
            fitted one.
        training_prior: class mix of the training set; `expressed` when not given. Worth giving for
            a model whose logits express the uniform prior.
        strength: pseudo-samples of `tilted`, 0 or more; found by moments when not given: many where
            the target is near that mix, few where it is not (see `ShiftTest.strength`), or, without
            a source or resamples, `default_strength`.
        resamples: draws of the bootstrap; 0 for no interval and no test (`shifted` is then True).
        interval: False saves the time of the intervals, which are then NaN.
        level: of the test.
        generator: on the CPU; the same state gives the same result. Seeded with 0 when not given.
    Raises:
        ValueError: when an input is empty, not finite, or of the wrong shape, a prior is not one,
            or a method that needs a source has none.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(2).repeat(200)
        >>> noise = torch.randn(400, 2, generator=generator)
        >>> logits = 3 * torch.eye(2)[labels] + noise
        >>> found = estimate_prior(logits, labels, logits[labels == 0], [0.5, 0.5])
        >>> found.shifted, bool(found.prior[0] > 0.95)
        (True, True)
    """
    p_expressed = probabilities(expressed, "expressed of estimate_prior")
    reference = _reference(source_prior, p_expressed)
    training = p_expressed
    if training_prior is not None:
        name = "training_prior of estimate_prior"
        training = probabilities(training_prior, name, len(p_expressed))
    target = as_logits(target_logits, "target_logits of estimate_prior", len(p_expressed))
    if len(p_expressed) < 2:
        raise InputError("expressed of estimate_prior must have 2 classes or more, got 1")
    source = _source(source_logits, source_labels, p_expressed)
    if (strength or 0) < 0 or resamples < 0:
        raise InputError(
            f"strength and resamples of estimate_prior must be >= 0, got {strength}, {resamples}"
        )
    estimator = Estimator(
        source,
        p_expressed,
        reference,
        training,
        method=method,
        calibration=calibration,
        strength=strength,
        resamples=resamples,
        level=level,
        generator=generator,
    )
    if interval and resamples and method != "em":
        _warn_of_few(source, reference)
    posteriors = estimator.posteriors(target)
    return estimator.estimate(posteriors, logits=target if interval else None)


def _warn_of_few(source: Source | None, reference: Tensor) -> None:
    assert source is not None
    counts = torch.bincount(source.labels, minlength=len(reference))
    fewest = int(counts[reference.to(counts.device) > 0].min())
    if fewest < ENOUGH:
        warnings.warn(
            f"source_labels of estimate_prior has a class with {fewest} samples; below {ENOUGH} "
            "the intervals of bbse, bbse_soft and rlls are too narrow, those of em are not",
            stacklevel=3,
        )


def _reference(source_prior: Prior | None, expressed: Tensor) -> Tensor:
    if source_prior is None:
        return expressed
    prior = probabilities(source_prior, "source_prior of estimate_prior", len(expressed))
    unknown = ((prior > 0) & (expressed == 0)).nonzero().flatten().tolist()
    if unknown:
        raise InputError(
            f"source_prior of estimate_prior must be 0 where expressed is 0, "
            f"got {prior[unknown[0]].item():g} for class {unknown[0]}"
        )
    return prior


def _source(
    logits: Logits | None, labels: ArrayLike | Tensor | None, expressed: Tensor
) -> Source | None:
    if logits is None and labels is None:
        return None
    if logits is None or labels is None:
        raise InputError("source_logits and source_labels of estimate_prior must come together")
    matrix = as_logits(logits, "source_logits of estimate_prior", len(expressed))
    target = as_labels(labels, "source_labels of estimate_prior", len(matrix), len(expressed))
    ruled_out = target[expressed[target] == 0]
    if len(ruled_out):
        raise InputError(
            f"source_labels of estimate_prior must have probability above 0 in expressed, "
            f"got class {int(ruled_out[0])}"
        )
    return Source(matrix, target.to(matrix.device))
