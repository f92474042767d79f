"""Estimation of the class prior of unlabelled data from logits, with intervals and a test."""

from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.errors import InputError
from longtail.ranges import check_range
from longtail.shift.estimation.calibration import Calibration
from longtail.shift.estimation.estimator import Estimator, Method, PriorEstimate, Source
from longtail.shift.estimation.posterior import Logits, as_labels, as_logits
from longtail.shift.priors import Prior, probabilities


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
    """Estimates the class prior of unlabelled data, with intervals and a test for shift.

    Label shift is assumed: p(x | class) is the same for source and target. Three priors are
    involved. `expressed` is the prior that the logits express. The class prior of `source_labels`
    may be any prior (a balanced validation set of a long-tailed model, for example), since it is
    divided out. `source_prior` is the prior that holds until the data contradict it: the null
    hypothesis of the test, and the result if it is not rejected. It defaults to `expressed`, so
    that a model is left unchanged, bit for bit, unless there is evidence for a change.

    Methods, all on logits corrected by BCTS or VS (Alexandari et al. 2020, see `fit_calibration`)
    except `kdey`:

    - `em` starts from maximum likelihood (Saerens et al. 2002, see `em_prior`), corrects it for
        calibration errors with the labelled source (see `Response`), and averages over how strongly
        it is shrunk towards the likeliest shifts of long-tailed data, source_prior *
        training_prior^power (see `believe`). Use this one.
    - `bbse` and `bbse_soft` invert the confusion matrix of predicted classes or of posteriors
      (Lipton et al. 2018, see `bbse_prior`); `rlls` is the regularised form of `bbse_soft`
      (Azizzadenesheli et al. 2019, see `rlls_prior`), and replaces both if the matrix cannot be
      inverted: its condition number is above 1e4, or there are more than 2,048 classes.
    - `kdey` is maximum likelihood under kernel densities of the posteriors (Moreo et al. 2025, see
      `kdey_prior`).

    The interval of a class contains the estimate of the chosen method. Its width reflects the noise
    of both samples, the uncertainty of the calibration, and the distance of the estimate from that
    of `em`. A class without a source sample is known from the model alone, and `reliable` is then
    False. A single target sample changes nothing. Above 2,048 classes `em` is maximum likelihood
    shrunk towards the nearest tilted prior with a strength estimated by moments, and intervals are
    too narrow, since they ignore the confusion between classes.

    Args:
        source_logits: (source samples, num_classes), labelled samples that the model was not
            trained on: a tensor, an array, a list or a DataFrame; None, together with
            `source_labels`, for `em` on uncalibrated logits.
        source_labels: (source samples,), class index of each.
        target_logits: (samples, num_classes), unlabelled.
        expressed: prior that the logits express.
        method: see above.
        source_prior: see above; 0 only where `expressed` is 0 or the class is ruled out.
        calibration: `auto` (by sample size, see `fit_calibration`; none for `kdey`), `bcts`, `vs`,
            `none`, or a fitted one.
        training_prior: class prior of the training set. Default: `expressed`. Pass it for a model
            whose logits express the uniform prior.
        strength: shrinks the plain estimate of the method (for `em`, maximum likelihood) towards
            `tilted` as if so many samples had been seen with that prior; 0 for the plain estimate.
            Default: see above for `em`, 0 for the other methods.
        resamples: draws of the noise in the test; 0 for no test (`shifted` is then True).
        interval: whether to compute intervals, which are NaN otherwise.
        level: level of the test, in (0, 1).
        generator: generator on the CPU; the same state gives the same result. Default: seeded
            with 0.
    Raises:
        ValueError: when an input is empty, not finite, or of the wrong shape, logits are
            probabilities, a prior is not one, the level is out of range, or a method that needs a
            source has none.

    Examples:
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
    if strength is not None:
        check_range("strength of estimate_prior", strength, least=0)
    check_range("resamples of estimate_prior", resamples, least=0, whole=True)
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
    return estimator.estimate(estimator.posteriors(target), interval=interval)


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
