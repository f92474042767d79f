"""What the commands do, as functions."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from longtail.errors import InputError
from longtail.features import Precision
from longtail.settings import from_keywords, read_data, to_config
from longtail.training import (
    Classified,
    Config,
    Embeddings,
    Run,
    embed_dataset,
    is_first,
    judge,
    judge_protocol,
    predict_files,
    train_run,
)
from longtail.training.segmentation import (
    PixelConfig,
    PixelRun,
    Segmented,
    judge_pixels,
    segment_files,
    train_pixels,
)


def train(
    data: str | Mapping[str, Any],
    method: str | Mapping[str, Any] = "gml",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Trains a classifier of images or of pixels and judges it on the test part of its data.

    Args:
        data: what `longtail train` takes as DATA, or a mapping of `source` and its settings.
        method: a name of `longtail list`, or a mapping of `name` and its settings.
        out: run folder; a new one under `runs/` when not given.
        resume: go on with the run that `out` holds.
        **settings: any other of `longtail.training.Config`, such as `epochs=20`; with
            `task="segmentation"`, of `longtail.training.segmentation.PixelConfig`.

    Returns: the finished run: `.metrics`, `.history`, `.predictions()`, `.model()`.
    Raises:
        ValueError: for settings or data that cannot work, before the training starts.
    """
    return start(to_config(from_keywords(data, method, **settings)), out, resume)


def start(config: Config, out: str | Path | None, resume: bool) -> Run:
    """Trains with settings that are resolved, and writes the report."""
    if resume and out is None:
        raise InputError("resume needs the run folder to go on with: --out runs/...")
    folder = Path(out) if out else new_folder(config)
    run: Run
    if isinstance(config, PixelConfig):
        run = train_pixels(config, folder, resume=resume)
    else:
        run = train_run(config, folder, resume=resume)
    if is_first():
        report([run.folder, *(stage.folder for stage in run.stages)])
    return run


def open_run(run: str | Path | Run) -> Run:
    """A run from its folder: a `PixelRun` where it is one of segmentation."""
    run = run if isinstance(run, Run) else Run(run)
    return PixelRun(run.folder) if run.task == "segmentation" else run


def new_folder(config: Config) -> Path:
    """A folder under `runs/` that does not exist yet, named after data, method and seed."""
    source = re.sub(r"\W+", "-", Path(config.data.source).stem)
    method = config.method["name"].rpartition(".")[2]
    base = Path("runs") / f"{source}-{method}-seed{config.seed}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def evaluate(
    run: str | Path | Run,
    target_prior: str | None = None,
    *,
    split: str | None = None,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
) -> dict[str, float]:
    """Judges a run's test predictions again, under any class mix.

    Args:
        run: run folder.
        target_prior: `uniform`, `source` (the training mix) or a file of probabilities by class:
            the logits are adjusted to it. As they are when not given.
        split: segmentation: `train`, `val` or `test`.
        window: segmentation: height and width of sliding windows.
        flip: segmentation: average with the mirrored image.

    Returns: the figures of `longtail.metrics.classification_metrics`, as fractions; for a run of
        segmentation those of `segmentation_metrics`, for which its model sees the images again
        where anything is asked to be different.
    Raises:
        ValueError: when a setting of segmentation is given for another run.
    """
    run = open_run(run)
    testing: dict[str, Any] = {"split": split, "window": window, "flip": flip}
    if isinstance(run, PixelRun):
        return judge_pixels(run, target_prior, **testing)
    _refuse(testing, run)
    return judge(run.predictions(), target_prior)


def _refuse(testing: Mapping[str, Any], run: Run) -> None:
    """Settings of segmentation have no meaning for another run."""
    given = [name for name, value in testing.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)}: only for runs of segmentation, {run.folder} is none")


def _check_file(out: str | Path | None, command: str) -> None:
    """Refuses a folder before the work is done whose result would have no place."""
    if out is not None and Path(out).is_dir():
        raise InputError(f"out of {command} must be a file, {out} is a folder")


def protocol(run: str | Path | Run) -> list[dict[str, Any]]:
    """Judges a run's test predictions on LADE's eleven shifted test sets.

    Args:
        run: run folder.

    Returns: see `longtail.training.judge_protocol`.
    """
    return judge_protocol(open_run(run).predictions())


def predict(
    run: str | Path | Run,
    files: str | Path | Sequence[str | Path],
    target_prior: str | None = None,
    *,
    out: str | Path | None = None,
    top: int = 5,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
) -> Classified | Segmented:
    """Classifies image files, or every pixel of them, with a run's model.

    Args:
        run: run folder.
        files: image files, and folders that are searched for them.
        target_prior: as for `evaluate`, or `estimate`: the mix of these very images.
        out: CSV file to write: path, class, probability, and the next classes up to `top`. For a
            run of segmentation a folder, which must be given: see `segment_files`.
        top: classes listed for an image.
        window: as for `evaluate`.
        flip: as for `evaluate`.

    Raises:
        ValueError: when a setting of segmentation is given for another run, or `top` is below 1.
    """
    if top < 1:
        raise InputError(f"top of predict must be 1 or more, got {top}")
    run = open_run(run)
    testing: dict[str, Any] = {"window": window, "flip": flip}
    if isinstance(run, PixelRun):
        if out is None:
            raise InputError("out of predict must be a folder for a run of segmentation, got None")
        return segment_files(run, files, Path(out), target_prior, **testing)
    _refuse(testing, run)
    _check_file(out, "predict")
    classified = predict_files(run, files, target_prior)
    if out is not None:
        classified.write(Path(out), top)
    return classified


def embed(
    data: str | Mapping[str, Any],
    backbone: str,
    *,
    out: str | Path | None = None,
    precision: Precision = "auto",
) -> Embeddings:
    """Makes features of every image of a data set, for `longtail.sklearn` or any other head.

    Args:
        data: as for `train`; its `image_size` is the size that the backbone sees.
        backbone: a pretrained one, such as `efficientnet_lite0` or a timm name, or a run folder.
        out: Parquet file to write: features, label, split, path, index; class names in its
            metadata.
        precision: of the network.
    """
    _check_file(out, "embed")
    embeddings = embed_dataset(read_data(data), backbone, precision)
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
        out: the file; for onnx `model.onnx` in the run folder when not given.
    """
    from longtail.export import export_run

    return export_run(open_run(run), to, Path(out) if out else None)


def report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Writes one page that shows runs side by side.

    Args:
        runs: run folders, or one.
        out: the page; `report.html` in the first run's folder when not given.
    """
    from longtail.report import load_pixel_run, load_run, write_pixel_report, write_report

    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    path = Path(out) if out else Path(*folders[:1]) / "report.html"
    if any(Run(folder).task == "segmentation" for folder in folders):
        write_pixel_report([load_pixel_run(folder) for folder in folders], path)
    else:
        write_report([load_run(folder) for folder in folders], path)
    return path
