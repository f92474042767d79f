"""The settings of a run from a command line, a YAML file or keyword arguments."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import yaml

from longtail.data import DataConfig
from longtail.errors import InputError
from longtail.files import read_values
from longtail.grammar import HELP, Grammar
from longtail.losses import ClassificationLoss
from longtail.methods import find_method
from longtail.names import refuse_untrusted, trusted_paths
from longtail.pictures import FINE_TUNING, OPEN, asked_settings
from longtail.recipes import find_recipe, overlay
from longtail.tasks import TASKS, find_task, task_of_source
from longtail.training import Config, Task
from longtail.training.config import STAGES
from longtail.training.own_code import named_in, own_code_in
from longtail.training.run import settings_file

GIVEN_ELSEWHERE = {"prior", "image_prior", "backbone", "teacher", "first", "loss"}
DATA = (
    "digits-lt, cifar100-lt or another name from `longtail list data`, a folder of images, "
    "a table of paths and labels, or an import path"
)
METHOD = "a name from `longtail list`, or an import path; --help shows the options of this one"
AUTO = "auto"  # the method is then chosen by training on your own images
PATHS = {"data", "start", "teacher", "first"}  # of which the parser makes nothing but strings
CONFIG = "YAML file of settings; options override it"
TRUST = "import paths of your own code that the --config may name"


def make_grammar(command: str, function: Callable[..., Any], given: Mapping[str, Any]) -> Grammar:
    """The arguments of a command; those of `train` depend on data, method and task.

    Args:
        command: the command.
        function: has a parameter `data`, whose settings are added; `**settings` adds those of
            `train`, with the recipe's values as defaults.
        given: settings; data set, imbalance, method and task decide the arguments.

    Raises:
        InputError: for an unknown method or task.
    """
    data = given.get("data", {})
    source, method = data.get("source", ""), given.get("method", {}).get("name", AUTO)
    task = find_task(given["task"]) if given.get("task") else task_of_source(source)
    if method == AUTO and not _are_own_images(source, task):
        method = "gml"
    parameters = signature(function).parameters
    grammar = Grammar(command, function, skip={"data", "method"})
    grammar.add("data.source", "DATA", DATA)
    trains = _trains(parameters)
    if trains:
        grammar.add("method.name", "--method", METHOD)
        grammar.add("task", "--task", f"one of {', '.join(TASKS)}")
        grammar.add_class("training", task.config, skip={"data", "method", "task", "given"})
    settings = task.data_config if trains or "task" in parameters else DataConfig
    grammar.add_class("data", settings, "data", {"source"})
    if trains:
        _add_method(grammar, method, task)
        grammar.set_defaults({"method": {"name": method}, "task": task.name})
        recipe = find_recipe(source, method, _number(data.get("imbalance")))
        grammar.set_defaults(recipe.settings)
        if source and _are_own_images(source, task):
            for name, value in FINE_TUNING.items():
                grammar.other_defaults[name] = f"{str(value).lower()} for fine-tuning"
    return grammar


def _trains(parameters: Mapping[str, Parameter]) -> bool:
    """Whether a function takes the settings of a training run."""
    return any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def _are_own_images(source: str, task: Task[Any, Any, Any]) -> bool:
    """Whether images are a user's own, for which a method is chosen by comparison."""
    return task.name == Config.task and source not in task.catalogue("data")


def _add_method(grammar: Grammar, method: str, task: Task[Any, Any, Any]) -> None:
    """Adds the options of a method."""
    if method == AUTO:  # which has none
        return
    found = find_method(method, task.methods)
    title = f"method {method}"
    if issubclass(found, ClassificationLoss):
        grammar.add_class(title, task.plain, "method", GIVEN_ELSEWHERE)
        grammar.add_class(f"loss {method}", found, "method.loss", GIVEN_ELSEWHERE)
        grammar.set_defaults({"method": {"head": found.head}})
    else:
        grammar.add_class(title, found, "method", GIVEN_ELSEWHERE)


def from_words(
    command: str, function: Callable[..., Any], words: Sequence[str]
) -> dict[str, Any] | str:
    """Parses a command line into a function's arguments, or returns the help if requested.

    Args:
        command: the command.
        function: the function of `longtail.api`.
        words: what follows the command.

    Raises:
        InputError: for an invalid option or value; the message names it.
    """
    asked = [word for word in words if word not in HELP]
    # Data, method and task decide which options exist, wherever they appear.
    first = make_grammar(command, function, {"method": {"name": "ce"}})
    _add_config(first)
    ahead = first.read(asked, lenient=True)
    config = read_config(ahead["config"], _typed(ahead)) if "config" in ahead else {}
    named = overlay(config, ahead)
    resumed = str(named.get("resume")).lower() == "true"
    if resumed and "out" in named and _has_settings(named["out"], named.get("data", {})):
        config = overlay(_settings_of_run(named["out"], _typed(ahead)), config)
    grammar = make_grammar(command, function, overlay(config, ahead))
    _add_config(grammar)
    if len(asked) < len(words):
        return grammar.help()
    given = _without_auto(overlay(config, grammar.read(asked)))
    arguments = grammar.parse(given)
    known = signature(function).parameters
    extra = {"config"} if _trains(known) else {"config", "trust"} - {*known}
    if _trains(known):  # as from Python, where what is not given has its default
        named = {"method": {"name": arguments["method"]["name"]}}
        arguments = _picked(arguments, overlay(named, given))
    return {name: value for name, value in arguments.items() if name not in extra}


def _has_settings(out: str, data: Mapping[str, Any]) -> bool:
    """Whether a resumed run has the settings: no data are named, or the path to which they moved.

    With the run's own data, the settings are those that are given.
    """
    if "source" not in data:
        return True
    if not os.path.exists(data["source"]) or not settings_file(Path(out)):
        return False
    return bool(asked_settings(out)["data"]["source"] != data["source"])


def _add_config(grammar: Grammar) -> None:
    """Adds the options `--config` and `--trust`."""
    grammar.add("config", "--config", CONFIG)
    if "trust" not in grammar.types:
        grammar.add("trust", "--trust", TRUST, Sequence[str])


def _typed(words: Mapping[str, Any]) -> set[str]:
    """Import paths that the user has typed: in settings, and to trust."""
    trust = words.get("trust", [])
    return {name for name, _ in named_in(words)} | {*([trust] if isinstance(trust, str) else trust)}


def from_keywords(
    data: str | Path | Mapping[str, Any], method: str | Mapping[str, Any] = "auto", **settings: Any
) -> dict[str, Any]:
    """The settings of a run from Python: nested mappings as in `config.yaml`.

    Args:
        data: name of a source, or a mapping with `source`.
        method: name of a method, or a mapping with `name`.
        **settings: those of the task's configuration.

    Raises:
        InputError: for an invalid setting or value; the message names it.
    """
    given = {
        "data": _with_name("data", "source", data),
        "method": _with_name("method", "name", method),
        **{name: _without_paths(value) for name, value in settings.items()},
    }
    if "trust" in given:
        given["trust"] = [*trusted_paths(given["trust"])]
    parsed = make_grammar("train", any_training, given).parse(_without_auto(given))
    stages = [f"{name}.{inner}" for name in STAGES for inner in settings.get(name) or ()]
    return {**parsed, "given": sorted([*settings, *stages])}


def _without_paths(value: Any) -> Any:
    """A value with its paths, alone or in a list, as strings."""
    if isinstance(value, list | tuple):
        return [_without_paths(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def resumed(
    folder: str | Path, method: str | Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of the run in a folder, with given ones changed.

    Args:
        folder: the run folder.
        method: name of a method, or a mapping with `name`; `auto` is that of the run.
        settings: given settings of the task's configuration.

    Raises:
        InputError: when the folder is not a run folder, or for an invalid setting.
    """
    settings = dict(settings)
    if method != AUTO:
        settings["method"] = _with_name("method", "name", method)
    trust = [*trusted_paths(settings.pop("trust", ()))]
    asked = _settings_of_run(folder, _typed({**settings, "trust": trust}))
    return from_keywords(**overlay(asked, settings), trust=trust)


def _settings_of_run(folder: str | Path, trust: Collection[str]) -> dict[str, Any]:
    """The settings with which a run was started; its folder may come from anyone.

    Args:
        folder: the run folder.
        trust: import paths that they may name.

    Raises:
        InputError: when the folder is not a run folder, or names code that is not longtail's or
            timm's.
    """
    settings = {
        name: value
        for name, value in asked_settings(folder).items()
        if name != "trust" and not (name in OPEN and value is None)
    }
    check_settings(f"run {folder}", settings, trust)
    return settings


def _without_auto(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the method `auto`, for which the grammar has a default."""
    return {
        name: value
        for name, value in given.items()
        if not (isinstance(value, Mapping) and value == {"name": AUTO})
    }


def any_training(data: str, method: str, **settings: Any) -> None:
    """Stands for a function with every setting of `train` as an argument."""


def read_data(data: str | Path | Mapping[str, Any]) -> DataConfig:
    """The settings of a source from Python.

    Raises:
        InputError: for an invalid setting or value; the message names it.
    """
    config: DataConfig = read_task_data(data, Config.task)[1]
    return config


def read_task_data(
    data: str | Path | Mapping[str, Any], task: str | None = None
) -> tuple[Task[Any, Any, Any], Any]:
    """A task, and its settings of a source from Python.

    Args:
        data: name of a source, or a mapping with `source`.
        task: name of the task; default: that of a named data set, else classification.

    Raises:
        InputError: for an unknown task, or an invalid setting or value; the message names it.
    """
    given = _with_name("data", "source", data)
    chosen = find_task(task) if task else task_of_source(given["source"])
    grammar = Grammar("data", any_training, skip={"data", "method"})
    grammar.add("data.source", "DATA", DATA)
    grammar.add_class("data", chosen.data_config, "data", {"source"})
    return chosen, chosen.data_config(**grammar.parse({"data": given})["data"])


def _number(value: Any) -> float | None:
    """A number, possibly written as text; None for anything else, which the parser rejects."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _with_name(what: str, name: str, given: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a mapping, with paths as strings; a string or path is only the name."""
    if not isinstance(given, str | Path | Mapping):
        raise InputError(
            f"{what} must be a name, an import path, or a mapping with its {name}, got {given!r}"
        )
    settings: dict[str, Any] = {name: given} if isinstance(given, str | Path) else dict(given)
    settings |= {key: str(value) for key, value in settings.items() if isinstance(value, Path)}
    if name not in settings:
        raise InputError(f"{what} must have a {name}, got {settings}")
    return settings


def to_config(settings: Mapping[str, Any]) -> Config:
    """The configuration of a run from parsed settings."""
    settings = dict(settings)
    for name in STAGES:
        if settings.get(name):
            settings[name] = _stage(name, settings)
    task = find_task(settings["task"])
    config: Config = task.config(**{**settings, "data": task.data_config(**settings["data"])})
    return config


def _stage(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an earlier stage: the recipe's, with the given ones changed.

    Raises:
        InputError: for an invalid setting or value; the message names it and the stage.
    """
    source, method = settings["data"]["source"], settings["method"]["name"]
    recipe = find_recipe(source, method, settings["data"].get("imbalance"))
    known, given = recipe.settings.get(name, {}), dict(settings[name])
    if isinstance(given.get("method"), str):
        given["method"] = {"name": given["method"]}
    if "method" in given and given["method"].get("name") != known.get("method", {}).get("name"):
        known = {key: value for key, value in known.items() if key != "method"}
    stage = overlay(known, given)
    try:
        parsed = from_keywords(
            **{"data": source, "method": "ce", "task": settings["task"], **stage}
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return _picked(parsed, stage)


def _picked(parsed: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The parsed settings that were given."""
    return {
        name: _picked(parsed[name], value) if isinstance(value, Mapping) else parsed[name]
        for name, value in names.items()
    }


def read_config(path: str | Path, trust: Collection[str]) -> dict[str, Any]:
    """Settings of a YAML file; `data` and `method` may be just names.

    Args:
        path: the file, which may come from anyone.
        trust: import paths that it may name.

    Raises:
        InputError: when it cannot be read, or names code that is not longtail's or timm's.
    """
    try:
        content = read_values(path)
    except (OSError, InputError) as error:
        raise InputError(f"config {path} cannot be read: {error}") from error
    if "trust" in content:
        raise InputError(f"config {path} must not have trust, which is for the command: --trust")
    for what, name in (("data", "source"), ("method", "name")):
        if what in content:
            content[what] = _with_name(f"{what} of config {path}", name, content[what])
    check_settings(f"config {path}", content, trust)
    return content


def check_settings(file: str, settings: Mapping[str, Any], trust: Collection[str]) -> None:
    """Rejects settings of a file that would run code.

    Args:
        file: the file, for the message.
        settings: its content.
        trust: import paths that it may name.

    Raises:
        InputError: when they name code that is not longtail's or timm's, or hide values in a
            string.
    """
    if hidden := list(_hidden_in(settings)):
        raise InputError(
            f"{file} must hold plain values, without class_path, names with dots, and lists or "
            f"mappings written as a text, got {', '.join(hidden)}"
        )
    refuse_untrusted(file, own_code_in(settings), trust)


def _hidden_in(value: Any, name: str = "") -> Iterator[str]:
    """Names of settings that the parser would expand into more than the file shows.

    The parser reads a string as YAML where any type is allowed, imports what a `class_path`
    names, and takes a name with a dot for a nested one.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inside = f"{name}.{key}" if name else str(key)
            if key == "class_path" or "." in str(key):
                yield inside
            if inside not in PATHS:
                yield from _hidden_in(inner, inside)
    elif isinstance(value, list):
        for inner in value:
            yield from _hidden_in(inner, name)
    elif isinstance(value, str) and _holds_more(value):
        yield name


def _holds_more(text: str) -> bool:
    """Whether a string is a list or mapping in YAML, or a string of one."""
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                return True
            if isinstance(event, yaml.ScalarEvent):
                return event.value != text and _holds_more(event.value)
    except yaml.YAMLError:
        pass
    return False
