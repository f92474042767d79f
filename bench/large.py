"""GML from start to report on trees with all classes of iNaturalist 2018 and ImageNet-LT.

    python bench/large.py [--lists data/splits] [--out results/large.json] [--keep FOLDER]

The trees have a share of each class's images, at least one, as links to a few JPEGs. This tests
that 8,142 classes pass through lists, workers, queue, loss, predictions, metrics and page, and
measures time and memory. The network is as small as possible, and the accuracy is meaningless.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from listfile import measure
from longtail.files import write_json
from longtail.models import SmallNet
from longtail.training import Run
from longtail.training.run import environment
from made_tree import make_tree

SIZE = 72  # above 64 pixels, images stay in their files and workers read them
SHARES = {"imagenet-lt": 0.03, "inaturalist18": 0.01}
WORK = """
from longtail.cli import main
sys.path.insert(0, "bench")
words = ["train", {name!r}, "--method", "gml", "--data.root", sys.argv[1], "--out", {out!r}]
words += ["--data.image_size", "{size}", "--data.workers", "1", "--backbone", "large.Shrunk"]
words += ["--epochs", "1", "--teacher", "none", "--method.queue_size", "{queue}", "--method.width"]
words += ["32", "--method.hidden", "64", "--views", "weak", "--device", "cpu"]
assert main(words) == 0
"""


class Shrunk(SmallNet):
    """The small network on images that are shrunk to a quarter first."""

    def __init__(self) -> None:
        super().__init__(32)

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, 64) of normalised images (B, 3, H, W)."""
        return super().encode(F.avg_pool2d(images, 4))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lists", type=Path, default=Path("data/splits"))
    options.add_argument("--out", type=Path, default=Path("results/large.json"))
    options.add_argument("--keep", type=Path, help="where the runs go, to be looked at afterwards")
    given = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, share in SHARES.items():
            root = Path(folder) / name
            made = make_tree(name, root, given.lists, share=share, size=(96, SIZE))
            out = (given.keep or Path(folder)) / f"run-{name}"
            rows.append({"data": name, "share": share, "files": made, **train(name, root, out)})
            print(rows[-1])
    about = {"environment": environment(), "image_size": SIZE, "workers": 1}
    write_json(given.out, {**about, "runs": rows})


def train(name: str, root: Path, out: Path) -> dict[str, object]:
    """Trains in a separate process; returns its cost and what it left."""
    queue = {"imagenet-lt": 16384, "inaturalist18": 65536}[name]
    began = time.perf_counter()
    work = WORK.format(name=name, out=str(out), size=SIZE, queue=queue)
    figures = measure(work, str(root))
    run = Run(out)
    epoch = run.history[-1]
    sizes = {
        f"{file}_megabytes": round((out / file).stat().st_size / 1e6, 2)
        for file in ("predictions.parquet", "report.html")
    }
    return {
        "classes": run.prior.num_classes,
        "imbalance": run.prior.imbalance,
        "train_images": int(run.prior.counts.sum()),
        "test_images": len(run.predictions().labels),
        "queue": queue,
        "whole": figures,
        "training_seconds": round(epoch["seconds"], 2),
        "images_per_second": round(epoch["images_per_second"], 1),
        "loss": round(epoch["loss"], 3),
        "rest_seconds": round(time.perf_counter() - began - epoch["seconds"], 2),
        **sizes,
    }


if __name__ == "__main__":
    main()
