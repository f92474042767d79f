"""The command line: train, evaluate, predict, data, embed, export, report, reproduce, list."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from longtail.errors import InputError
from longtail.files import to_json

ABOUT = "Train, adapt and judge classifiers when most classes are rare."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0 done, 1 failed, 2 a wrong command or input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    if words[:1] in (["train"], ["embed"], ["data"]):
        words = [_with_underscores(word) for word in words]
    try:
        if words[:1] == ["train"]:  # its options depend on data and method: its own parser
            return _train(words[1:])
        if words[:1] == ["embed"]:  # it takes the options of the data, as train does
            return _embed(words[1:])
        if words[:1] == ["data"]:
            return _data(words[1:])
        parsed = _parser().parse_args(words)
        command: Callable[[argparse.Namespace], int] = parsed.command
        return command(parsed)
    except (ValueError, OSError, FloatingPointError) as error:
        _say(f"error: {error}")
        return 2 if isinstance(error, ValueError) else 1
    except RuntimeError as error:
        if not _of_another_process(error):
            raise
        _say("error: another process of this run has ended; --resume goes on from its checkpoint")
        return 1
    except KeyboardInterrupt as stop:
        if not stop.args:  # a training says itself where it stopped
            goes_on = {
                "train": "; --resume goes on from the last checkpoint",
                "reproduce": "; the same command goes on",
            }
            _say("stopped" + goes_on.get("".join(words[:1]), ""))
        return 130


def _with_underscores(word: str) -> str:
    """An option as settings are spelt: `--batch-size=8` means `--batch_size=8`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longtail", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"longtail {version('longtail')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("train", help="train on a data set, a folder or a table; see train --help")

    target_help = "class mix to predict for: uniform, source (the training mix), or a file"
    evaluate = commands.add_parser("evaluate", help="judge a run's test predictions again")
    evaluate.add_argument("run", type=Path, help="run folder")
    evaluate.add_argument("--target-prior", metavar="PRIOR", help=target_help)
    evaluate.add_argument(
        "--protocol", choices=["lade"], help="judge on LADE's eleven shifted test sets instead"
    )
    pixels = _pixel_options(evaluate)
    pixels.add_argument("--split", choices=("train", "val", "test"), help="part to judge")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="classify image files")
    predict.add_argument("run", type=Path, help="run folder")
    predict.add_argument("files", nargs="+", type=Path, help="image files or folders of them")
    predict.add_argument(
        "--target-prior", metavar="PRIOR", help=f"{target_help}, or estimate: that of these images"
    )
    predict.add_argument("--top", type=int, default=5, help="classes to list an image (default 5)")
    predict.add_argument(
        "--out", type=Path, required=True, help="CSV file to write; segmentation: folder of masks"
    )
    _pixel_options(predict)
    predict.set_defaults(command=_predict)

    commands.add_parser("embed", help="features of every image of a data set; see embed --help")

    commands.add_parser("data", help="data check DATA: what is in it and wrong with it; data shard")

    export = commands.add_parser("export", help="a run's model as one file for other programs")
    export.add_argument("run", type=Path, help="run folder")
    export.add_argument("--to", choices=("onnx", "safetensors"), default="onnx", help="format")
    export.add_argument("--out", type=Path, help="file; for onnx the run's model.onnx if not given")
    export.set_defaults(command=_export)

    report = commands.add_parser("report", help="one page that shows runs side by side")
    report.add_argument("runs", nargs="+", type=Path, help="run folders")
    report.add_argument("--out", type=Path, help="page; report.html of the first run if not given")
    report.set_defaults(command=_report)

    again = commands.add_parser("reproduce", help="the papers' figures: a matrix of runs")
    again.add_argument("source", choices=("cifar100-lt", "cifar10-lt"), help="data set")
    again.add_argument("--methods", nargs="+", metavar="NAME", help="rows; all if not given")
    again.add_argument(
        "--imbalance", nargs="+", type=int, default=[100], metavar="N", help="default 100"
    )
    again.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    again.add_argument(
        "--epochs-scale", type=float, default=1.0, metavar="X", help="factor on all epochs"
    )
    again.add_argument("--data.root", dest="root", metavar="DIR", help="folder of the data files")
    again.add_argument("--runs", type=Path, default=Path("runs/reproduce"), help="run folders")
    again.add_argument("--out", type=Path, help="JSON file; results/SOURCE.json if not given")
    again.add_argument("--jobs", type=int, help="runs at a time; one a GPU or, without any, a core")
    again.set_defaults(command=_reproduce)

    known = commands.add_parser("list", help="methods, backbones, views, data sets, recipes")
    known.set_defaults(command=_list)
    return parser


def _pixel_options(parser: argparse.ArgumentParser) -> Any:
    """The group of options with which a segmentation model sees images."""
    group = parser.add_argument_group("segmentation")
    group.add_argument(
        "--window", type=int, nargs=2, metavar=("H", "W"), help="sliding windows of this size"
    )
    group.add_argument(
        "--flip", action="store_true", default=None, help="average with the mirrored image"
    )
    return group


def _train(words: list[str]) -> int:
    from longtail.api import start
    from longtail.report import print_table
    from longtail.settings import from_arguments, to_config
    from longtail.training import is_first

    parsed = from_arguments(words)
    run = start(to_config(parsed), parsed.out, parsed.resume)
    if not is_first():
        return 0
    print_table([{"run": run.folder.as_posix(), **run.metrics}])
    print(f"report: {run.folder / 'report.html'}")
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    from longtail.api import evaluate, protocol
    from longtail.report import print_table
    from longtail.report.shift_tables import print_protocol

    if parsed.protocol:
        without = ("target_prior", "split", "window", "flip")
        given = [name for name in without if getattr(parsed, name) is not None]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(
                f"--protocol must be alone, got {options}: it is of whole images, for all mixes"
            )
        columns = protocol(parsed.run)
        print(to_json(columns)) if parsed.json else print_protocol(columns)
        return 0
    figures = evaluate(
        parsed.run,
        parsed.target_prior,
        split=parsed.split,
        window=parsed.window,
        flip=parsed.flip,
    )
    if parsed.json:
        print(to_json(figures))
    else:
        print_table([{"run": parsed.run.as_posix(), **figures}])
    return 0


def _predict(parsed: argparse.Namespace) -> int:
    from longtail.api import predict
    from longtail.report.shift_tables import print_estimate
    from longtail.training import Run
    from longtail.training.segmentation import Segmented

    rows = predict(
        parsed.run,
        parsed.files,
        parsed.target_prior,
        top=parsed.top,
        out=parsed.out,
        window=parsed.window,
        flip=parsed.flip,
    )
    if isinstance(rows, Segmented):
        print(f"{len(rows)} masks and overlays written: {parsed.out}")
        return 0
    if rows.estimate is not None:
        print_estimate(rows.estimate, Run(parsed.run).prior, rows.class_names)
    print(f"{len(rows)} images classified: {parsed.out}")
    return 0


def _embed(words: list[str]) -> int:
    from longtail.api import embed
    from longtail.settings import embed_arguments

    arguments = embed_arguments(words)
    images, width = embed(**arguments).features.shape
    print(f"{images:,} images, {width:,} features each: {arguments['out']}")
    return 0


def _data(words: list[str]) -> int:
    from longtail.data import check_source, write_shards
    from longtail.settings import data_arguments

    command = " ".join(words[:1])
    if command in ("-h", "--help"):
        print(
            "usage: longtail data check DATA [options]\n"
            "       longtail data shard DATA --out FOLDER [options]\n\n"
            "What is in a data set and wrong with it; its images as shards. Each has a --help."
        )
        return 0
    if command not in ("check", "shard"):
        raise InputError(f"longtail data knows the commands check and shard, got {command!r}")
    config, options = data_arguments(command, words[1:])
    if command == "shard":
        written = write_shards(config, options["out"], options["megabytes"])
        print(f"{len(written)} shards written: {options['out']}")
        return 0
    findings = check_source(config)
    print(findings)
    return 1 if findings.problems else 0


def _export(parsed: argparse.Namespace) -> int:
    from longtail.api import export

    print(f"written and checked: {export(parsed.run, parsed.to, parsed.out)}")
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from longtail.api import report
    from longtail.report import print_table
    from longtail.training import Run

    path = report(parsed.runs, parsed.out)
    runs = [Run(folder) for folder in parsed.runs]
    print_table([{"run": r.folder.as_posix(), **(r.metrics if r.finished else {})} for r in runs])
    print(f"report: {path}")
    return 0


def _reproduce(parsed: argparse.Namespace) -> int:
    from longtail.reproduce import reproduce, table

    settings = {key: value for key, value in vars(parsed).items() if key != "command"}
    settings["imbalances"] = settings.pop("imbalance")
    rows = reproduce(settings.pop("source"), **settings)
    print(table(rows), end="")
    print(f"written: {parsed.out or f'results/{parsed.source}.json'}")
    return 0


def _list(parsed: argparse.Namespace) -> int:
    from longtail.augment import PAIRED_VIEWS, VIEWS
    from longtail.data import BUILT_IN
    from longtail.data.segmentation import PIXEL_SOURCES
    from longtail.methods import method_names
    from longtail.methods.segmentation import PixelMethod
    from longtail.models import backbone_names, dense_backbone_names
    from longtail.recipes import RECIPES

    sections: dict[str, dict[str, Any]] = {
        "methods (--method)": method_names(),
        "backbones (--backbone; any timm name too)": backbone_names(),
        "views (--views)": VIEWS,
        "data (DATA)": {name: read for name, (read, _) in BUILT_IN.items()},
        "methods of segmentation (--method), and every loss above": {
            name: method
            for name, method in method_names("segmentation").items()
            if issubclass(method, PixelMethod)
        },
        "backbones of segmentation (any timm encoder too)": dense_backbone_names(),
        "views of segmentation": PAIRED_VIEWS,
        "data of segmentation (--data.root is the folder)": PIXEL_SOURCES,
    }
    for title, entries in sections.items():
        print(title)
        width = max(16, *map(len, entries))
        for name, entry in entries.items():
            text = entry if isinstance(entry, str) else (entry.__doc__ or "").split("\n\n")[0]
            print(f"  {name:<{width}} {' '.join(text.split())}")
    print("recipes (of papers or of our trials, taken by themselves for their data and method)")
    for recipe in RECIPES:
        print(f"  {recipe.command}\n    cost: {recipe.cost}; expected: {recipe.expected}")
    return 0


def _of_another_process(error: RuntimeError) -> bool:
    """Whether it only says that the connection to another process was lost."""
    distributed: Any = sys.modules.get("torch.distributed")
    return distributed is not None and (
        isinstance(error, distributed.DistError) or "/gloo/" in str(error)
    )


def _show_warning(message: Any, *rest: Any, **more: Any) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    """One line, from the first of several processes alone."""
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        print(f"longtail: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
