"""How well `unlike` separates pictures of something else from held-out ones, and its uniformity.

    python bench/unlike.py NAME --folder FOLDER [--others NAME=FOLDER ...] [--out FILE]
    python bench/unlike.py --docs docs/pictures.md    # only writes the table of the result file

FOLDER is a data set; the others are pictures of something else, in addition to synthetic noise and
pictures of one colour. Features are those of EfficientNet-Lite0 at 224 pixels. The reference is
that of a run: up to 2,000 training images, 1,000 held-out ones. Area under the ROC curve of
`unlike` between test images of FOLDER (every second one; the rest calibrates) and at most 500 of
the other pictures; share of each below 0.01. `five unknown classes`: five classes are left
out of the training split and the reference, and their test images are the other pictures; the mean
of four draws.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from longtail.data import DataConfig
from longtail.files import write_json
from longtail.training import Embeddings, embed_dataset
from longtail.training.reference import STORED, Reference, spread_rows
from longtail.training.run import environment
from pages import write_between

BACKBONE = "efficientnet_lite0"
COUNT = 500
BELOW = 0.01


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", nargs="?")
    options.add_argument("--folder", type=Path)
    options.add_argument("--others", nargs="*", default=[])
    options.add_argument("--out", type=Path, default=Path("results/unlike.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/unlike.py", table(result))
        return
    torch.set_num_threads(1)
    data = embed_dataset(DataConfig(str(given.folder)), BACKBONE)
    x, y = map(torch.from_numpy, data.split("train"))
    held, truth = map(torch.from_numpy, data.split("test"))
    reference = Reference.of(x[spread_rows(y, STORED)], held[::2])
    own = reference.unlike(held[1::2])
    others = {"noise": made(noise), "one colour": made(colour)}
    for name, folder in (text.split("=") for text in given.others):
        found = embed_dataset(DataConfig(folder), BACKBONE)
        step = max(1, len(found.features) // COUNT)
        others[name] = torch.from_numpy(found.features[::step].copy())
    rows = [row(name, own, reference.unlike(features)) for name, features in others.items()]
    rows.append(unknown_classes(x, y, held, truth))
    print(json.dumps(rows, indent=1))
    write_json(
        given.out,
        {
            "command": "python bench/unlike.py NAME --folder FOLDER --others NAME=FOLDER ...",
            "environment": environment(),
            "data": given.name,
            "training images": len(x),
            "test images": len(held),
            "held-out images below 0.01, percent": percent(own),
            "rows": rows,
        },
    )


def row(name: str, own: Tensor, others: Tensor) -> dict[str, Any]:
    """Area under the curve, and how many others are below the bound."""
    truth = [0] * len(own) + [1] * len(others)
    area = roc_auc_score(truth, -torch.cat([own, others]).numpy())
    return {
        "pictures": name,
        "count": len(others),
        "auc": round(float(area), 3),
        "below": percent(others),
    }


def percent(values: Tensor) -> float:
    """Percentage below the bound."""
    return round(100 * float((values < BELOW).double().mean()), 1)


def unknown_classes(x: Tensor, y: Tensor, held: Tensor, truth: Tensor) -> dict[str, Any]:
    """Test images of classes that were left out, against those of the others."""
    random, rows = np.random.default_rng(0), []
    for _ in range(4):
        out = torch.from_numpy(random.choice(int(y.max()) + 1, 5, replace=False))
        known = ~torch.isin(y, out)
        inside = ~torch.isin(truth, out)
        chosen = spread_rows(y[known], STORED)
        own = held[inside]
        reference = Reference.of(x[known][chosen], own[::2])
        rows.append(row("", reference.unlike(own[1::2]), reference.unlike(held[~inside])))
    return {
        "pictures": "five unknown classes",
        "count": sum(r["count"] for r in rows),
        "auc": round(float(np.mean([r["auc"] for r in rows])), 3),
        "below": round(float(np.mean([r["below"] for r in rows])), 1),
    }


def made(picture: Any) -> Tensor:
    """Features of 200 synthetic pictures."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(200):
            path = Path(folder) / "train" / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(random)).save(path)
        found: Embeddings = embed_dataset(DataConfig(folder, test_fraction=0.5), BACKBONE)
    return torch.from_numpy(found.features)


def noise(random: np.random.Generator) -> Any:
    """Random pixels."""
    return random.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def colour(random: np.random.Generator) -> Any:
    """One colour."""
    return np.broadcast_to(random.integers(0, 256, 3, dtype=np.uint8), (64, 64, 3)).copy()


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    lines = ["| pictures | number | area under the curve | below 0.01 |", "|---|---|---|---|"]
    lines += [
        f"| {r['pictures']} | {r['count']} | {r['auc']:.3f} | {r['below']} % |"
        for r in result["rows"]
    ]
    own = result["held-out images below 0.01, percent"]
    return [*lines, f"| held-out images | {result['test images'] // 2} | | {own} % |"]


if __name__ == "__main__":
    main()
