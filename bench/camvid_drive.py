"""CamVid with a drive held out: which classifier of pixels works on a street that it never saw?

    python bench/camvid_drive.py [--root data/camvid] [--drive 0006R0]

The val split of CamVid is from the same drive as most training images, so that memorisation helps
there; test is mostly from another drive. Here a drive is taken out of the training split, and the
models of the recipes, trained half as long, are evaluated on it; test is not used. Settings that
differ from the recipe are in each row.
"""

import argparse
from pathlib import Path
from typing import Any

from camvid import evaluated
from longtail.files import write_json
from longtail.segmentation import PixelConfig, load_pixels
from longtail.settings import from_keywords, to_config
from longtail.tasks import train
from longtail.training.run import environment

VARIANTS: dict[str, dict[str, Any]] = {
    "logit_adjust-linear": {"name": "logit_adjust", "head": "linear"},
    "logit_adjust-cosine": {"name": "logit_adjust", "head": "cosine"},
    "gml-linear": {"name": "gml", "head": "linear"},
    "gml-cosine": {"name": "gml", "head": "cosine"},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--root", type=Path, default=Path("data/camvid"), help="folder of data")
    options.add_argument("--drive", default="0006R0", help="how the names of its files begin")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    options.add_argument("--epochs", type=int, default=15)
    options.add_argument("--seed", type=int, default=100)
    options.add_argument("--runs", type=Path, default=Path("runs/camvid-drive"))
    options.add_argument("--out", type=Path, default=Path("results/camvid_drive.json"))
    given = options.parse_args()
    root = given.runs / "data"
    hold_out(given.root, given.drive, root)
    rows = []
    for name in given.variants:
        data, method = {"source": "camvid", "root": root.as_posix()}, VARIANTS[name]
        config = to_config(from_keywords(data, method, epochs=given.epochs, seed=given.seed))
        assert isinstance(config, PixelConfig)
        dataset = load_pixels(config.data)
        run = train(config, given.runs / name, resume=True, dataset=dataset)
        rows.append({**evaluated(run, config.method["name"], dataset), "head": method["head"]})
        print(name, rows[-1]["by_prior_power"], flush=True)
    about = {"environment": environment(), "unit": "percent", "split": f"val: drive {given.drive}"}
    write_json(given.out, {**about, "runs": rows})
    print(f"written: {given.out}")


def hold_out(source: Path, drive: str, root: Path) -> None:
    """Links to the training split of CamVid, with a drive as the val split."""
    for kind in ("", "annot"):
        for file in sorted((source / f"train{kind}").iterdir()):
            part = "val" if file.name.startswith(drive) else "train"
            link = root / f"{part}{kind}" / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(file.resolve())


if __name__ == "__main__":
    main()
