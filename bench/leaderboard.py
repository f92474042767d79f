"""The audited table of CIFAR-100-LT: accuracies with their conditions, ours and the published ones.

    python bench/leaderboard.py [--results FILE ...] [--page docs/leaderboard.md]

Ours are the rows of the result files that were trained for 200 epochs or more; the published ones
are from the recipes and from the papers named below. Nothing is trained.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from longtail.models import create_backbone, create_head
from longtail.recipes import cifar_lt
from longtail.reproduce import Cell
from pages import write_between

SOURCE = "cifar100-lt"
CLASSES = 100
PAPERS = {
    "ce": "cross-entropy in Cao et al., NeurIPS 2019",
    "ce_branched": "softmax in Hong et al., CVPR 2021",
    "pc_softmax_branched": "Hong et al., CVPR 2021",
    "logit_adjust_branched": "Balanced Softmax in Hong et al., CVPR 2021",
    "lade": "Hong et al., CVPR 2021",
    "dbm": "Son et al., AAAI 2025",
    "bcl": "Zhu et al., CVPR 2022",
    "proco": "Du et al., TPAMI 2024",
    "gml": "Suh and Seo, ICML 2023",
}
EXPERTS = "ResNet-32, three experts"
WIDE = "ResNet-32, widths 64/128/256"
OTHER_SIZES = {WIDE: ("7.4 M", "16 times resnet32"), "ResNet-34": ("21 M", "n/a")}
OWN_SPLIT = "a random one of its own"
FIRST_IMAGES = "the first images of each class"
COMMON_SPLIT = "the common one"
# Which epoch is judged is taken from the authors' code; BCL's code for CIFAR was never published.
SELECTION = {"bcl": "n/a"}
# LADE's code draws the split with the seed of the run, which its README states for one row.
UNKNOWN_SPLIT = {"lade", "ce_branched", "pc_softmax_branched", "logit_adjust_branched", "bcl"}
SPLITS = {("lade", 100): "the same draw, seed 1"}
TITLES = ("method", "accuracy, %", "seeds", "epochs", "selection", "split", "network")
TITLES = (*TITLES, "parameters", "multiply-adds", "from")


@dataclass(frozen=True)
class Row:
    """One accuracy with its conditions; None or `n/a` for what the authors do not state."""

    method: str
    accuracy: float
    epochs: int | None
    network: str
    selection: str
    origin: str
    split: str = "n/a"
    spread: str = ""
    seeds: str = "n/a"

    @property
    def cells(self) -> list[str]:
        """The cells of the table."""
        parameters, operations = size(self.network)
        accuracy = f"{self.accuracy:.1f}{self.spread}"
        about = [self.method, accuracy, self.seeds, str(self.epochs or "n/a"), self.selection]
        return [*about, self.split, self.network, parameters, operations, self.origin]


# Published at imbalance 100 for methods or networks that are not in this package; epochs, selection
# and split as in the authors' code, where it is known.
OTHERS = [
    Row("DBM on GML", 53.7, 200, "resnet32", "n/a", "Son et al., AAAI 2025"),
    Row("GLMC", 55.9, 200, WIDE, "best epoch", "Du et al., CVPR 2023", OWN_SPLIT),
    Row("GLMC with MaxNorm", 57.1, 200, WIDE, "best epoch", "Du et al., CVPR 2023", OWN_SPLIT),
    Row("BCE3S", 59.5, 320, "ResNet-34", "best epoch; last: 57.75", "BCE3S"),
    Row("LOS", 54.9, None, "ResNet-34", "best epoch", "LOS, ICLR 2025"),
    Row(
        "Weight Balancing",
        53.4,
        330,
        "ResNet-34",
        "best epoch",
        "Alshammari et al., CVPR 2022",
        FIRST_IMAGES,
    ),
    Row("ImbSAM", 51.1, 200, "ResNet-34", "best epoch", "ImbSAM, ICCV 2023"),
    Row("SHIKE", 56.3, 200, EXPERTS, "best epoch", "Jin et al., CVPR 2023", COMMON_SPLIT),
    Row("MDCS", 55.4, 400, EXPERTS, "best epoch", "MDCS, ICCV 2023"),
]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    files = [Path(f"results/cifar100-lt{end}.json") for end in ("", "-lade-split")]
    options.add_argument("--results", nargs="*", type=Path, default=files)
    options.add_argument("--page", type=Path, default=Path("docs/leaderboard.md"))
    given = options.parse_args()
    lines: list[str] = []
    larger: list[Row] = []
    for imbalance in (100, 50, 10):
        rows = [*published(imbalance), *ours(given.results, imbalance)]
        rows += OTHERS if imbalance == 100 else []
        small = [row for row in rows if row.network.startswith("resnet32")]
        larger += [row for row in rows if row not in small and imbalance == 100]
        lines += [f"## Imbalance {imbalance}, a ResNet-32", "", *table(small)]
    lines += ["## Imbalance 100, larger networks", "", *table(larger)]
    write_between(given.page, "bench/leaderboard.py", ["", *lines])


def published(imbalance: int) -> Iterator[Row]:
    """The published accuracies of this package's recipes."""
    for name, known in cifar_lt.PUBLISHED[SOURCE].items():
        for (at, epochs), accuracy in known.items():
            if at == imbalance:
                selection = cifar_lt.NOTES.get((SOURCE, name), SELECTION.get(name, "last epoch"))
                split = SPLITS.get((name, at), "n/a" if name in UNKNOWN_SPLIT else COMMON_SPLIT)
                yield Row(name, accuracy, epochs, network(name), selection, PAPERS[name], split)


def ours(files: list[Path], imbalance: int) -> Iterator[Row]:
    """Mean and standard deviation over seeds of the runs trained with this package."""
    groups: dict[tuple[str, int, str], list[tuple[Path, dict[str, Any]]]] = {}
    for file in files:
        for row in json.loads(file.read_text(encoding="utf-8"))["runs"]:
            if (
                row["imbalance"] == imbalance
                and row["epochs"] >= 200
                and row.get("stage") != "teacher"
            ):
                drawn = row.get("data_seed", 0)
                split = f"the same draw, seed {drawn}" if drawn else COMMON_SPLIT
                groups.setdefault((row["method"], row["epochs"], split), []).append((file, row))
    for (method, epochs, split), found in groups.items():
        values = [row["accuracy"] for _, row in found]
        yield Row(
            f"**{method}**",
            statistics.mean(values),
            epochs,
            network(method),
            "last epoch",
            f"this package, `{found[-1][0].as_posix()}`",
            split,
            spread=f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "",
            seeds=str(len(values)),
        )


def network(row: str) -> str:
    """Backbone of a row of the matrix."""
    cell = Cell(SOURCE, row, 100, 0, 1.0, Path())
    return str((cell if cell.trains or not cell.of else cell.of).settings["backbone"])


@cache
def size(name: str) -> tuple[str, str]:
    """Parameters of a network with its classifier, and multiply-adds for an image of 32 pixels."""
    if name.startswith("resnet"):
        torch.manual_seed(0)
        backbone = create_backbone(name).eval()
        model = nn.Sequential(backbone, create_head("linear", backbone.num_features, CLASSES))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        parameters = sum(p.numel() for p in model.parameters())
        return f"{parameters / 1e6:.2f} M", f"{counter.get_total_flops() / 2e6:.0f} M"
    return OTHER_SIZES.get(name, ("n/a", "n/a"))


def table(rows: list[Row]) -> list[str]:
    """Rows in Markdown, the best accuracy first."""
    lines = ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
    ranked = sorted(rows, key=lambda row: row.accuracy, reverse=True)
    return [*lines, *("| " + " | ".join(row.cells) + " |" for row in ranked), ""]


if __name__ == "__main__":
    main()
