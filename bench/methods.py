"""Results on the pages of the methods and on `docs/which.md`, from the result files.

python bench/methods.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from advise import TABLES
from longtail.recipes.cifar_lt import published
from pages import write_between

ROOT = Path(__file__).parents[1]
DOCS, RESULTS = ROOT / "docs", ROOT / "results"
MARK = "bench/methods.py"
# Page: rows of `longtail reproduce`, and names in the tables of features and of steps.
PAGES: dict[str, dict[str, list[str]]] = {
    "ce": {
        "rows": ["ce", "ce_branched", "pc_softmax", "pc_softmax_branched"],
        "features": ["LongTailClassifier ce", "PriorAdjusted LongTailClassifier ce"],
        "pictures": ["LogisticRegression"],
    },
    "logit_adjust": {"rows": ["logit_adjust", "logit_adjust_branched"]},
    "reweighted": {"rows": [], "pictures": ["LogisticRegression balanced"]},
    "class_balanced": {"rows": ["class_balanced"]},
    "focal": {"rows": ["focal"]},
    "ldam": {"rows": ["ldam"]},
    "dbm": {"rows": ["dbm"]},
    "lade": {"rows": ["lade", "lade_common"]},
    "crt": {"rows": ["crt"]},
    "lws": {"rows": ["lws"]},
    "tau_norm": {"rows": ["tau_norm"]},
    "supcon": {"rows": ["supcon"], "steps": ["supcon_features"]},
    "bcl": {"rows": ["bcl"]},
    "paco": {"rows": ["paco"]},
    "proco": {"rows": ["proco"]},
    "gml": {"rows": ["gml", "gml_teacher", "gml_momentum", "gml_dbm"]},
}
PICTURES = {  # the rows of `docs/which.md` on photographs
    "LongTailClassifier logit_adjust": "logit adjustment",
    "LongTailClassifier gml": "GML",
    "LongTailClassifier lade": "LADE",
    "LogisticRegression balanced": "class weights",
    "BalancedRandomForest": "balanced random forest",
    "LogisticRegression": "cross-entropy",
}
HEADER = ["| data | all | many | medium | few | from |", "|---|---|---|---|---|---|"]


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def cells(row: dict[str, Any]) -> str:
    return " | ".join(f"{row[key]:.1f}" for key in ("accuracy", "many", "medium", "few"))


def published_of(row: str) -> list[str]:
    """Published accuracies at imbalance 100, 50 and 10."""
    return [published("cifar100-lt", row, imbalance, 200) for imbalance in (100, 50, 10)]


def measured(page: str) -> Iterator[str]:
    """Rows of the table of measured results."""
    names = PAGES[page]
    if found := read("digits-lt")["summary"].get(page):
        values = " | ".join(
            "{:.1f} ± {:.1f}".format(*found[key]) for key in ("accuracy", "many", "medium", "few")
        )
        yield f"| digits-lt, imbalance 30, 3 seeds | {values} | `digits-lt.json` |"
    for file in ("cifar100-lt-200-epochs", "cifar100-lt-lade-split"):
        for run in read(file)["runs"]:
            if run["method"] in names["rows"]:
                network = run.get("backbone", "resnet32")
                what = f"cifar100-lt, imbalance 100, {run['epochs']} epochs, {network}, one seed"
                what += f", split of seed {run['data_seed']}" if run.get("data_seed") else ""
                yield f"| {what} | {cells(run)} | `{file}.json` |"
    for run in read("cifar100-lt")["runs"]:
        if run["method"] in names["rows"]:
            short = " (**a short check, not comparable**)" if run["epochs_scale"] < 1 else ""
            what = f"cifar100-lt, imbalance {run['imbalance']}, `{run['method']}`, "
            what += f"{run['epochs']} epochs{short}, seed {run['seed']}"
            yield f"| {what} | {cells(run)} | `cifar100-lt.json` |"
    for row in read("embeddings")["rows"]:
        if row["method"] in names.get("features", [f"LongTailClassifier {page}"]):
            what = f"cifar100-lt, pretrained features, `{row['method']}`"
            yield f"| {what} | {cells(row)} | `embeddings.json` |"


def figures(page: str) -> list[str]:
    """All results of a method."""
    lines = []
    lines += ["**Published** accuracy in percent, CIFAR-100-LT, 200 epochs:", ""]
    rows = [(row, published_of(row)) for row in PAGES[page]["rows"]]
    table = [
        f"| `{row}` | {' | '.join(values)} |" for row, values in rows if set(values) != {"n/a"}
    ]
    if table:
        lines += ["| imbalance | 100 | 50 | 10 |", "|---|---|---|---|", *table, ""]
    else:
        lines[-2] += " none for these settings."
    table = list(measured(page))
    if table:
        lines += ["**Measured** with this package, test accuracy in percent at the last epoch:", ""]
        lines += [*HEADER, *table, ""]
    for row in read("pictures")["rows"]:
        if row["row"] in PAGES[page].get("pictures", [f"LongTailClassifier {page}"]):
            balanced, few = ("{} [{}, {}]".format(*row[key]) for key in ("balanced", "few"))
            what = f"{row['data']} (pretrained features), `{row['row']}`"
            lines += [f"{what}: balanced accuracy {balanced}, few {few}; `pictures.json`.", ""]
    steps = {step["method"]: step["images_per_second"] for step in read("step")["steps"]}
    for name in PAGES[page].get("steps", [page]):
        if name in steps:
            lines += [
                f"**Cost** of a training step: {steps[name]:.0f} images per second on one core "
                f"with ResNet-32 (cross-entropy: {steps['ce']:.0f}); `step.json`.",
                "",
            ]
    lines.append(
        "Files are in `results/`, each with its command; `python bench/methods.py` writes this."
    )
    return lines


def on_features() -> list[str]:
    """Heads on pretrained features of photographs, by data set."""
    lines = ["| data | head | balanced accuracy | few |", "|---|---|---|---|"]
    rows = [row for row in read("pictures")["rows"] if row["row"] in PICTURES]
    for row in sorted(rows, key=lambda row: (row["data"], -row["balanced"][0])):
        balanced, few = ("{} [{}, {}]".format(*row[key]) for key in ("balanced", "few"))
        lines.append(f"| {row['data']} | {PICTURES[row['row']]} | {balanced} | {few} |")
    return [*lines, "", "Percent, with 95 % intervals: `results/pictures.json`."]


def on_tables() -> list[str]:
    """Mean over the tables of `bench/advise.py` of the mean over their folds."""
    by_data: dict[str, list[dict[str, float]]] = {}
    for row in read("advise")["rows"]:
        if row["data"] not in TABLES:  # features of images
            continue
        by_data.setdefault(row["data"], []).append(row["balanced_accuracy"])
    methods = next(iter(by_data.values()))[0]
    score = {
        method: mean(mean(fold[method] for fold in folds) for folds in by_data.values())
        for method in methods
    }
    lines = [f"| on tables, mean of {len(by_data)} data sets | balanced accuracy |", "|---|---|"]
    for method, value in sorted(score.items(), key=lambda item: -item[1]):
        lines.append(f"| {method} | {value:.1f} |")
    return [*lines, "", "Percent, on test folds: `results/advise.json`."]


def from_scratch() -> list[str]:
    """Published accuracies and the cost of a step."""
    steps = {step["method"]: step["images_per_second"] for step in read("step")["steps"]}
    lines = [
        "| from scratch, CIFAR-100-LT, 200 epochs | imbalance 100 | 50 | 10 | images per second |",
        "|---|---|---|---|---|",
    ]
    for page, names in PAGES.items():
        for row in names["rows"]:
            if set(values := published_of(row)) != {"n/a"}:
                base = row.split("_branched")[0].replace("pc_softmax", "ce")
                speed = f"{steps[base]:.0f}" if base in steps else "n/a"
                lines.append(f"| [{row}](methods/{page}.md) | {' | '.join(values)} | {speed} |")
    version = read("step")["environment"]["packages"]["longtail"]
    note = "Published accuracy in percent; speed on one core from `results/step.json`, measured "
    note += f"with version {version}."
    return [*lines, "", note]


def main() -> None:
    for page in PAGES:
        write_between(DOCS / "methods" / f"{page}.md", MARK, figures(page))
    for name, block in (
        ("features", on_features),
        ("tables", on_tables),
        ("scratch", from_scratch),
    ):
        write_between(DOCS / "which.md", f"{MARK} {name}", block())


if __name__ == "__main__":
    main()
