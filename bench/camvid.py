"""CamVid at 240x180: cross-entropy, logit adjustment and GML with the small network, three seeds.

    python bench/camvid.py [--root data/camvid] [--methods ce logit_adjust gml] [--seeds 0 1 2]

The root contains train/, trainannot/, val/ ... Every run uses its recipe (`longtail train camvid
--method NAME`); an interrupted run resumes, a finished one is only evaluated again. Settings were
chosen on val, and on a drive held out of train (bench/camvid_drive.py), with another seed; the
model of the last epoch is evaluated on test. Each model is also evaluated for several powers of the
pixel prior, including the recipe's own: from 0, the uniform prior, to 1, that of the training set.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from longtail.files import write_json
from longtail.segmentation import (
    PixelConfig,
    PixelDataset,
    PixelRun,
    class_iou,
    confusion_of,
    evaluation_pairs,
    load_pixels,
    segmentation_metrics,
    target_of,
)
from longtail.settings import from_keywords, to_config
from longtail.shift import resolve_prior
from longtail.tasks import train
from longtail.training.run import environment
from pages import write_between

CHOSEN_ON = "val and on a drive held out of train, with another seed"
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
TITLES = ("mIoU", "mAcc", "pixels", "head IoU", "medium IoU", "tail IoU")
SHOWN = ("miou", "macc", "pixel_accuracy", "head_iou", "medium_iou", "tail_iou")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--root", default="data/camvid", help="folder of the data")
    options.add_argument("--methods", nargs="+", default=["ce", "logit_adjust", "gml"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--runs", type=Path, default=Path("runs/camvid"), help="run folders")
    options.add_argument("--out", type=Path, default=Path("results/camvid.json"))
    options.add_argument("--page", type=Path, help="page to write the tables into")
    given = options.parse_args()
    rows = []
    for seed in given.seeds:
        for method in given.methods:
            config = to_config(
                from_keywords({"source": "camvid", "root": given.root}, method, seed=seed)
            )
            assert isinstance(config, PixelConfig)
            dataset = load_pixels(config.data)
            folder = given.runs / f"{method}-seed{seed}"
            run = train(config, folder, resume=True, dataset=dataset)
            rows.append(evaluated(run, method, dataset))
            print({key: rows[-1][key] for key in ("method", "seed", *SHOWN)}, flush=True)
    about = {
        "environment": environment(),
        "unit": "percent",
        "split": "test",
        "selection": f"last epoch; settings chosen on {CHOSEN_ON}",
        "training_pixels": dict(
            zip(dataset.class_names, dataset.prior.counts.tolist(), strict=True)
        ),
    }
    means = {method: mean([r for r in rows if r["method"] == method]) for method in given.methods}
    write_json(given.out, {**about, "runs": rows, "mean": means})
    lines = table(rows, means)
    print("\n".join(lines))
    if given.page:
        write_between(given.page, "bench/camvid.py", lines)


def evaluated(run: PixelRun, method: str, dataset: PixelDataset) -> dict[str, Any]:
    """Metrics of a run in percent: for the recipe's prior, and for each power of the prior."""
    config = run.config
    expressed = resolve_prior(run.model_card()["expresses"], dataset.prior, dataset.num_classes)
    targets = [target_of(power, None, dataset.prior, dataset.class_names) for power in POWERS]
    model, by_power = run.model(), {}
    for part, split in dataset.splits.items():
        if part == "train":
            continue
        pairs = evaluation_pairs(split, dataset.reader(split), torch.device("cpu"), 0)
        matrices = confusion_of(model, pairs, expressed, targets)
        by_power[part] = {
            str(power): percent(segmentation_metrics(matrix, dataset.prior))
            for power, matrix in zip(POWERS, matrices, strict=True)
        }
    iou = class_iou(run.confusion()).tolist()
    return {
        "method": method,
        "seed": config["seed"],
        **percent({key: run.metrics[key] for key in SHOWN}),
        "prior_power": config["prior_power"],
        "class_iou": percent(dict(zip(dataset.class_names, iou, strict=True))),
        "by_prior_power": by_power,
        "epochs": config["epochs"],
        "training_minutes": round(sum(epoch["seconds"] for epoch in run.history) / 60, 1),
    }


def table(rows: list[dict[str, Any]], means: dict[str, Any]) -> list[str]:
    """Results of each method in Markdown: for its own prior, then for each power of the prior."""
    lines = [
        "| CamVid test, percent | prior power | " + " | ".join(TITLES) + " |",
        "|---|---|" + "---|" * len(TITLES),
    ]
    powers = {row["method"]: row["prior_power"] for row in rows}
    for method, figures in means.items():
        cells = [
            f"{f['mean']:.1f}" + (f" ± {f['std']:.1f}" if f["std"] is not None else "")
            for f in figures.values()
        ]
        power = "1, its own" if powers[method] is None else str(powers[method])
        lines.append(f"| {' | '.join([method, power, *cells])} |")
    lines += [
        "",
        "| mIoU / mAcc / tail IoU at prior power | " + " | ".join(map(str, POWERS)) + " |",
    ]
    lines.append("|---|" + "---|" * len(POWERS))
    for method in means:
        own = [row["by_prior_power"]["test"] for row in rows if row["method"] == method]
        cells = [
            " / ".join(
                f"{statistics.mean(row[str(power)][key] for row in own):.1f}"
                for key in ("miou", "macc", "tail_iou")
            )
            for power in POWERS
        ]
        lines.append(f"| {' | '.join([method, *cells])} |")
    seeds = len({row["seed"] for row in rows})
    rule = f"the model of the last epoch, settings chosen on {CHOSEN_ON}"
    return [*lines, "", f"{seeds} seeds, {rule}: `python bench/camvid.py`."]


def percent(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(100 * value, 2) for name, value in figures.items()}


def mean(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the seeds."""
    columns = {key: [row[key] for row in rows] for key in SHOWN}
    return {
        key: {
            "mean": round(statistics.mean(values), 2),
            "std": round(statistics.stdev(values), 2) if len(values) > 1 else None,
        }
        for key, values in columns.items()
    }


if __name__ == "__main__":
    main()
