"""From a command line, a YAML file or keyword arguments to the settings of a run."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from longtail.data import DataConfig
from longtail.data.segmentation import PIXEL_SOURCES, PixelDataConfig
from longtail.errors import InputError
from longtail.features import Precision
from longtail.files import read_values
from longtail.losses import ClassificationLoss
from longtail.methods import PlainClassifier, find_method
from longtail.methods.segmentation import PixelClassifier
from longtail.recipes import find_recipe, overlay
from longtail.training import Config
from longtail.training.config import STAGES
from longtail.training.segmentation import PixelConfig

CONFIGS = {"classification": Config, "segmentation": PixelConfig}
GIVEN_ELSEWHERE = {"prior", "image_prior", "backbone", "teacher", "first", "loss"}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping (JSON)",
    "NoneType": "null",
}
SWITCHES = {"--resume", "--help", "-h", "--print_config"}


def make_parser(
    source: str, method: str, task: str, imbalance: float | None = None
) -> ArgumentParser:
    """The typed parser for one data set and one method; its defaults are the recipe's.

    Raises:
        ValueError: when nobody knows the method or the task.
    """
    if task not in CONFIGS:
        raise InputError(f"task must be one of {sorted(CONFIGS)}, got {task!r}")
    parser = ArgumentParser(
        prog="longtail train",
        description=f"Train {method} on {source}.",
        usage="longtail train DATA [--method NAME] [options]",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of settings; others override it."
    )
    parser.add_argument(
        "--out", type=str | None, help="Run folder; runs/DATA-METHOD-... if not given."
    )
    parser.add_argument(
        "--resume", action="store_true", help="Go on with the run that --out holds."
    )
    parser.add_class_arguments(CONFIGS[task], None, skip={"method", "task"}, sub_configs=False)
    parser.add_argument(
        "--task", type=str, default=task, help="`classification` of images, or `segmentation`."
    )
    parser.add_argument(
        "--method.name", type=str, help="One of `longtail list`, or an import path."
    )
    found = find_method(method, task)
    if issubclass(found, ClassificationLoss):
        plain = PixelClassifier if task == "segmentation" else PlainClassifier
        parser.add_class_arguments(found, "method.loss", skip=GIVEN_ELSEWHERE)
        parser.add_class_arguments(plain, "method", skip=GIVEN_ELSEWHERE)
        parser.set_defaults({"method.head": found.head})
    else:
        parser.add_class_arguments(found, "method", skip=GIVEN_ELSEWHERE)
    parser.set_defaults(_flat(find_recipe(source, method, imbalance).settings))
    parser.set_defaults({"data.source": source, "method.name": method})
    return parser


def from_arguments(arguments: Sequence[str]) -> Namespace:
    """Parses what follows `longtail train` on the command line.

    Raises:
        ValueError: for an option or a value that cannot be; the message names it.
    """
    words, source, method, task, imbalance = _read_ahead(arguments)
    return _parse(make_parser(source, method, task, imbalance).parse_args, words)


def from_keywords(
    data: str | Mapping[str, Any],
    method: str | Mapping[str, Any],
    *,
    task: str | None = None,
    **settings: Any,
) -> Namespace:
    """The same from Python: nested mappings as in `config.yaml`, a name alone standing for its own.

    Raises:
        ValueError: for a setting or a value that cannot be; the message names it.
    """
    data = _with_name("data", "source", data)
    method = _with_name("method", "name", method)
    imbalance = _number(data.get("imbalance"))
    parser = make_parser(
        data["source"], method["name"], task or _task_of(data["source"]), imbalance
    )
    return _parse(parser.parse_object, {"data": data, "method": method, **settings})


def read_data(data: str | Mapping[str, Any]) -> DataConfig:
    """The settings of a source from Python.

    Raises:
        ValueError: for a setting or a value that cannot be; the message names it.
    """
    settings = _with_name("data", "source", data)
    given = {"source": settings.pop("source"), "data": settings}
    return _source(_parse(_data_parser("longtail data").parse_object, given).as_dict())


def embed_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Parses what follows `longtail embed`: the arguments of `longtail.api.embed`.

    Raises:
        ValueError: for an option or a value that cannot be; the message names it.
    """
    parser = _data_parser("longtail embed", "--backbone NAME --out FILE ")
    parser.description = "Features of every image of a data set, as a Parquet file."
    parser.add_argument(
        "--backbone",
        required=True,
        help="A pretrained one (efficientnet_lite0, or a timm name), or a run folder.",
    )
    parser.add_argument("--out", required=True, help="Parquet file to write.")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="auto", help="Of the network."
    )
    parsed = _parse(parser.parse_args, arguments).as_dict()
    return {"data": {"source": parsed.pop("source"), **parsed.pop("data")}, **parsed}


def data_arguments(command: str, arguments: Sequence[str]) -> tuple[DataConfig, dict[str, Any]]:
    """Parses what follows `longtail data check` or `longtail data shard`.

    Returns: the source's settings, and the command's own.

    Raises:
        ValueError: for an option or a value that cannot be; the message names it.
    """
    parser = _data_parser(f"longtail data {command}")
    if command == "shard":
        parser.add_argument("--out", type=Path, required=True, help="Folder for the shards.")
        parser.add_argument("--megabytes", type=int, default=256, help="Least size of a shard.")
    parsed = _parse(parser.parse_args, arguments).as_dict()
    return _source(parsed), parsed


def _data_parser(command: str, needed: str = "") -> ArgumentParser:
    """A parser of a source and its settings, for a command that takes no more of a training."""
    parser = ArgumentParser(
        prog=command,
        usage=f"{command} DATA {needed}[options]",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="DATA", help="As for `longtail train`.")
    parser.add_class_arguments(DataConfig, "data", skip={"source"})
    return parser


def _source(parsed: dict[str, Any]) -> DataConfig:
    """The settings of a source, taken out of what was parsed."""
    return DataConfig(source=parsed.pop("source"), **parsed.pop("data"))


def _with_name(what: str, name: str, given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Settings, a name alone standing for its own.

    Raises:
        ValueError: when there is no name in them.
    """
    settings = {name: given} if isinstance(given, str) else dict(given)
    if name not in settings:
        raise InputError(f"{what} must have a {name}, got {settings}")
    return settings


def to_config(parsed: Namespace) -> Config:
    """The settings of a run out of what was parsed."""
    settings = parsed.as_dict()
    for name in ("config", "out", "resume"):
        settings.pop(name, None)
    for name in STAGES:
        if settings.get(name):
            settings[name] = _stage(name, settings)
    if settings["task"] == "segmentation":
        return PixelConfig(**{**settings, "data": PixelDataConfig(**settings["data"])})
    settings.pop("task")
    return Config(**{**settings, "data": DataConfig(**settings["data"])})


def _stage(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an earlier stage, which are one value to the parser: the recipe's, changed.

    Raises:
        ValueError: for a setting or a value that cannot be; the message names both.
    """
    source, method = settings["data"]["source"], settings["method"]["name"]
    recipe = find_recipe(source, method, settings["data"].get("imbalance"))
    known, given = recipe.settings.get(name, {}), dict(settings[name])
    if isinstance(given.get("method"), str):
        given["method"] = {"name": given["method"]}
    if "method" in given and given["method"].get("name") != known.get("method", {}).get("name"):
        known = {key: value for key, value in known.items() if key != "method"}
    stage = overlay(known, given)
    own = {"data": source, "method": "ce", "task": settings["task"]}
    try:
        from_keywords(**{**own, **stage})
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    return stage


def _parse(parse: Callable[[Any], Namespace], given: Any) -> Namespace:
    """What a parser makes of words or a mapping, its errors in the words of the others."""
    try:
        return parse(given)
    except ArgumentError as error:
        raise InputError(_plain(error)) from error


def _plain(error: ArgumentError) -> str:
    """The parser's message on a wrong value in the words of the other errors."""
    text = str(error)
    key = re.match('Parser key "(.+?)":', text)
    given = re.search("Got value: (.*)|Given value: (.*)", text)
    choices = re.search(r"typing\.Literal\[(.*?)\]", text)
    types = re.findall(r"Expected an? <class '(\w+)'>", text)
    if not key or not given or not (choices or types):
        return text
    rule = f"one of {choices[1]}" if choices else " or ".join(KINDS.get(t, t) for t in types)
    return f"{key[1]} must be {rule}, got {given[1] or given[2]}"


def _task_of(source: str) -> str:
    """The task of a source where nobody names it: that of its name."""
    return "segmentation" if source in PIXEL_SOURCES else "classification"


def _number(value: Any) -> float | None:
    """A number that may be written as text; None for anything else, which the parser refuses."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _read_ahead(arguments: Sequence[str]) -> tuple[list[str], str, str, str, float | None]:
    """The words in the parser's terms; data set, method, task and imbalance, which it goes by."""
    words: list[str] = []
    given: dict[str, str] = {}
    config: dict[str, Any] = {}
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-"):
            name, value = "--data.source", word
            if name in given:
                raise InputError(
                    f"longtail train takes one DATA, got {given[name]!r} and {word!r}; "
                    'several values of an option are a list: \'["auto", "sim"]\''
                )
        elif word in SWITCHES or word.startswith("--print_config"):
            words.append(word)
            continue
        else:
            name, equals, value = word.partition("=")
            if not equals:
                value = next(rest, "--")
                if value.startswith("--"):
                    raise InputError(f"{word} must have a value, as in {word} VALUE; got none")
        name = "--method.name" if name == "--method" else name
        given[name] = value
        words.append(f"{name}={value}")
        if name == "--config":
            config = _read_config(value)
    source = given.get("--data.source") or config.get("data", {}).get("source")
    method = given.get("--method.name") or config.get("method", {}).get("name") or "gml"
    task = given.get("--task") or config.get("task") or _task_of(source or "")
    imbalance = _number(given.get("--data.imbalance") or config.get("data", {}).get("imbalance"))
    if not source:
        if {"--help", "-h"} & set(words):
            return words, "DATA", method, task, imbalance
        raise InputError(
            "longtail train needs DATA: digits-lt, cifar10-lt, cifar100-lt, a folder of images "
            "or a table of paths and labels (longtail list shows all)"
        )
    return words, source, method, task, imbalance


def _read_config(path: str) -> dict[str, Any]:
    try:
        content = read_values(path)
    except (OSError, ValueError) as error:
        raise InputError(f"config {path} cannot be read: {error}") from error
    for name, inner in (("data", "source"), ("method", "name")):
        value = content.get(name, {})
        if not isinstance(value, dict):
            raise InputError(
                f"{name} of config {path} must be a mapping with {inner}, got {value!r}"
            )
    return content


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names for the parser; an earlier stage is one value to it."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name not in STAGES:
            flat |= {f"{name}.{key}": inner for key, inner in _flat(value).items()}
        else:
            flat[name] = value
    return flat
