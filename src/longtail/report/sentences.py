"""The first lines of the page: the results as sentences, supported by the intervals.

Each rule looks at one run and returns its sentence, or None if the numbers do not support it.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

import torch

from longtail.metrics import Confusion, difference_interval, resampled_metrics, wilson_interval
from longtail.prior import FEW, MANY, ClassPrior
from longtail.report.comparison import FEWEST, Comparison
from longtail.report.run import RunData
from longtail.training.command import data_options

NAMED = 5  # classes that a sentence names
CONFUSED = 3  # pairs of classes that a sentence names
CROSS_ENTROPY = "ce"
SUGGESTED = "gml"


@dataclass(frozen=True)
class Sentence:
    """A sentence on the page, and the command that it suggests."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Case:
    """An evaluated run, the other runs, and what the rules need from them.

    Args:
        runs: all runs of the page.
        position: the run that the sentences are about.
        comparison: which of the runs are comparable.
    """

    runs: Sequence[RunData]
    position: int
    comparison: Comparison

    @property
    def run(self) -> RunData:
        """The run that the sentences are about."""
        return self.runs[self.position]

    @property
    def prior(self) -> ClassPrior:
        """Class prior of its training set."""
        assert self.run.prior is not None
        return self.run.prior

    @cached_property
    def confusion(self) -> Confusion:
        """Counts of its test images."""
        assert self.run.scores is not None
        return Confusion.from_scores(self.run.scores)

    @property
    def rare(self) -> str:
        """The rarest group that has classes: `few`, else `medium`; empty if there is none."""
        groups = self.prior.groups()
        return next((name for name in ("few", "medium") if len(groups[name])), "")

    def found(self, group: str) -> tuple[int, int]:
        """Number of a group's test images that are classified correctly, and their total number."""
        members = self.prior.groups()[group]
        return int(self.confusion.hits[members].sum()), int(self.confusion.support[members].sum())

    @property
    def rare_is_worse(self) -> bool:
        """Whether the rare classes are found significantly less often than the frequent ones."""
        if not self.rare or min(self.found(self.rare)[1], self.found("many")[1]) < FEWEST:
            return False
        (hits, count), (other, total) = self.found("many"), self.found(self.rare)
        return difference_interval((hits, other), (count, total))[0] > 0

    @property
    def cross_entropy(self) -> int | None:
        """Position of a comparable run that was trained with cross-entropy."""
        found = (c for c in self.comparison.members if self.runs[c].method == CROSS_ENTROPY)
        return next((c for c in found if c != self.position), None)

    def train_command(self, method: str) -> str:
        """The command that trains another method on the data of the run."""
        data = self.run.config.get("data")
        data = data if isinstance(data, Mapping) else {}
        words = ["longtail", "train", str(data.get("source") or "DATA")]
        return shlex.join([*words, *data_options(data, "image_size"), "--method", method])


Rule = Callable[[Case], Sentence | None]


def sentences(case: Case) -> list[Sentence]:
    """All sentences that the numbers of a run support, in order."""
    return [found for rule in RULES if (found := rule(case))]


def rare_found(case: Case) -> Sentence | None:
    """How often the rare classes are found."""
    if not case.rare:
        return Sentence(f"No class is rare: each has more than {MANY} training images.")
    size = len(case.prior.groups()[case.rare])
    subject = f"The {_counted(size, 'rare class')} ({_rule_of(case.rare)})"
    hits, count = case.found(case.rare)
    verb = "has" if size == 1 else "have"
    if count < FEWEST:
        images = _counted(count, "test image")
        return Sentence(f"{subject} {verb} {images}: too few to say how often they are found.")
    share = _share(hits, count)
    return Sentence(f"{subject} {'is' if size == 1 else 'are'} found in {share} test images.")


def frequent_beside_rare(case: Case) -> Sentence | None:
    """The frequent classes, if they are found significantly more often."""
    if not case.rare_is_worse:
        return None
    hits, count = case.found("many")
    return Sentence(
        f"Frequent classes ({_rule_of('many')}) are found more often: in {_share(hits, count)}."
    )


def against_cross_entropy(case: Case) -> Sentence | None:
    """The rare classes compared with a cross-entropy run on the same test images."""
    other = case.cross_entropy
    if other is None or case.run.method == CROSS_ENTROPY or not case.rare:
        return None
    interval = case.comparison.difference(case.rare, case.position, other)
    if interval is None or case.found(case.rare)[1] < FEWEST:
        return None
    reference = f"cross-entropy ({case.runs[other].name})"
    gain = float(case.run.metrics[case.rare]) - float(case.runs[other].metrics[case.rare])
    return _difference_sentence(gain, interval, "The rare classes are found", reference)


def cost_for_frequent(case: Case) -> Sentence | None:
    """What the frequent classes lose or gain against cross-entropy, if it is significant."""
    other = case.cross_entropy
    if other is None or case.run.method == CROSS_ENTROPY:
        return None
    interval = case.comparison.difference("many", case.position, other)
    if interval is None or case.found("many")[1] < FEWEST or interval[0] <= 0 <= interval[1]:
        return None
    gain = float(case.run.metrics["many"]) - float(case.runs[other].metrics["many"])
    reference = f"cross-entropy ({case.runs[other].name})"
    return _difference_sentence(gain, interval, "The frequent classes are found", reference)


def taken_for(case: Case) -> Sentence | None:
    """What the rare classes are mistaken for, if it is mostly frequent classes."""
    scores = case.run.scores
    if not case.rare or scores is None:
        return None
    groups = case.prior.groups()
    wrong = scores.predicted[torch.isin(scores.labels, groups[case.rare]) & ~scores.correct]
    frequent = wrong[torch.isin(wrong, groups["many"])]
    if len(wrong) < FEWEST or _low(len(frequent), len(wrong)) <= 0.5:
        return None
    text = "When a rare class is missed, it is mostly mistaken for a frequent one: in "
    counts = torch.bincount(frequent, minlength=case.prior.num_classes)
    first, second = counts.topk(2).values.tolist() if len(counts) > 1 else (int(counts[0]), 0)
    most = ""
    if _low(first, first + second) > 0.5:
        most = f", most often for {_quoted(case, [int(counts.argmax())])}"
    return Sentence(f"{text}{_share(len(frequent), len(wrong))} such mistakes{most}.")


def confused_more_often(case: Case) -> Sentence | None:
    """Classes that are predicted as another class significantly more often than as themselves."""
    scores = case.run.scores
    assert scores is not None
    pairs = scores.labels * scores.num_classes + scores.predicted
    found, counts = torch.unique(pairs[~scores.correct], return_counts=True)
    true = found // scores.num_classes
    own = case.confusion.hits[true]
    low, _ = wilson_interval(counts, counts + own)
    chosen = ((low > 0.5) & (counts + own >= FEWEST)).nonzero().flatten()
    chosen = chosen[counts[chosen].argsort(descending=True, stable=True)][:CONFUSED]
    if not len(chosen):
        return None
    parts = [
        f"{_quoted(case, [pair // scores.num_classes])} is mistaken for "
        f"{_quoted(case, [pair % scores.num_classes])} more often than it is recognised "
        f"({count} and {hits} of {int(case.confusion.support[pair // scores.num_classes])})"
        for pair, count, hits in zip(
            found[chosen].tolist(), counts[chosen].tolist(), own[chosen].tolist(), strict=True
        )
    ]
    return Sentence("; ".join(parts) + ".")


def never_found(case: Case) -> Sentence | None:
    """Classes with enough test images, none of which is recognised."""
    missed = (case.confusion.hits == 0) & (case.confusion.support >= FEWEST)
    classes = missed.nonzero().flatten().tolist()
    if not classes:
        return None
    images = int(case.confusion.support[missed].sum())
    return Sentence(
        f"Not one test image of {_named(case, classes)} is recognised "
        f"({_counted(images, 'test image')})."
    )


def overconfident(case: Case) -> Sentence | None:
    """The mean confidence, if it is outside the interval of the accuracy."""
    scores = case.run.scores
    assert scores is not None
    hits, count = int(scores.correct.sum()), len(scores.labels)
    low, high = _wilson(hits, count)
    mean = float(scores.confidence.mean())
    if count < FEWEST or low <= mean <= high:
        return None
    word, hint = (
        ("overconfident", "do not take its probabilities at face value")
        if mean > high
        else ("underconfident", "its predictions are correct more often than it says")
    )
    return Sentence(
        f"The model is {word}: its mean confidence is {100 * mean:.0f} %, and it is correct in "
        f"{_share(hits, count)} test images; {hint}."
    )


def uniform_prior(case: Case) -> Sentence | None:
    """What predicting under the uniform prior gains for the rare classes, without retraining."""
    run = case.run
    if run.scores is None or run.uniform is None or not case.rare:
        return None
    hits, count = case.found(case.rare)
    if count < FEWEST or torch.equal(run.scores.predicted, run.uniform.predicted):
        return None
    resampled = resampled_metrics([run.scores, run.uniform], case.prior)
    gains = resampled[case.rare][1] - resampled[case.rare][0]
    if float(gains.nanquantile(0.025)) <= 0:
        return None
    adjusted = Confusion.from_scores(run.uniform)
    now = adjusted.accuracy(case.prior.groups()[case.rare])
    return Sentence(
        f"To try, without retraining: predictions for classes that are equally frequent find "
        f"the rare classes in {100 * now:.0f} % instead of {100 * hits / count:.0f} % of their "
        f"test images; of all test images {100 * adjusted.accuracy():.0f} % are then correct "
        f"instead of {100 * case.confusion.accuracy():.0f} %.",
        f"longtail predict {shlex.quote(run.folder)} IMAGES --target-prior uniform "
        "--out predictions.csv",
    )


def try_method(case: Case) -> Sentence | None:
    """A method for rare classes, if cross-entropy finds them less often than frequent ones."""
    tried = any(run.method not in (CROSS_ENTROPY, None) for run in case.runs)
    if case.run.method != CROSS_ENTROPY or tried or not case.rare_is_worse:
        return None
    return Sentence(
        "To try: a method for rare classes, then a report on both runs.",
        case.train_command(SUGGESTED),
    )


def no_cross_entropy(case: Case) -> Sentence | None:
    """Suggests a cross-entropy run to compare with: a stage of the run, or a new one."""
    known = case.run.method is not None and case.run.method != CROSS_ENTROPY
    if not known or case.cross_entropy is not None:
        return None
    for stage in case.run.stages:
        if PurePath(stage).name == CROSS_ENTROPY:
            return Sentence(
                "To see whether the method pays: report its cross-entropy stage too.",
                shlex.join(["longtail", "report", case.run.folder, stage]),
            )
    return Sentence(
        "To see whether the method pays: train cross-entropy on the same data, and report both.",
        case.train_command(CROSS_ENTROPY),
    )


def collect_training_images(case: Case) -> Sentence | None:
    """Classes that are found significantly less often than the average."""
    _, high = wilson_interval(case.confusion.hits, case.confusion.support)
    low, _ = _wilson(int(case.confusion.hits.sum()), int(case.confusion.support.sum()))
    below = (high < low) & (case.confusion.support >= FEWEST) & (case.prior.counts <= MANY)
    order = [c for c in high.argsort(stable=True).tolist() if below[c]]
    if not order:
        return None
    named = [
        f"{_quoted(case, [c])} ({case.prior.counts[c]:,g} training images, found in "
        f"{100 * float(case.confusion.recall()[c]):.0f} %)"
        for c in order[:NAMED]
    ]
    more = f" and {len(order) - NAMED} more" if len(order) > NAMED else ""
    return Sentence(
        "Collect training images first of the classes with few of them that are found less often "
        f"than the average: {', '.join(named)}{more}."
    )


def collect_test_images(case: Case) -> Sentence | None:
    """Classes with too few test images to say anything about each."""
    short = (case.confusion.support < FEWEST).nonzero().flatten()
    if not len(short):
        return None
    order = short[case.confusion.support[short].argsort(stable=True)].tolist()
    verb = "has" if len(order) == 1 else "have"
    return Sentence(
        f"Collect test images too: {_named(case, order)} {verb} fewer than {FEWEST}, which says "
        "little of a class by itself."
    )


RULES: tuple[Rule, ...] = (
    rare_found,
    frequent_beside_rare,
    against_cross_entropy,
    cost_for_frequent,
    taken_for,
    confused_more_often,
    never_found,
    overconfident,
    uniform_prior,
    try_method,
    no_cross_entropy,
    collect_training_images,
    collect_test_images,
)


def _difference_sentence(
    gain: float, interval: tuple[float, float], subject: str, reference: str
) -> Sentence:
    low, high = (100 * bound for bound in interval)
    if low == high:  # no resample differs
        return Sentence(f"{subject} in exactly as many test images as with {reference}.")
    if low <= 0 <= high:
        return Sentence(
            f"{subject} as often as with {reference}, as far as chance lets one tell: the "
            f"difference is {100 * gain:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})."
        )
    how = "more" if gain > 0 else "less"
    low, high = sorted((abs(low), abs(high)))
    return Sentence(
        f"{subject} {how} often than with {reference}: by {100 * abs(gain):.1f} points "
        f"(95 % interval {low:.1f} to {high:.1f})."
    )


def _rule_of(group: str) -> str:
    return {
        "few": f"fewer than {FEW} training images each",
        "medium": f"{FEW} to {MANY} training images each",
        "many": f"more than {MANY} training images each",
    }[group]


def _wilson(hits: int, count: int) -> tuple[float, float]:
    low, high = wilson_interval(torch.tensor(hits), torch.tensor(count))
    return float(low), float(high)


def _low(hits: int, count: int) -> float:
    return _wilson(hits, count)[0] if count else 0.0


def _share(hits: int, count: int) -> str:
    low, high = _wilson(hits, count)
    return (
        f"{100 * hits / count:.0f} % (95 % interval {100 * low:.0f} to {100 * high:.0f}) "
        f"of {count:,}"
    )


def _counted(count: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def _quoted(case: Case, classes: Sequence[int]) -> str:
    return ", ".join(f"“{case.run.class_names[c]}”" for c in classes)


def _named(case: Case, classes: Sequence[int]) -> str:
    more = len(classes) - NAMED
    rest = f" and {more:,} more class{'es' * (more > 1)}" if more > 0 else ""
    return _quoted(case, classes[:NAMED]) + rest
