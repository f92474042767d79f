"""The commands as functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longtail.errors import InputError
from longtail.listing import list_names

if TYPE_CHECKING:  # PyTorch takes seconds to import, which `longtail --help` need not wait for
    from longtail.data import Dataset, Findings
    from longtail.features import Precision
    from longtail.training import Classified, Config, Embeddings, Run
    from longtail.training.segmentation import Segmented

# Words of each command, and the function behind it.
COMMANDS = {
    "train": "train",
    "evaluate": "evaluate",
    "protocol": "protocol",
    "predict": "predict",
    "embed": "embed",
    "export": "export",
    "report": "report",
    "reproduce": "reproduce",
    "data check": "check_data",
    "data shard": "shard_data",
    "list": "list_names",
}
__all__ = [
    "COMMANDS",
    "check_data",
    "embed",
    "evaluate",
    "export",
    "list_names",
    "predict",
    "protocol",
    "report",
    "reproduce",
    "shard_data",
    "train",
]


def train(
    data: str | Mapping[str, Any] | Dataset,
    method: str | Mapping[str, Any] = "gml",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Trains a classifier of images or of pixels, and evaluates it on the test split.

    Args:
        data: name of a data set, folder, table or import path; a mapping with `source` and its
            settings; or a `Dataset`.
        method: a name of `longtail list`, an import path, or a mapping with `name` and its
            settings.
        out: run folder (default: a new one under `runs/`)
        resume: resume the run in the folder `out`
        **settings: any other setting of `longtail.training.Config`, such as `epochs=20`; with
            `task="segmentation"`, of `longtail.training.segmentation.PixelConfig`.

    Returns: the finished run: `.metrics`, `.history`, `.predictions()`, `.model()`.
    Raises:
        InputError: for invalid settings or data, before the training starts.
    """
    from longtail.data import Dataset
    from longtail.settings import from_keywords, to_config

    if isinstance(data, Dataset):
        config = to_config(from_keywords(data.name, method, **settings))
        return start(config, out, resume, data)
    return start(to_config(from_keywords(data, method, **settings)), out, resume)


def start(
    config: Config, out: str | Path | None, resume: bool, dataset: Dataset | None = None
) -> Run:
    """Trains with resolved settings, and writes the report."""
    from longtail.training import is_first, train_run
    from longtail.training.segmentation import PixelConfig, train_pixels

    if resume and out is None:
        raise InputError("out must be the run folder to resume, as in --out runs/..., got none")
    folder = Path(out) if out else new_folder(config)
    run: Run
    if isinstance(config, PixelConfig):
        run = train_pixels(config, folder, resume=resume)
    else:
        run = train_run(config, folder, resume=resume, dataset=dataset)
    if is_first():
        report([run.folder, *(stage.folder for stage in run.stages)])
    return run


def open_run(run: str | Path | Run) -> Run:
    """A run from its folder: a `PixelRun` where its task is segmentation."""
    from longtail.training import Run
    from longtail.training.segmentation import PixelRun

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
    split: Literal["train", "val", "test"] | None = None,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
) -> dict[str, float]:
    """Evaluates a run's saved test predictions, under any class prior.

    Args:
        run: run folder
        target_prior: class prior to adjust the logits to: `uniform`, `source` (of the training
            set) or a file of probabilities by class (default: no adjustment)
        split: segmentation: split to evaluate on
        window: segmentation: height and width of sliding windows
        flip: segmentation: average the logits with those of the mirrored image

    Returns: the metrics of `longtail.metrics.classification_metrics`, as fractions; for a run of
        segmentation those of `segmentation_metrics`, for which its model sees the images again
        where an argument is given.
    Raises:
        InputError: when a setting of segmentation is given for another run.
    """
    from longtail.training import judge
    from longtail.training.segmentation import PixelRun, judge_pixels

    run = open_run(run)
    testing: dict[str, Any] = {"split": split, "window": window, "flip": flip}
    if isinstance(run, PixelRun):
        return judge_pixels(run, target_prior, **testing)
    _refuse(testing, run)
    return judge(run.predictions(), target_prior)


def _refuse(testing: Mapping[str, Any], run: Run) -> None:
    """Refuses settings of segmentation for another run."""
    given = [name for name, value in testing.items() if value is not None]
    if given:
        raise InputError(
            f"{', '.join(given)}: only for runs of segmentation, got {run.folder}, a run of "
            f"{run.task}"
        )


def _check_file(out: str | Path | None, command: str) -> None:
    """Fails early when `out` is a folder."""
    if out is not None and Path(out).is_dir():
        raise InputError(f"out of {command} must be a file, {out} is a folder")


def protocol(run: str | Path | Run) -> list[dict[str, Any]]:
    """Evaluates a run's test predictions on LADE's eleven shifted test sets.

    Args:
        run: run folder

    Returns: see `longtail.training.judge_protocol`.
    """
    from longtail.training import judge_protocol

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
    """Classifies image files, or each of their pixels, with a run's model.

    Args:
        run: run folder
        files: image files, and folders that are searched for them
        target_prior: as for `evaluate`, or `estimate`: the class prior of these images
        out: CSV file to write: path, class, probability, and the next classes up to `top`; for a
            run of segmentation a folder (required on the command line)
        top: classes listed per image
        window: segmentation: height and width of sliding windows
        flip: segmentation: average the logits with those of the mirrored image

    Raises:
        InputError: when a setting of segmentation is given for another run, or `top` is below 1.
    """
    from longtail.training import predict_files
    from longtail.training.segmentation import PixelRun, segment_files

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
    *,
    backbone: str,
    out: str | Path | None = None,
    precision: Precision = "auto",
) -> Embeddings:
    """Computes features of every image of a data set, for `longtail.sklearn` or any other head.

    Args:
        data: as for `train`; its `image_size` is the size that the backbone sees.
        backbone: a pretrained one, such as `efficientnet_lite0` or a timm name, or a run folder
        out: Parquet file to write: features, label, split, path, index; class names in its
            metadata (required on the command line)
        precision: precision of the network
    """
    from longtail.settings import read_data
    from longtail.training import embed_dataset

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
        run: run folder
        to: `onnx`: images and a prior in, probabilities out; `safetensors`: the weights
        out: file to write (default for onnx: `model.onnx` in the run folder)
    """
    from longtail.export import export_run

    return export_run(open_run(run), to, Path(out) if out else None)


def report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Writes an HTML report that compares runs.

    Args:
        runs: run folders
        out: page to write (default: `report.html` in the first run's folder)
    """
    from longtail.report import load_pixel_run, load_run, write_pixel_report, write_report
    from longtail.training import Run

    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    path = Path(out) if out else Path(*folders[:1]) / "report.html"
    if any(Run(folder).task == "segmentation" for folder in folders):
        write_pixel_report([load_pixel_run(folder) for folder in folders], path)
    else:
        write_report([load_run(folder) for folder in folders], path)
    return path


def reproduce(
    source: Literal["cifar100-lt", "cifar10-lt"],
    *,
    methods: Sequence[str] | None = None,
    imbalance: Sequence[int] = (100,),
    seeds: int = 3,
    epochs_scale: float = 1.0,
    root: str | None = None,
    runs: str | Path = "runs/reproduce",
    out: str | Path | None = None,
    jobs: int | None = None,
) -> list[dict[str, Any]]:
    """Reproduces a paper's table: trains a matrix of methods, imbalances and seeds.

    An interrupted run is resumed from its last checkpoint; a finished one is not repeated.
    After every run its row is written to the result file; rows of other runs stay there.

    Args:
        source: data set
        methods: rows of the matrix (default: all)
        imbalance: imbalances of the training set
        seeds: number of seeds
        epochs_scale: factor on all epochs: 0.1 is a tenth of the papers' schedules
        root: folder of the data files
        runs: folder of the run folders
        out: JSON file to write (default: `results/SOURCE.json`); the table is written beside it
        jobs: runs at the same time (default: one per core on a CPU, 1 on a GPU)

    Returns: the rows of these runs.
    Raises:
        InputError: for an unknown source or method, a number out of range, or a run folder with
            other settings, before anything is trained.
        ChildProcessError: when runs failed, after all others are done; it names them.
    """
    from longtail.reproduce import train_matrix

    return train_matrix(source, methods, imbalance, seeds, epochs_scale, root, runs, out, jobs)


def check_data(data: str | Mapping[str, Any]) -> Findings:
    """Checks a data set: images per class, missing and broken files.

    Args:
        data: as for `train`.
    """
    from longtail.data import check_source
    from longtail.settings import read_data

    return check_source(read_data(data))


def shard_data(
    data: str | Mapping[str, Any], *, out: str | Path, megabytes: int = 256
) -> list[Path]:
    """Packs the images of a data set into shards, which are read faster than single files.

    Args:
        data: as for `train`.
        out: folder for the shards
        megabytes: minimum size of a shard

    Returns: the shards.
    """
    from longtail.data import write_shards
    from longtail.settings import read_data

    return write_shards(read_data(data), Path(out), megabytes)
