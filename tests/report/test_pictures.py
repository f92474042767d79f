import math
from collections import Counter

import pytest
import torch

from longtail.metrics import CalibrationCurve, score_samples
from longtail.report import svg
from longtail.report.class_pictures import by_count
from longtail.report.comparison import FEWEST
from longtail.report.confusion_picture import confused_pairs, confusion_shares
from longtail.report.curve_pictures import calibration_pictures
from longtail.report.svg import Scale


@pytest.mark.parametrize("blocks", [7, 3])
def test_confusion_shares_are_means_of_the_normalised_matrix(made_up_run, blocks):
    run = made_up_run(classes=7)
    order = by_count(run.prior).flip(0)
    shares = confusion_shares(run.scores, order, blocks)
    matrix = torch.zeros(7, 7, dtype=torch.float64)
    for true, predicted in zip(run.scores.labels, run.scores.predicted, strict=True):
        matrix[true, predicted] += 1
    matrix = (matrix / matrix.sum(1, keepdim=True))[order][:, order]
    block_of = [rank * blocks // 7 for rank in range(7)]
    for row in range(blocks):
        rows = [rank for rank in range(7) if block_of[rank] == row]
        for column in range(blocks):
            columns = [rank for rank in range(7) if block_of[rank] == column]
            expected = matrix[rows][:, columns].sum() / len(rows)
            torch.testing.assert_close(shares[row, column], expected)


def test_confused_pairs_are_those_of_a_count(made_up_run):
    run = made_up_run(classes=5, samples=30)
    pairs = confused_pairs(run.scores, run.class_names, 4)
    counted = Counter(
        (int(t), int(p))
        for t, p in zip(run.scores.labels, run.scores.predicted, strict=True)
        if t != p
    )
    expected = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:4]
    names = run.class_names
    assert [(p.true, p.predicted, p.count) for p in pairs] == [
        (names[t], names[p], count) for (t, p), count in expected
    ]
    assert pairs[0].share == expected[0][1] / 30


def test_few_images_make_no_most_confused_pair():
    labels = [0] * 4 + [1] * 25 + [2] * 25
    predicted = [1, 1, 0, 0] + [2] * 12 + [1] * 13 + [2] * 25
    scores = score_samples(torch.eye(3)[predicted], labels)
    found = confused_pairs(scores, ["a", "b", "c"], 2)
    assert [(pair.true, pair.count, pair.support) for pair in found] == [("b", 12, 25), ("a", 2, 4)]


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0, 1, False),
        (0, 0.137, False),
        (3.1, 3.2, False),
        (-3, 12, False),
        (5, 500, True),
        (1280, 4, True),
        (0.9, 1.3, True),
        (1, 1e9, True),
    ],
)
def test_ticks_are_few_round_and_inside(low, high, log):
    ticks = Scale(low, high, 0, 100, log).ticks()
    assert 2 <= len(ticks) <= 8
    assert all(min(low, high) <= tick <= max(low, high) for tick in ticks)
    assert all(len(f"{tick:.10g}".strip("0.").replace(".", "")) <= 3 for tick in ticks)


def test_whole_ticks():
    assert Scale(0, 2, 0, 100, whole=True).ticks() == [0, 1, 2]


def test_scale_runs_down_and_logarithmic():
    scale = Scale(1000, 10, 0, 200, log=True)
    assert [scale(value) for value in (1000, 100, 10)] == pytest.approx([0, 100, 200])


@pytest.mark.parametrize("length", [3, 8, 17])
@pytest.mark.parametrize("name", ["Ab cd", "x" * 50, "日本語の名前", "a  b\tc", "", "WWWWWWWW"])
def test_wrapped_names_are_whole_and_fit(name, length):
    lines = svg.wrapped(name, length)
    assert "".join("".join(lines).split()) == "".join(name.replace("\t", r"\t").split())
    assert all(svg.text_width(line) <= length for line in lines)


def test_line_breaks_at_nan():
    assert svg.line([(0, 0), (1, 1.26), (2, math.nan), (3, 3)]) == "M0 0L1 1.3M3 3"


def test_marks_of_six_runs_differ():
    assert len({svg.marker(series, 1, 2) for series in range(6)}) == 6


def test_bins_of_few_images_have_no_accuracy(made_up_run):
    run = made_up_run(classes=3, samples=30)
    count = CalibrationCurve.from_scores(run.scores).count
    picture, _ = calibration_pictures([run])
    assert picture.count('class="mark r0"') == int((count >= FEWEST).sum()) > 0
    assert (count[count > 0] < FEWEST).any()
