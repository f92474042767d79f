"""The commands as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longtail.errors import InputError
from longtail.listing import list_names

if TYPE_CHECKING:  # PyTorch takes seconds to import, which `longtail --help` need not wait for
    from longtail.data import Dataset
    from longtail.data.records import Records
    from longtail.features import Precision
    from longtail.pictures import Advice
    from longtail.training import Config, Embeddings, Run, RunFolder
    from longtail.training.task import Checked, Predicted
    from longtail.weights import Weights

# Each command, and the function behind it.
COMMANDS = {
    "train": "train",
    "advise": "advise",
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
    "advise",
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
    data: str | Path | Mapping[str, Any] | Dataset | None = None,
    method: str | Mapping[str, Any] = "auto",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    accept_replaced: bool = False,
    verbose: bool = True,
    **settings: Any,
) -> RunFolder:
    """Trains a classifier of images or of pixels, and evaluates it on the test split.

    Args:
        data: name of a data set, folder, table or import path; a mapping with `source` and its
            settings; or a `Dataset` of `longtail.data` or of Hugging Face `datasets`. Images of a
            `longtail.data.Dataset` keep their size; those of up to 64 pixels in memory are trained
            from scratch. With `resume`, the default is that of the run, as for all settings.
        method: a name from `longtail list`, an import path, or a mapping with `name` and its
            settings; `auto` compares methods on your own images if training starts from pretrained
            weights, and is `gml` otherwise.
        out: run folder (default: a new one under `runs/`)
        resume: resume the run in the folder `out`, with its settings and data
        accept_replaced: with `resume`, accept image files that have changed since the run was
            started, under the same label and split
        verbose: show progress: a bar on a terminal, else lines of the logger `longtail`
        **settings: any other setting of `longtail.training.Config`, such as `epochs=20`; with
            `task="segmentation"`, of `longtail.segmentation.PixelConfig`. `trust` also takes
            objects.

    Returns: the finished run: `.metrics`, `.history`, `.model()`; for classification also
        `.predictions()`.
    Raises:
        InputError: for invalid settings or data, before training starts.
    """
    from longtail.data import as_source
    from longtail.settings import from_keywords, resumed, to_config
    from longtail.training.progress import shown_progress

    options: dict[str, Any] = {"resume": resume, "accept_replaced": accept_replaced}
    if data is not None:
        source = options["source"] = as_source(data)
        name: Any = data if source is None else source.name
        config = to_config(from_keywords(name, method, **settings))
    elif resume and out is not None:
        config = to_config(resumed(out, method, settings))
    else:
        raise InputError("data must be given, unless a run is resumed with resume and out")
    with shown_progress(verbose):
        return start(config, out, **options)


def start(
    config: Config,
    out: str | Path | None,
    resume: bool,
    accept_replaced: bool = False,
    source: Dataset | Records | None = None,
) -> RunFolder:
    """Trains with resolved settings, and writes the report."""
    from longtail import pictures
    from longtail.training import is_first

    if resume and out is None:
        raise InputError("out must be the run folder to resume, as in --out runs/..., got none")
    if accept_replaced and not resume:
        raise InputError("accept_replaced has no effect without resume")
    options: dict[str, Any] = {"resume": resume, "accept_replaced": accept_replaced}
    run = pictures.train(config, out, source=source, **options)
    if is_first():
        report([run.folder, *(stage.folder for stage in run.stages)])
    return run


def advise(
    data: str | Path | Mapping[str, Any] | Embeddings | Dataset,
    *,
    backbone: str = "auto",
    seed: int = 0,
    devices: int = 1,
    verbose: bool = True,
) -> Advice:
    """Compares methods on your own images by cross-validation, and recommends one.

    Args:
        data: as for `train`, or the result of `embed`
        backbone: a pretrained backbone (default: efficientnet_lite0)
        seed: seed of the folds
        devices: processes that compute the features, as for `predict`
        verbose: show progress bars on a terminal

    Returns: `.rows`, `.recommended`, `.words` and `.command`.
    """
    from longtail.data import as_source
    from longtail.pictures import advise as compare
    from longtail.settings import read_data
    from longtail.training.progress import shown_progress

    source: Any = as_source(data) or data
    if isinstance(source, str | Path | Mapping):
        source = read_data(source)
    with shown_progress(verbose):
        return compare(source, backbone, seed=seed, devices=devices)


def evaluate(
    run: str | Path | RunFolder | Weights,
    target_prior: str | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    split: Literal["train", "val", "test"] | None = None,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
    devices: int = 1,
    trust: str | Sequence[Any] = (),
) -> dict[str, float]:
    """Evaluates a run's saved test predictions, or a file of weights, under any class prior.

    Args:
        run: run folder, or a file or name of weights, whose model then sees the test images again
        target_prior: class prior to adjust the logits to: `uniform`, `source` (of the training
            set) or a file of probabilities by class (default: no adjustment)
        data: for weights: settings of the data that differ, such as `root`, the folder of the data
            files
        split: segmentation: split to evaluate on
        window: segmentation: height and width of sliding windows
        flip: segmentation: average the logits with those of the mirrored image
        devices: processes, as for `predict`, if the model sees images
        trust: import paths of your own code that the run may name; in Python, objects as well

    Returns: the metrics of `longtail.metrics.classification_metrics`, as fractions; for a
        segmentation run those of `segmentation_metrics`, and if an option is given, its model sees
        the images again.
    Raises:
        InputError: for an option that the run's task does not have.
    """
    from longtail.sharing import shared_by
    from longtail.tasks import open_run, task_of_run
    from longtail.training.weights import are_weights, refuse_missing
    from longtail.weights import Weights, load

    if isinstance(run, str | Path):
        refuse_missing(run)
    options = _given(split=split, window=window, flip=flip)
    if isinstance(run, Weights) or are_weights(run):
        if options:
            raise InputError(f"{', '.join(options)}: no effect for weights of a classifier")
        weights = run if isinstance(run, Weights) else load(run, trust)
        with shared_by(devices):
            return weights.evaluate(target_prior, data)
    if data is not None:
        raise InputError(f"data: no effect for {run}, whose predictions are saved")
    run = open_run(run, trust)
    with shared_by(devices):
        metrics: dict[str, float] = task_of_run(run).evaluate(run, target_prior, **options)
    return metrics


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def protocol(run: str | Path | Run) -> list[dict[str, Any]]:
    """Evaluates a run's test predictions on LADE's eleven shifted test sets.

    Args:
        run: run folder

    Returns: see `longtail.training.evaluate_protocol`.
    """
    from longtail.training import Run, evaluate_protocol

    run = run if isinstance(run, Run) else Run(run)
    return evaluate_protocol(run.predictions())


def predict(
    run: str | Path | RunFolder,
    files: str | Path | Sequence[str | Path],
    target_prior: str | None = None,
    *,
    out: str | Path | None = None,
    top: int | None = None,
    path_column: str | None = None,
    root: str | Path | None = None,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
    devices: int = 1,
    trust: str | Sequence[Any] = (),
    verbose: bool = True,
) -> Predicted:
    """Classifies image files, or each of their pixels, with a run's model.

    Args:
        run: run folder
        files: image files, folders to search for them, and tables of paths
        target_prior: as for `evaluate`, or `estimate`: the class prior of these images
        out: file to write, .csv, .parquet or .jsonl: path, class, probability, the next classes up
            to `top`, margin, unlike and error; for a segmentation run, a folder (required on the
            command line)
        top: classes listed per image (default: 5)
        path_column: column of a table with the paths (default: path)
        root: folder that relative paths in a table start from (default: that of the table)
        window: segmentation: height and width of sliding windows
        flip: segmentation: average the logits with those of the mirrored image
        devices: processes on this machine that share the images, one per GPU; on the command line
            under torchrun, the processes that it started
        trust: import paths of your own code that the run may name; in Python, objects as well
        verbose: show a progress bar on a terminal

    Returns: predictions in memory, or with `out` a summary of what was written.
    Raises:
        InputError: for an option that the run's task does not have, or `top` below 1.
        UnreadableImagesError: without `out`, for files that cannot be read; with it, each has a
            row that says why.
        LostProcessError: when another of the processes has ended; nothing is written.
    """
    from longtail.sharing import shared_by
    from longtail.tasks import open_run, task_of_run
    from longtail.training.progress import shown_progress

    run = open_run(run, trust)
    options = _given(top=top, path_column=path_column, root=root, window=window, flip=flip)
    path = Path(out) if out else None
    with shown_progress(verbose), shared_by(devices):
        found: Predicted = task_of_run(run).predict(run, files, target_prior, out=path, **options)
    return found


def embed(
    data: str | Path | Mapping[str, Any],
    *,
    backbone: str,
    out: str | Path | None = None,
    precision: Precision = "auto",
    devices: int = 1,
    verbose: bool = True,
    trust: str | Sequence[Any] = (),
) -> Embeddings:
    """Computes features of every image of a data set, for `longtail.sklearn` or any other head.

    Args:
        data: as for `train`; its `image_size` is the size that the backbone sees.
        backbone: a pretrained backbone, such as `efficientnet_lite0` or a timm name, or a run
            folder
        out: file to write, in `.parquet`: features, label, split, path, index, with class names in
            its metadata (required on the command line)
        precision: precision of the network
        devices: processes, as for `predict`
        verbose: show a progress bar on a terminal
        trust: as for `evaluate`, if `backbone` is a run folder
    """
    from longtail.data.parquet import parquet_files
    from longtail.settings import read_data
    from longtail.sharing import shared_by
    from longtail.training import embed_dataset
    from longtail.training.progress import shown_progress
    from longtail.training.run import check_run_out

    config = read_data(data)
    if out is not None:
        sources: list[str | Path] = [config.source, *parquet_files(Path(config.source))]
        check_run_out(Path(out), "embed", sources)
        if Path(out).suffix.lower() != ".parquet":
            raise InputError(f"out of embed must end in .parquet, got {out}")
    with shown_progress(verbose), shared_by(devices):
        embeddings = embed_dataset(config, backbone, precision, trust=trust)
    if out is not None:
        embeddings.write(Path(out))
    return embeddings


def export(
    run: str | Path | RunFolder,
    to: Literal["onnx", "safetensors"] = "onnx",
    out: str | Path | None = None,
    *,
    fit: Literal["crop", "pad", "squash"] = "crop",
    trust: str | Sequence[Any] = (),
) -> Path:
    """Writes a run's model as one checked file for other programs.

    Args:
        run: run folder
        to: `onnx`: images and a prior in, probabilities out; `safetensors`: the weights
        out: file to write (default for onnx: `model.onnx` in the run folder)
        fit: how a photograph becomes the model's square input: `crop` takes the centre, as
            `predict` does; `pad` adds black bars; `squash` changes the aspect ratio
        trust: import paths of your own code that the run may name; in Python, objects as well
    """
    from longtail.export import export_run
    from longtail.tasks import open_run
    from longtail.training.run import check_run_out

    if out is not None:
        check_run_out(Path(out), "export")
    return export_run(open_run(run, trust), to, Path(out) if out else None, fit=fit)


def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    no_pictures: bool = False,
) -> Path:
    """Writes an HTML report that compares runs.

    Args:
        runs: run folders
        out: page to write (default: `report.html` in the first run's folder)
        no_pictures: leave out the thumbnails of images
    """
    from longtail.tasks import all_tasks, find_task
    from longtail.training.run import check_run_out, task_of

    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    path = Path(out) if out else Path(*folders[:1]) / "report.html"
    found = {task_of(folder): folder for folder in folders}
    if len(found) > 1:
        given = ", ".join(f"{folder} of {name}" for name, folder in found.items())
        raise InputError(f"runs of one report must be of one task, got {given}")
    check_run_out(path, "report")
    task = find_task(*found) if found else next(all_tasks())
    task.report(folders, path, pictures=not no_pictures)
    return path


def reproduce(
    source: Literal["cifar100-lt", "cifar10-lt", "lade-shift"],
    *,
    methods: Sequence[str] | None = None,
    imbalance: Sequence[int] | None = None,
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
        source: data set; `lade-shift`: softmax, PC-Softmax and LADE on the shifted test sets of
            LADE's paper
        methods: rows of the matrix (default: all)
        imbalance: imbalances of the training set (default: 100)
        seeds: number of seeds
        epochs_scale: factor on all epochs; 0.1 is a tenth of the papers' schedules
        root: folder of the data files
        runs: folder for the run folders
        out: JSON file to write (default: `results/SOURCE.json`); the table is written next to it
        jobs: number of runs at a time (default: one per GPU; without a GPU, one per core)

    Returns: the rows of these runs.
    Raises:
        InputError: for an unknown source or method, a number out of range, or a run folder with
            other settings, before anything is trained.
        ChildProcessError: when runs failed, after all others are done; the message names them.
    """
    from longtail.reproduce import reproduce_lade_shift, train_matrix

    common = (seeds, epochs_scale, root, runs, out, jobs)
    if source != "lade-shift":
        return train_matrix(source, methods, imbalance or (100,), *common)
    for name, value in {"methods": methods, "imbalance": imbalance}.items():
        if value is not None:
            raise InputError(f"{name} of lade-shift is fixed by its paper, got {value}")
    return reproduce_lade_shift(*common)


def check_data(data: str | Path | Mapping[str, Any], *, task: str | None = None) -> Checked:
    """Checks a data set: images or pixels per class, missing and broken files.

    Args:
        data: as for `train`.
        task: `classification` or `segmentation` (default: that of a named data set, else
            classification)

    Returns: `.problems` and `.warnings`; `str` of it is the report.
    """
    from longtail.settings import read_task_data

    chosen, config = read_task_data(data, task)
    return chosen.check(config)


def shard_data(
    data: str | Path | Mapping[str, Any], *, out: str | Path, megabytes: int = 256
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
