"""Images per second of a training on the CPU: one process with one thread, with two, two processes.

    python bench/processes.py [--root data] [--method ce] [--rounds 1] [--out FILE]

Each trains a ResNet-32 on CIFAR-100-LT with the method's recipe, one after the other, as a program
of its own, for one epoch; the speed is the median of the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from longtail.files import write_json
from longtail.training.run import environment

ROWS = ((1, 1), (1, 2), (2, 1))  # processes, threads of each


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--root", default="data")
    options.add_argument("--method", default="ce")
    options.add_argument("--imbalance", type=int, default=500, help="larger: fewer images")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--out", type=Path, default=Path("results/processes.json"))
    given = options.parse_args()
    rounds = [[speed(given, *row) for row in ROWS] for _ in range(given.rounds)]
    rows = [
        {
            "processes": processes,
            "threads": threads,
            "images_per_second": round(statistics.median(one[n] for one in rounds), 1),
        }
        for n, (processes, threads) in enumerate(ROWS)
    ]
    about = {"environment": environment(), "method": given.method, "rounds": given.rounds}
    write_json(given.out, {**about, "rows": rows})
    print(json.dumps(rows, indent=1))


def speed(given: argparse.Namespace, processes: int, threads: int) -> float:
    """Images per second of all processes together."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "cifar100-lt", "--method", given.method, "--epochs", "1"]
        words += ["--data.root", given.root, "--data.imbalance", str(given.imbalance)]
        words += ["--devices", str(processes), "--device", "cpu", "--out", f"{folder}/run"]
        subprocess.run(
            [sys.executable, "-m", "longtail.cli", *words],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        last = Path(folder, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["images_per_second"])


if __name__ == "__main__":
    main()
