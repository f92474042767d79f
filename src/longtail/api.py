"""What the commands do, as functions."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from longtail.data import DataConfig
from longtail.settings import from_keywords, to_config
from longtail.training import (
    Classified,
    Config,
    Embeddings,
    Run,
    embed_dataset,
    judge,
    predict_files,
    train_run,
)


def train(
    data: str | Mapping[str, Any],
    method: str | Mapping[str, Any] = "gml",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Trains a classifier and judges it on the test part of its data.

    Args:
        data: what `longtail train` takes as DATA, or a mapping of `source` and its settings.
        method: a name of `longtail list`, or a mapping of `name` and its settings.
        out: run folder; a new one under `runs/` when not given.
        resume: go on with the run that `out` holds.
        **settings: any other of `longtail.training.Config`, such as `epochs=20`.

    Returns: the finished run: `.metrics`, `.history`, `.predictions()`, `.model()`.
    Raises:
        ValueError: for settings or data that cannot work, before the training starts.
    """
    return start(to_config(from_keywords(data, method, **settings)), out, resume)


def start(config: Config, out: str | Path | None, resume: bool) -> Run:
    """Trains with settings that are resolved, and writes the report."""
    if resume and out is None:
        raise ValueError("resume needs the run folder to go on with: --out runs/...")
    run = train_run(config, Path(out) if out else new_folder(config), resume=resume)
    report([run.folder])
    return run


def new_folder(config: Config) -> Path:
    """A folder under `runs/` that does not exist yet, named after data, method and seed."""
    source = re.sub(r"\W+", "-", Path(config.data.source).stem)
    method = config.method["name"].rpartition(".")[2]
    base = Path("runs") / f"{source}-{method}-seed{config.seed}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def evaluate(run: str | Path | Run, target_prior: str | None = None) -> dict[str, float]:
    """Judges a run's test predictions again, under any class mix.

    Args:
        run: run folder.
        target_prior: `uniform`, `source` (the training mix) or a file of probabilities by class:
            the logits are adjusted to it. As they are when not given.

    Returns: the figures of `longtail.metrics.classification_metrics`, as fractions.
    """
    run = run if isinstance(run, Run) else Run(run)
    return judge(run.predictions(), target_prior)


def predict(
    run: str | Path | Run,
    files: Sequence[str | Path],
    target_prior: str | None = None,
    *,
    out: str | Path | None = None,
    top: int = 5,
) -> Classified:
    """Classifies image files with a run's model.

    Args:
        run: run folder.
        files: image files, and folders that are searched for them.
        target_prior: as for `evaluate`.
        out: CSV file to write: path, class, probability, and the next classes up to `top`.
        top: classes listed for an image.
    """
    classified = predict_files(run if isinstance(run, Run) else Run(run), files, target_prior)
    if out is not None:
        classified.write(Path(out), top)
    return classified


def embed(
    data: str | Mapping[str, Any],
    backbone: str,
    *,
    out: str | Path | None = None,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> Embeddings:
    """Makes features of every image of a data set, for `longtail.sklearn` or any other head.

    Args:
        data: as for `train`; its `image_size` is the size that the backbone sees.
        backbone: a pretrained one, such as `efficientnet_lite0` or a timm name, or a run folder.
        out: Parquet file to write: features, label, split, path, index; class names in its
            metadata.
        precision: of the network.
    """
    config = DataConfig(**({"source": data} if isinstance(data, str) else data))
    embeddings = embed_dataset(config, backbone, precision)
    if out is not None:
        embeddings.write(Path(out))
    return embeddings


def export(
    run: str | Path | Run,
    to: Literal["onnx", "safetensors"] = "onnx",
    out: str | Path | None = None,
) -> Path:
    """Writes a run's model as one checked file for other programs.

    Args:
        run: run folder.
        to: `onnx`: images and a prior in, probabilities out; `safetensors`: the weights.
        out: the file; `model.onnx` or `model.safetensors` in the run folder when not given.
    """
    from longtail.export import export_run

    run = run if isinstance(run, Run) else Run(run)
    return export_run(run, to, Path(out) if out else None)


def report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Writes one page that shows runs side by side.

    Args:
        runs: run folders.
        out: the page; `report.html` in the first run's folder when not given.
    """
    from longtail.report import load_run, write_report

    path = Path(out) if out else Path(runs[0]) / "report.html"
    write_report([load_run(Path(run)) for run in runs], path)
    return path
