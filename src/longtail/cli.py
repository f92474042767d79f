"""The command line: each command is a function of `longtail.api`, whose result is printed."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail import __version__, api
from longtail.errors import InputError, LostProcessError, NotFiniteError
from longtail.files import to_json
from longtail.names import nearest
from longtail.text import printable

if TYPE_CHECKING:
    from longtail.pictures import Advice
    from longtail.training import Embeddings, RunFolder

ABOUT = "Train, adapt and evaluate classifiers when most classes are rare."
KEPT = ("predict", "embed")  # whose result is useful only as a file
RESUMES = {"reproduce": "; the same command continues"}  # `train` says so itself


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns: exit status: 0 done, 1 failed, 2 invalid command or input, 130 stopped by Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if os.getcwd() not in sys.path:  # for the user's own losses and methods
        sys.path.append(os.getcwd())
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _run(words)
        except InputError as error:
            _say(f"error: {error}")
            return 2
        except BrokenPipeError:  # the reader of the output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (OSError, NotFiniteError, LostProcessError) as error:
            _say(f"error: {_reason(error, words[:1] == ['train'])}")
            return 1
        except KeyboardInterrupt as stop:
            if not stop.args:  # otherwise it has already been printed
                _say("stopped" + RESUMES.get("".join(words[:1]), ""))
            return 130


def _run(words: Sequence[str]) -> int:
    """Runs the command that the first words name."""
    command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in api.COMMANDS), "")
    if not command:
        return _about(words)
    function: Callable[..., Any] = getattr(api, api.COMMANDS[command])
    arguments = _arguments(command, function, words[len(command.split()) :])
    if isinstance(arguments, str):
        print(arguments, end="")
        return 0
    if command in KEPT and not arguments["out"]:
        raise InputError(f"longtail {command} needs --out, the file or folder to write; got none")
    as_json = arguments.pop("json", False)
    result = _called(function, arguments)
    if result is None:
        return 0
    if as_json:
        print(to_json(result))
    else:
        _show(command, result, arguments)
    sys.stdout.flush()
    return 1 if getattr(result, "problems", ()) else 0


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Result of a function; None in a process of torchrun that has helped the first one."""
    if "devices" not in inspect.signature(function).parameters:  # `train` joins torchrun itself
        return function(**arguments)
    from longtail.sharing import shared_by_torchrun, started_by_torchrun

    started = started_by_torchrun()
    if started is None:
        return function(**arguments)
    with shared_by_torchrun(arguments["devices"], started[0]) as first:
        return function(**{**arguments, "devices": 1}) if first else None


def _arguments(
    command: str, function: Callable[..., Any], words: Sequence[str]
) -> dict[str, Any] | str:
    """Arguments of a function, or its help; PyTorch, which takes seconds, comes with settings."""
    parameters = inspect.signature(function).parameters
    data = parameters.get("data")
    trains = "resume" in parameters  # without data, those of the run are used
    if data and (trains or data.default is inspect.Parameter.empty):
        from longtail.settings import from_words

        return from_words(command, function, words)
    from longtail.grammar import Grammar

    return Grammar(command, function).arguments(words)


def _about(words: Sequence[str]) -> int:
    """Help of all commands, or the version; an error for anything else."""
    if words[:1] == ["--version"]:
        print(f"longtail {__version__}")
        return 0
    chosen = [c for c in api.COMMANDS if c.split()[0] in words[:1]]  # `data`, of two words
    if words and not chosen and words[0] not in ("-h", "--help"):
        known = ", ".join(api.COMMANDS)
        raise InputError(
            f"longtail has the commands {known}; got {words[0]!r}{nearest(words[0], api.COMMANDS)}"
        )
    print(f"usage: longtail COMMAND [options]\n\n{ABOUT}\n")
    for name in chosen or api.COMMANDS:
        doc = inspect.getdoc(getattr(api, api.COMMANDS[name])) or ""
        print(f"  {name:<12} {doc.splitlines()[0]}")
    print("\nlongtail COMMAND --help shows the options of a command.")
    if chosen and not {"-h", "--help"} & set(words):
        raise InputError(f"longtail {words[0]} needs one of these commands, got {list(words[1:2])}")
    return 0


def _show(command: str, result: Any, arguments: Mapping[str, Any]) -> None:
    """Prints what a command returned."""
    show = SHOWN.get(command)
    if show:
        show(result, arguments)
    else:
        _print(str(result))


def _print(text: str) -> None:
    """Prints lines that may contain names of classes and files, with control characters escaped."""
    print("\n".join(map(printable, text.split("\n"))))


def _show_run(run: "RunFolder", arguments: Mapping[str, Any]) -> None:
    from longtail.tasks import task_of_run
    from longtail.training import is_first

    if is_first():
        task_of_run(run).print_metrics([{"run": run.folder.as_posix(), **run.metrics}])
        _print(f"report: {run.folder / 'report.html'}")


def _show_advice(advice: "Advice", arguments: Mapping[str, Any]) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(advice.table())
    _print(advice.words)
    _print(advice.command)


def _show_metrics(metrics: Mapping[str, float], arguments: Mapping[str, Any]) -> None:
    from longtail.tasks import find_task, open_run, task_of_run
    from longtail.training.weights import are_weights
    from longtail.weights import load

    if are_weights(arguments["run"]):
        recorded = load(arguments["run"], arguments["trust"]).card.get("metrics", {})
        rows = [{"run": arguments["run"], **metrics}, {"run": "as recorded", **recorded}]
        find_task("classification").print_metrics(rows if recorded else rows[:1])
        return
    run = open_run(arguments["run"])
    task_of_run(run).print_metrics([{"run": run.folder.as_posix(), **metrics}])


def _show_protocol(rows: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> None:
    from longtail.report.shift_tables import print_protocol

    print_protocol(rows)


def _show_predictions(found: Any, arguments: Mapping[str, Any]) -> None:
    from longtail.report.shift_tables import print_estimate
    from longtail.tasks import open_run

    if estimate := getattr(found, "estimate", None):
        print_estimate(estimate, open_run(arguments["run"]).prior, found.class_names)
    said = f"predictions of {len(found):,} images written: {arguments['out']}"
    if failed := getattr(found, "failed", 0):
        files = "1 file" if failed == 1 else f"{failed:,} files"
        said += f"; {files} could not be read, see the column error"
    _print(said)


def _show_embeddings(found: "Embeddings", arguments: Mapping[str, Any]) -> None:
    images, width = found.features.shape
    _print(f"{images:,} images, {width:,} features per image: {arguments['out']}")


def _show_report(path: Path, arguments: Mapping[str, Any]) -> None:
    from longtail.tasks import open_run, task_of_run

    given = arguments["runs"]
    runs = [open_run(folder) for folder in ([given] if isinstance(given, str) else given)]
    rows = [{"run": r.folder.as_posix(), **(r.metrics if r.finished else {})} for r in runs]
    task_of_run(runs[0]).print_metrics(rows)
    _print(f"report: {path}")


def _show_matrix(rows: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> None:
    from longtail.reproduce import tables_of

    print(tables_of(arguments["source"], rows), end="")
    _print(f"written: {arguments['out'] or 'results/' + arguments['source'] + '.json'}")


def _show_shards(shards: Sequence[Path], arguments: Mapping[str, Any]) -> None:
    _print(f"{len(shards)} shards written: {arguments['out']}")


def _show_names(names: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
    if not names:
        print(f"no {arguments['kind']} found")
    width = min(32, max(map(len, names), default=0))
    for name, line in names.items():
        print(f"  {name:<{width}}  {line}")
    if arguments["kind"] == "methods":
        print("More: longtail list backbones, views, data, recipes or weights; see also --task.")


SHOWN: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "train": _show_run,
    "advise": _show_advice,
    "evaluate": _show_metrics,
    "protocol": _show_protocol,
    "predict": _show_predictions,
    "embed": _show_embeddings,
    "report": _show_report,
    "reproduce": _show_matrix,
    "data shard": _show_shards,
    "list": _show_names,
}


def _reason(error: Exception, trains: bool) -> str:
    """An error in one line; for a file, its name comes first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lost = trains and isinstance(error, LostProcessError)
    return f"{error}; --resume continues from the last checkpoint, if any" if lost else str(error)


def _show_warning(message: Any, *rest: Any, **more: Any) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    """Prints one line to stderr; with several processes, only the first prints."""
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        lines = map(printable, text.split("\n"))
        print("longtail: " + "\n".join(lines), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
