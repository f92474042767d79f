"""Start-up of iNaturalist 2018 by its list files: seconds and memory for 461,939 lines.

    python bench/listfile.py [--lists data/splits] [--out results/listfile.json]

The image tree has a folder for each of the 8,142 classes and a file for each line, which are links
to a few JPEGs. Each measurement is from a separate process, including imports, with the file names
in the system's cache. The machine may be shared, so both processor and wall-clock seconds are
given.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from longtail.files import write_json
from longtail.training.run import environment
from made_tree import make_tree

MEASURED = r"""
import json, re, sys, time
began, used = time.perf_counter(), time.process_time()
{work}
status = open("/proc/self/status").read()  # ru_maxrss would hold the peak of the process before
peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
print(json.dumps({{
    "seconds": round(time.perf_counter() - began, 2),
    "processor_seconds": round(time.process_time() - used, 2),
    "peak_gigabytes": round(peak * 1024 / 1e9, 3),
}}))
"""
WORKS = {
    "imports": "import torch, longtail.data",
    "load": """
from longtail.data import DataConfig, load
data = load(DataConfig("inaturalist18", root=sys.argv[1]))
assert (data.num_classes, len(data.train), len(data.test)) == (8142, 437513, 24426)
assert data.prior.imbalance == 500
""",
    "data check": """
from longtail.cli import main
assert main(["data", "check", "inaturalist18", "--data.root", sys.argv[1]]) == 0
""",
}
LIMIT = {"seconds": 15, "gigabytes": 1.5}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lists", type=Path, default=Path("data/splits"))
    options.add_argument("--out", type=Path, default=Path("results/listfile.json"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        lines = make_tree("inaturalist18", Path(folder), given.lists, share=1.0, size=(64, 64))
        print(f"{lines:,} links made in {time.perf_counter() - began:.0f} s")
        figures = {name: measure(work, folder) for name, work in WORKS.items()}
    about = {"environment": environment(), "lines": lines, "limit": LIMIT}
    write_json(given.out, {**about, "processes": figures})


def measure(work: str, root: str) -> dict[str, float]:
    """Runs some lines of Python in a separate process; returns its time and peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(work=work), root],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(figures)
    return figures


if __name__ == "__main__":
    main()
