"""The cost of GML on many GPUs and with long queues, by formulas based on measurements.

    python bench/scale.py [--teraflops 100] [--gigabytes 25] [--out results/scale.json]

No GPU was measured. Arithmetic, memory and network bytes follow from the recipes' networks, counted
on torch's meta device, and from results/*.json; seconds follow from them and from two assumptions,
which the options set: the arithmetic that a GPU achieves, and the bandwidth of its link to the
others. The tables of docs/scale.md are rewritten.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from longtail.files import write_json
from longtail.models import create_backbone
from longtail.recipes import find_recipe
from longtail.training.run import environment
from pages import write_between

GPUS = {1: 128, 8: 16, 64: 16}  # images of a step on each
KEYS = (10**4, 10**5, 10**6)
CLASSES = {"imagenet-lt": (1000, 115_846), "inaturalist18": (8142, 437_513)}
RESULTS = Path("results")
DOCS = Path("docs/scale.md")


@dataclass(frozen=True)
class Networks:
    """The networks of a recipe: GFLOP of an image's forward pass, parameters, widths."""

    student: float
    teacher: float
    student_parameters: int
    teacher_parameters: int
    features: int  # D, of the teacher
    hidden: int  # H
    width: int  # E
    classes: int

    @classmethod
    def of(cls, source: str) -> "Networks":
        """The networks of GML's recipe for a data set."""
        settings = find_recipe(source, "gml").settings
        student, teacher = settings["backbone"], settings["teacher_stage"]["backbone"]
        (flop, count, _), (teacher_flop, teacher_count, features) = map(counted, (student, teacher))
        method = settings["method"]
        widths = features, method["hidden"], method["width"], CLASSES[source][0]
        return cls(flop, teacher_flop, count, teacher_count, *widths)


def counted(name: str) -> tuple[float, int, int]:
    """FLOP of an image's forward pass at 224 pixels, parameters and features of a backbone."""
    with torch.device("meta"):
        backbone = create_backbone(name)
        with FlopCounterMode(display=False) as counter:
            backbone.encode(torch.zeros(1, 3, 224, 224))
    parameters = sum(p.numel() for p in backbone.parameters())
    return float(counter.get_total_flops()), parameters, backbone.num_features


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--teraflops", type=float, default=100.0)
    options.add_argument("--gigabytes", type=float, default=25.0)
    options.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    given = options.parse_args()
    files = ("losses", "input", "step", "listfile", "large")
    measured = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in files}
    rows = [
        cost(source, networks, gpus, batch, keys, given, measured)
        for source in CLASSES
        for networks in [Networks.of(source)]
        for gpus, batch in GPUS.items()
        for keys in KEYS
    ]
    about = {
        "environment": environment(),
        "measured_on": "no GPU; networks counted, not run",
        "assumed": {"teraflops": given.teraflops, "gigabytes_per_second": given.gigabytes},
    }
    write_json(given.out, {**about, "costs": rows})
    write_tables(rows, measured)


def cost(
    source: str,
    net: Networks,
    gpus: int,
    batch: int,
    keys: int,
    given: argparse.Namespace,
    measured: dict[str, Any],
) -> dict[str, Any]:
    """One GPU's share of a step, by the formulas of docs/scale.md."""
    one, two = net.features * net.hidden, net.hidden * net.width
    trained = net.student_parameters + net.classes * net.features + 2 * (one + two)
    flop = {
        "networks": batch * (2 * 3 * net.student + 2 * net.teacher),
        "queue": keys * 2 * (2 * one + 3 * two),
        "scores": 6 * batch * keys * net.width + 6 * batch * net.classes * net.features,
    }
    memory = {
        "weights": 12 * trained + 4 * net.teacher_parameters,
        "queue": keys * (4 * net.features + 16),
        "embedding": keys * 4 * 2 * (net.hidden + net.width),
        "scores": score_peak(measured["losses"], net.classes) * 4 * batch * keys,
    }
    network = {
        "gradients": 2 * (gpus - 1) / gpus * 4 * trained,
        "keys": (gpus - 1) * batch * (4 * net.features + 16),
    }
    compute = sum(flop.values()) / (given.teraflops * 1e12)
    sent = sum(network.values()) / (given.gigabytes * 1e9)
    speed = batch / (compute + sent)
    milliseconds = reading(measured["input"])
    return {
        "data": source,
        "gpus": gpus,
        "images_of_a_gpu": batch,
        "keys": keys,
        "room": keys >= net.classes,
        "tera_flop": {name: value / 1e12 for name, value in flop.items()},
        "gigabytes": {name: value / 1e9 for name, value in memory.items()},
        "network_megabytes": {name: value / 1e6 for name, value in network.items()},
        "queue_share": (flop["queue"] + flop["scores"]) / sum(flop.values()),
        "network_share": sent / (compute + sent),
        "images_per_second": gpus * speed,
        "reading_cores_of_a_gpu": speed * milliseconds / 1e3,
        "hours_for_an_epoch": CLASSES[source][1] / (gpus * speed) / 3600,
        "microseconds_of_a_key": {
            "embed": 2 * (2 * one + 3 * two) / given.teraflops / 1e6,
            "send": 2 * 4 * net.width / given.gigabytes / 1e3,
        },
        "keys_as_dear_as_networks": flop["networks"]
        / (2 * (2 * one + 3 * two) + 6 * batch * net.width),
    }


def score_peak(losses: dict[str, Any], classes: int) -> float:
    """Peak memory of GML's loss over its matrix of scores, measured with the nearest classes."""
    rows = [row for row in losses["cases"] if row["loss"] == "GML"]
    row = min(rows, key=lambda row: abs(row["shape"]["C"] - classes))
    return float(row["peak_over_matrix"]["ours"])


def reading(measured: dict[str, Any]) -> float:
    """Processor milliseconds to read an image and cut GML's three views."""
    (row,) = (r for r in measured["inputs"] if (r["method"], r["workers"]) == ("gml", 0))
    return 1e3 / float(row["crops_per_second"])


def write_tables(rows: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    """Writes the tables between the marks of docs/scale.md."""
    write_between(DOCS, "measured", measured_table(measured))
    write_between(DOCS, "cost", cost_table(rows))
    write_between(DOCS, "limits", limit_table(rows))


def cost_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| data | GPUs x images | keys | TFLOP networks / queue / scores | queue's share | "
        "GB weights / queue / its embedding / scores | MB sent: gradients / keys | "
        "images/s | reading cores per GPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["room"]:
            flop, memory, sent = row["tera_flop"], row["gigabytes"], row["network_megabytes"]
            cells = [
                row["data"],
                f"{row['gpus']} x {row['images_of_a_gpu']}",
                f"{row['keys']:,}",
                " / ".join(f"{value:.2f}" for value in flop.values()),
                f"{100 * row['queue_share']:.0f}%",
                " / ".join(f"{value:.2f}" for value in memory.values()),
                " / ".join(f"{value:.1f}" for value in sent.values()),
                f"{row['images_per_second']:,.0f}",
                f"{row['reading_cores_of_a_gpu']:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def limit_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| data | GPUs x images | keys whose arithmetic equals that of the networks | "
        "share of time on the network with 10^4 keys | the same over a tenth of the link speed |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row["keys"] == KEYS[0]:
            share = row["network_share"]
            lines.append(
                f"| {row['data']} | {row['gpus']} x {row['images_of_a_gpu']} | "
                f"{row['keys_as_dear_as_networks']:,.0f} | {100 * share:.0f}% | "
                f"{100 * 10 * share / (1 + 9 * share):.0f}% |"
            )
    key = rows[0]["microseconds_of_a_key"]
    return [
        *lines,
        "",
        f"Embedding a key takes {key['embed']:.2f} microseconds of arithmetic; sending an "
        f"embedding and its gradient, {key['send']:.2f}.",
    ]


def measured_table(measured: dict[str, Any]) -> list[str]:
    """The measurements on this machine's processor that the model is based on."""
    gml = next(row for row in measured["step"]["steps"] if row["method"] == "gml")
    scores = [row for row in measured["losses"]["cases"] if row["loss"] == "GML"][1:]
    read = {row["workers"]: row for row in measured["input"]["inputs"] if row["method"] == "gml"}
    start, large = measured["listfile"]["processes"]["load"], measured["large"]["runs"][-1]
    over = ", ".join(f"{row['over_limit']:.2f} (C = {row['shape']['C']:,})" for row in scores)
    return [
        "| quantity | value | file |",
        "|---|---|---|",
        f"| GML's whole step: share of the bare networks' speed | {gml['share_of_limit']:.2f} | "
        "step.json |",
        f"| GML's loss: time over that of its matrix product | {over} | losses.json |",
        f"| reading an image for three views: processor ms | {reading(measured['input']):.2f} | "
        "input.json |",
        f"| the same: share of bare decoding's speed | {read[0]['crops_over_limit']:.2f} | "
        "input.json |",
        f"| start with {measured['listfile']['lines']:,} lines: processor s, GB | "
        f"{start['processor_seconds']:.1f}, {start['peak_gigabytes']:.2f} | listfile.json |",
        f"| a run with {large['classes']:,} classes, {large['train_images']:,} + "
        f"{large['test_images']:,} small images: processor s, GB | "
        f"{large['whole']['processor_seconds']:.0f}, {large['whole']['peak_gigabytes']:.2f} | "
        "large.json |",
    ]


if __name__ == "__main__":
    main()
