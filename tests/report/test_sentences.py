"""Each rule on a run whose numbers bear its sentence, and on one whose numbers do not."""

from dataclasses import replace

import pytest
import torch

from longtail import ClassPrior
from longtail.metrics import score_samples
from longtail.report import RunData, sentences
from longtail.report.comparison import Comparison
from longtail.report.sentences import Case

COUNTS = [400, 200, 15, 5]
NAMES = ["head", "second", "rare", "rarest"]


def run_of(matrix, counts=COUNTS, confidence=0.7, method="ce", **more):
    """A run whose predictions have a confusion matrix, all with one confidence."""
    classes = len(counts)
    labels, predicted = [], []
    for true, row in enumerate(matrix):
        for column, count in enumerate(row):
            labels += [true] * count
            predicted += [column] * count
    probabilities = torch.full((len(labels), classes), (1 - confidence) / (classes - 1))
    probabilities[torch.arange(len(labels)), torch.tensor(predicted)] = confidence
    settings = {
        "class_names": NAMES[:classes],
        "prior": ClassPrior(counts),
        "scores": score_samples(probabilities.log(), labels),
        "config": {"method": {"name": method}, "data": {"source": "my birds"}},
    }
    return RunData(method, **{**settings, **more})


def case_of(*runs, position=0):
    return Case(runs, position, Comparison.of(runs))


def said(rule, *runs, position=0):
    found = rule(case_of(*runs, position=position))
    return None if found is None else found.text


GOOD = [[90, 10, 0, 0], [10, 90, 0, 0], [5, 5, 90, 0], [5, 5, 0, 90]]
TAIL_LOST = [[95, 5, 0, 0], [5, 95, 0, 0], [60, 5, 35, 0], [80, 5, 15, 0]]
FEW_TESTS = [[90, 10, 0, 0], [10, 90, 0, 0], [2, 0, 2, 0], [0, 0, 0, 1]]


def test_rare_found():
    text = said(sentences.rare_found, run_of(TAIL_LOST))
    assert "2 rare classes (fewer than 20 training images each)" in text
    assert "18 % (95 % interval 13 to 23) of 200 test images" in text
    assert "5 test images: too few" in said(sentences.rare_found, run_of(FEW_TESTS))
    assert "No class is rare" in said(sentences.rare_found, run_of(GOOD, [400, 300, 200, 101]))
    assert "20 to 100 training images" in said(
        sentences.rare_found, run_of(GOOD, [400, 200, 50, 20])
    )


def test_frequent_beside_rare():
    text = said(sentences.frequent_beside_rare, run_of(TAIL_LOST))
    assert "95 % (95 % interval 91 to 97) of 200" in text
    assert said(sentences.frequent_beside_rare, run_of(GOOD)) is None
    assert said(sentences.frequent_beside_rare, run_of(FEW_TESTS)) is None
    assert said(sentences.frequent_beside_rare, run_of(GOOD, [400, 300, 200, 101])) is None


def test_against_cross_entropy():
    plain, better = run_of(TAIL_LOST), run_of(GOOD, method="gml")
    text = said(sentences.against_cross_entropy, better, plain)
    assert "found more often than with cross-entropy (ce): by 72.5 points" in text
    worse = run_of(TAIL_LOST, method="gml")
    assert "less often" in said(sentences.against_cross_entropy, worse, run_of(GOOD))
    assert "in exactly as many" in said(sentences.against_cross_entropy, worse, plain)
    close = [*TAIL_LOST[:3], [78, 5, 16, 1]]
    text = said(sentences.against_cross_entropy, run_of(close, method="gml"), plain)
    assert "as often as with cross-entropy (ce), as far as chance lets one tell" in text
    assert said(sentences.against_cross_entropy, plain, better) is None  # it is cross-entropy
    assert said(sentences.against_cross_entropy, better) is None
    other_images = run_of([[10, 0, 0, 0]] * 4)
    assert said(sentences.against_cross_entropy, better, other_images) is None
    few = run_of(FEW_TESTS, method="gml")
    assert said(sentences.against_cross_entropy, few, run_of(FEW_TESTS)) is None


def test_cost_for_frequent():
    lossy = [[60, 40, 0, 0], [40, 60, 0, 0], [5, 5, 90, 0], [5, 5, 0, 90]]
    text = said(sentences.cost_for_frequent, run_of(lossy, method="gml"), run_of(TAIL_LOST))
    assert "frequent classes are found less often than with cross-entropy (ce): by 35.0" in text
    same = said(sentences.cost_for_frequent, run_of(GOOD, method="gml"), run_of(GOOD))
    assert same is None
    assert said(sentences.cost_for_frequent, run_of(lossy, method="gml")) is None


def test_taken_for():
    text = said(sentences.taken_for, run_of(TAIL_LOST))
    assert "mostly mistaken for a frequent one: in 91 %" in text
    assert "most often for “head”" in text
    even = [[95, 5, 0, 0], [5, 95, 0, 0], [30, 30, 40, 0], [30, 30, 0, 40]]
    assert "most often for" not in said(sentences.taken_for, run_of(even))
    among_rare = [[95, 5, 0, 0], [5, 95, 0, 0], [0, 0, 50, 50], [0, 0, 50, 50]]
    assert said(sentences.taken_for, run_of(among_rare)) is None
    assert said(sentences.taken_for, run_of(FEW_TESTS)) is None


def test_confused_more_often():
    text = said(sentences.confused_more_often, run_of(TAIL_LOST))
    assert (
        "“rarest” is mistaken for “head” more often than it is recognised (80 and 0 of 100)" in text
    )
    assert (
        "“rare” is mistaken for “head” more often than it is recognised (60 and 35 of 100)" in text
    )
    assert said(sentences.confused_more_often, run_of(GOOD)) is None
    close = [[95, 5, 0, 0], [5, 95, 0, 0], [52, 0, 48, 0], [0, 5, 0, 95]]
    assert said(sentences.confused_more_often, run_of(close)) is None


def test_never_found():
    assert "Not one test image of “rarest” is recognised (100 test images)" in said(
        sentences.never_found, run_of(TAIL_LOST)
    )
    assert said(sentences.never_found, run_of(GOOD)) is None
    two_images = [[90, 0, 0, 0], [0, 90, 0, 0], [0, 0, 90, 0], [2, 0, 0, 0]]
    assert said(sentences.never_found, run_of(two_images)) is None


@pytest.mark.parametrize(
    ("classes", "rest"), [(5, None), (6, "1 more class"), (7, "2 more classes")]
)
def test_five_classes_are_named(classes, rest):
    names = [f"class {number}" for number in range(classes + 1)]
    matrix = [[20, *[0] * classes]] * (classes + 1)
    run = run_of(matrix, [400] + [5] * classes, class_names=names)
    text = said(sentences.never_found, run)
    assert "“class 5”" in text
    assert "“class 6”" not in text
    assert text.partition("“class 5”")[2].partition(" is recognised")[0] == (
        f" and {rest}" if rest else ""
    )


@pytest.mark.parametrize(
    ("confidence", "word"), [(0.99, "overconfident"), (0.9, None), (0.7, "underconfident")]
)
def test_overconfident(confidence, word):
    text = said(sentences.overconfident, run_of(GOOD, confidence=confidence))
    assert text is None if word is None else f"The model is {word}" in text


def test_uniform_prior():
    plain, adjusted = run_of(TAIL_LOST), run_of(GOOD)
    found = sentences.uniform_prior(
        case_of(replace(plain, uniform=adjusted.scores, folder="runs/my run"))
    )
    assert "the rare classes in 90 % instead of 18 %" in found.text
    assert "of all test images 90 % are then correct instead of 56 %" in found.text
    assert found.command.startswith("longtail predict 'runs/my run' IMAGES --target-prior uniform")
    assert said(sentences.uniform_prior, replace(plain, uniform=plain.scores)) is None
    assert said(sentences.uniform_prior, plain) is None
    slightly = run_of([*TAIL_LOST[:3], [79, 5, 15, 1]])  # one image is no proof
    assert said(sentences.uniform_prior, replace(plain, uniform=slightly.scores)) is None


def test_try_method():
    found = sentences.try_method(case_of(run_of(TAIL_LOST)))
    assert found.command == "longtail train 'my birds' --method gml"
    data = {"source": "a.csv", "label_column": "kind", "path_column": "path"}
    config = {"method": {"name": "ce"}, "data": data}
    found = sentences.try_method(case_of(run_of(TAIL_LOST, config=config)))
    assert found.command == "longtail train a.csv --data.label-column kind --method gml"
    assert said(sentences.try_method, run_of(GOOD)) is None
    assert said(sentences.try_method, run_of(TAIL_LOST, method="gml")) is None
    assert said(sentences.try_method, run_of(TAIL_LOST), run_of(GOOD, method="gml")) is None


def test_no_cross_entropy():
    found = sentences.no_cross_entropy(case_of(run_of(GOOD, method="gml")))
    assert found.command == "longtail train 'my birds' --method ce"
    assert said(sentences.no_cross_entropy, run_of(GOOD)) is None
    assert said(sentences.no_cross_entropy, run_of(GOOD, method="gml"), run_of(GOOD)) is None
    staged = run_of(GOOD, method="gml", folder="my run", stages=["my run/head", "my run/ce"])
    found = sentences.no_cross_entropy(case_of(staged))
    assert found.command == "longtail report 'my run' 'my run/ce'"
    assert said(sentences.no_cross_entropy, staged, run_of(GOOD)) is None


def test_collect_training_images():
    text = said(sentences.collect_training_images, run_of(TAIL_LOST))
    assert "“rarest” (5 training images, found in 0 %), “rare” (15 training images" in text
    assert said(sentences.collect_training_images, run_of(GOOD)) is None
    enough = run_of(TAIL_LOST, [400, 200, 150, 101])
    assert said(sentences.collect_training_images, enough) is None


def test_collect_test_images():
    text = said(sentences.collect_test_images, run_of(FEW_TESTS))
    assert "“rarest”, “rare” have fewer than 10" in text
    assert said(sentences.collect_test_images, run_of(GOOD)) is None


def test_every_rule_has_a_test_here():
    assert {f"test_{rule.__name__}" for rule in sentences.RULES} <= globals().keys()


def test_the_page_begins_with_the_sentences(tmp_path):
    from longtail.report import write_report

    page = write_report([run_of(TAIL_LOST)], tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.index("rare classes (fewer than 20") < page.index("<h2>Metrics</h2>")
    assert "<pre>longtail train &#39;my birds&#39; --method gml</pre>" in page
