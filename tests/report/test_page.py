import html
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from longtail.report import RunData, write_report
from longtail.report.tables import KEY_COLUMNS, MORE_COLUMNS


@pytest.fixture
def write(tmp_path):
    def to_text(*runs):
        path = write_report(runs, tmp_path / "report.html")
        return path.read_text(encoding="utf-8")

    return to_text


def check_page(page):
    """Whole tags, no script, nothing from elsewhere, no NaN in a picture."""
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert pictures
    for picture in pictures:
        for element in ElementTree.fromstring(picture).iter():
            for name in ("d", "x", "y", "viewBox", "transform"):
                assert not re.search("nan|inf|None", element.get(name, "")), element.attrib
    assert page.count("<table") == page.count("</table>")
    assert page.count("<figure") == page.count("</figure>")
    assert not re.search(r"<script|<link|<img|<iframe|\bsrc=|\bhref=|url\(|@import|https?://", page)
    return pictures


@pytest.mark.parametrize("classes", [1, 2, 10, 30, 60, 150])
@pytest.mark.parametrize("runs", [1, 3])
def test_page_names_every_class_and_every_figure(write, made_up_run, classes, runs):
    data = [made_up_run(f"run {i}", classes, seed=i) for i in range(runs)]
    page = write(*data)
    check_page(page)
    for run in data:
        for column in (*KEY_COLUMNS, *MORE_COLUMNS):
            assert f">{column.text(run.metrics[column.key])}<" in page, column
        assert page.count(html.escape(run.name)) >= 1
    for name in data[0].class_names:
        assert f'<th scope="row">{name}</th>' in page


def test_page_of_1000_classes_and_6_runs_is_small_and_lists_both_ends(write, made_up_run):
    data = [made_up_run(f"run {i}", 1000, samples=3, seed=i) for i in range(6)]
    page = write(*data)
    check_page(page)
    assert len(page.encode()) < 3e6
    assert page.count('<th scope="row">class') == 60
    assert "940 classes between these" in page
    assert "takes 20 neighbouring classes together" in page


def test_names_are_escaped(write, made_up_run):
    names = ["<script>alert(1)</script>", 'Grauschnäpper & "Co"', "日本語 " * 30]
    run = made_up_run("run <b>x</b>", 3, names=names, config={"data": {"source": "<i>a</i>"}})
    page = write(run)
    check_page(page)
    assert "<b>x" not in page
    assert "<i>a" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Grauschnäpper &amp; &#34;Co&#34;" in page
    assert names[2] in page


def test_same_runs_give_the_same_bytes(write, made_up_run):
    first = write(made_up_run("a"), made_up_run("b", seed=1))
    assert write(made_up_run("a"), made_up_run("b", seed=1)) == first
    assert write(made_up_run("a"), made_up_run("b", seed=2)) != first


def test_best_is_bold_and_differences_are_those_of_the_shown_numbers(write):
    known = {"accuracy": 0.5004, "ece": 0.2, "few": math.nan}
    better = {"accuracy": 0.5106, "ece": 0.1, "few": 0.3}
    page = write(RunData("ce", saved_metrics=known), RunData("gml", saved_metrics=better))
    assert '<td class="best">51.1<small>+1.1</small></td>' in page
    assert '<td class="best">0.100<small>\N{MINUS SIGN}0.100</small></td>' in page
    assert '<td class="">50.0</td>' in page
    assert '<td class="">n/a</td>' in page
    assert '<td class="">30.0</td>' in page


def test_settings_that_differ_are_apart(write, made_up_run):
    page = write(
        made_up_run("ce", config={"lr": 0.1, "epochs": 5}),
        made_up_run("gml", config={"lr": 0.2, "epochs": 5, "method": {"tau": None, "views": []}}),
    )
    different = re.search(r'<tbody class="different">.*?</tbody>', page, re.DOTALL)[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', different) == [
        "lr",
        "method.tau",
        "method.views",
    ]
    assert re.findall("<td>(.*?)</td>", different) == ["0.1", "0.2", "n/a", "none", "n/a", "none"]
    assert '<th scope="row">epochs</th><td colspan="2">5</td>' in page


def test_a_run_without_anything_shows_what_is_missing(write):
    page = write(RunData("young"))
    check_page(page)
    assert page.count("n/a") >= len(KEY_COLUMNS) + 3


def test_a_run_that_was_not_judged_stands_beside_one_that_was(write, made_up_run):
    judged = made_up_run("old")
    page = write(replace(judged, name="young", scores=None), judged)
    check_page(page)
    assert page.count("<h3>How much of each class is found</h3>") == 1


def test_classes_without_a_test_sample(write, made_up_run):
    whole = made_up_run()
    keep = whole.scores.labels != 3
    columns = ("labels", "predicted", "confidence", "nll", "brier")
    scores = replace(whole.scores, **{c: getattr(whole.scores, c)[keep] for c in columns})
    page = write(replace(whole, scores=scores))
    check_page(page)
    assert page.count("no test sample") == 2  # in the picture of recalls and of the confusion


def test_runs_on_other_class_mixes(write, made_up_run):
    page = write(made_up_run("long"), made_up_run("flat", counts=[50] * 10))
    check_page(page)
    assert page.count("How often each class was seen") == 2
    assert "Training counts differ between the runs" in page


def test_history_with_gaps(write, made_up_run):
    history = [{"epoch": 0, "loss": math.nan, "note": "x"}, {"epoch": 1, "loss": 1.0}]
    pictures = check_page(write(made_up_run(history=history)))
    assert sum("training loss" in picture for picture in pictures) == 1
    assert not any("note" in picture for picture in pictures)


def test_runs_of_the_same_name_are_numbered(write, made_up_run):
    assert "<h1>ce · ce (2)</h1>" in write(made_up_run(), made_up_run(seed=1))


def test_too_few_and_too_many_runs_are_refused(write, made_up_run):
    with pytest.raises(ValueError, match="runs of a report must be 1 to 6, got 0"):
        write()
    with pytest.raises(ValueError, match="runs of a report must be 1 to 6, got 7"):
        write(*[made_up_run()] * 7)


def test_runs_of_other_classes_are_refused(write, made_up_run):
    with pytest.raises(ValueError, match=r"same classes, got 10 of 'a' .* and 3 of 'b'"):
        write(made_up_run("a"), made_up_run("b", 3))


def test_scores_without_names_are_refused(made_up_run):
    with pytest.raises(ValueError, match="must have the same classes, got 0, 10 and 10"):
        made_up_run(class_names=[])
