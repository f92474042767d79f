import html
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from longtail.metrics import Confusion, accuracy_intervals, wilson_interval
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
    assert not re.search(r"<script|<link|<iframe|\bhref=|url\(|@import|https?://", page)
    assert not re.search(r'\bsrc="(?!data:image/jpeg;base64,)', page)
    return pictures


@pytest.mark.parametrize("classes", [1, 2, 10, 30, 60, 150])
@pytest.mark.parametrize("runs", [1, 3])
def test_page_names_every_class_and_every_metric(write, made_up_run, classes, runs):
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
    assert "groups 20 neighbouring classes" in page


def test_names_are_escaped(write, made_up_run):
    names = ["<script>alert(1)</script>", 'Grauschnäpper & "Co"', "日本語 " * 30]
    run = made_up_run(
        "run <b>x</b>",
        3,
        names=names,
        config={"data": {"source": "<i>a</i>"}},
        paths=[f"<img src=x onerror=alert(1)>/{number}" for number in range(60)],
    )
    page = write(run)
    check_page(page)
    assert "<b>x" not in page
    assert "<i>a" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Grauschnäpper &amp; &#34;Co&#34;" in page
    assert names[2] in page


def test_control_characters_are_spelt_out(write, made_up_run):
    names = ["cat\x1b]0;owned\x07", "two\r\nlines", "left" + chr(0x202E) + "thgir", "half\udcff"]
    paths = [f"\x1b[2J/{number}.jpg" for number in range(80)]
    page = write(made_up_run("run\x1b[31m", 4, names=names, paths=paths, folder="a\x1b[0m"))
    check_page(page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\udcff]", page)
    for shown in (r"cat\x1b]0;owned\x07", r"two\r\nlines", r"left\u202ethgir", r"half\udcff"):
        assert f'<th scope="row">{shown}</th>' in page


def test_long_names_are_shown_in_full(write, made_up_run):
    names = ["Acanthurus nigrofuscus, the brown surgeonfish", "A" * 70, "c", "d"]
    pictures = check_page(write(made_up_run(classes=4, names=names)))
    for label in ("Training images of", "Recall of each"):
        picture = next(found for found in pictures if f'aria-label="{label}' in found)
        texts = [e.text or "" for e in ElementTree.fromstring(picture).iter("text")]
        assert "".join(names[0].split()) in "".join("".join(texts).split())
        assert names[1] in "".join(texts)
        assert not any("…" in text for text in texts)
    page = write(made_up_run(classes=4, names=names))
    assert f"<li>{names[0]}</li>" in page  # the key of the numbers in the confusion matrix


def test_same_runs_give_the_same_bytes(write, made_up_run):
    first = write(made_up_run("a"), made_up_run("b", seed=1))
    assert write(made_up_run("a"), made_up_run("b", seed=1)) == first
    assert write(made_up_run("a"), made_up_run("b", seed=2)) != first


def metric_cells(page):
    """Rows of cells of the metrics: class and inner text."""
    table = re.search('<table class="metrics.*?</table>', page, re.DOTALL)[0]
    rows = re.findall("<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    return [re.findall(r'<td data-title="(.*?)" class="(.*?)">(.*?)</td>', row) for row in rows]


def test_best_is_bold_only_beyond_chance(write, made_up_run):
    def best(*strengths):
        runs = [made_up_run(f"r{i}", strength=s, seed=i) for i, s in enumerate(strengths)]
        rows = metric_cells(write(*runs))
        return [{title for title, class_, _ in row if "best" in class_} for row in rows]

    equal, better = best(2, 2), best(2, 6)
    assert equal == [set(), set()]
    assert better[0] == set()
    assert {"all", "balanced accuracy", "macro-F1", "NLL", "Brier"} <= better[1]
    assert best(2) == [set()]


def test_differences_are_those_of_the_shown_numbers(write, made_up_run):
    rows = metric_cells(write(made_up_run("a"), made_up_run("b", seed=1)))
    for first, second in zip(*rows, strict=True):
        shown = [float(re.search(r"<span>([\d.]+)<", cell[2])[1]) for cell in (first, second)]
        difference = re.search('difference">(.*?)<', second[2])[1]
        assert float(difference.replace("\N{MINUS SIGN}", "-")) == pytest.approx(
            shown[1] - shown[0], abs=1e-9
        )
        assert "difference" not in first[2]


def test_saved_metrics_alone_are_never_the_best(write):
    page = write(
        RunData("ce", saved_metrics={"accuracy": 0.5004, "few": math.nan}),
        RunData("gml", saved_metrics={"accuracy": 0.9106, "few": 0.3}),
    )
    assert "best" not in {class_ for row in metric_cells(page) for _, class_, _ in row}
    assert "<span>91.1</span>" in page
    assert "<span>n/a</span>" in page


def test_every_accuracy_has_its_interval_and_number_of_images(write, made_up_run):
    run = made_up_run(samples=4)
    (cells,) = metric_cells(write(run))
    low, high = accuracy_intervals(run.scores, run.prior)["few"]
    found = {title: (class_, inner) for title, class_, inner in cells}
    assert f"<small>{100 * low:.1f} to {100 * high:.1f}</small>" in found["few"][1]
    for title, members in run.prior.groups().items():
        assert f"<small>n = {4 * len(members)}</small>" in found[title][1]
        assert ("grey" in found[title][0]) == (4 * len(members) < 10)
    assert " to " in found["balanced accuracy"][1]


def test_classes_have_recall_and_precision_with_intervals(write, made_up_run):
    run = made_up_run(classes=3, samples=12)
    page = write(run)
    rows = re.findall(r'<tr><th scope="row">class \d</th>(.*?)</tr>', page, re.DOTALL)
    confusion = Confusion.from_scores(run.scores)
    for c, row in enumerate(rows):
        cells = dict(re.findall(r'<td data-title="(.*?)" class="level.*?">(.*?)</td>', row))
        assert f"<span>{100 * confusion.recall()[c]:.1f}</span>" in cells["recall"]
        assert f"<span>{100 * confusion.precision()[c]:.1f}</span>" in cells["precision"]
        assert f"n = {confusion.predicted[c]}<" in cells["precision"]
        low, high = wilson_interval(confusion.hits[c], confusion.support[c])
        assert f"{100 * low:.1f} to {100 * high:.1f}" in cells["recall"]
    assert len(rows) == 3


def test_cells_of_fewer_than_ten_images_are_grey(write, made_up_run):
    page = write(made_up_run(classes=3, samples=9))
    recall = re.findall(r'data-title="recall" class="(.*?)"', page)
    assert recall == ["level grey"] * 3


def test_runs_on_other_test_images_are_not_compared(write, made_up_run):
    page = write(made_up_run("a"), made_up_run("b", samples=30, strength=9))
    assert "Not compared, since their test images or training counts differ: b." in page
    assert "best" not in {class_ for row in metric_cells(page) for _, class_, _ in row}
    assert "difference" not in "".join(inner for row in metric_cells(page) for *_, inner in row)


def test_macro_f1_says_how_many_classes_it_covers(write, made_up_run):
    assert "macro-F1 is the mean over 10 classes" in write(made_up_run())


def test_terms_are_explained_where_they_are_used(write, made_up_run):
    page = write(made_up_run())
    section = page[page.index("<h2>Metrics</h2>") : page.index("</section>", page.index("Metrics"))]
    for term in ("ECE", "NLL, Brier", "expressed prior", "macro-F1", "many, medium, few"):
        assert f"<dt>{term}</dt>" in section


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
    assert re.findall("<td[^>]*>(.*?)</td>", different) == [
        "0.1",
        "0.2",
        "n/a",
        "none",
        "n/a",
        "none",
    ]
    assert '<th scope="row">epochs</th><td colspan="2">5</td>' in page


def test_a_fitted_head_is_no_training_of_zero_epochs(write, made_up_run):
    page = write(made_up_run(config={"tune": "head", "epochs": 0}))
    assert "head on fixed features" in page
    assert "0 epochs" not in page
    assert "0 epochs" in write(made_up_run(config={"tune": "all", "epochs": 0}))


def test_a_run_without_anything_shows_what_is_missing(write):
    page = write(RunData("young"))
    check_page(page)
    assert page.count("n/a") >= len(KEY_COLUMNS) + 3


def test_a_run_without_predictions_beside_one_with_them(write, made_up_run):
    evaluated = made_up_run("old")
    page = write(replace(evaluated, name="young", scores=None), evaluated)
    check_page(page)
    assert page.count("<h3>Recall per class</h3>") == 1


def test_classes_without_a_test_image(write, made_up_run):
    whole = made_up_run()
    keep = whole.scores.labels != 3
    columns = ("labels", "predicted", "confidence", "nll", "brier")
    scores = replace(whole.scores, **{c: getattr(whole.scores, c)[keep] for c in columns})
    page = write(replace(whole, scores=scores))
    check_page(page)
    assert page.count("no test image") == 2  # in the picture of recalls and of the confusion


def test_runs_with_other_training_counts(write, made_up_run):
    page = write(made_up_run("long"), made_up_run("flat", counts=[50] * 10))
    check_page(page)
    assert page.count("Training images per class") == 2
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
