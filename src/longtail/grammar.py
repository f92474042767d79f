"""Command-line parsers for typed functions: options, checks of values, and messages."""

import argparse
import inspect
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from longtail.errors import InputError
from longtail.names import nearest

HELP = {"-h", "--help"}
BOOLEANS = ("true", "false")
TYPES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    dict: "a mapping",
    types.NoneType: "null",
}
LISTS = (list, tuple, Sequence)


class Grammar:
    """The arguments of a command.

    An option is spelt with dashes (`--batch-size`), its value in Python and in YAML with
    underscores (`batch_size`). An option that takes a list takes several words. Required arguments
    are positional; if a function requires none, its first argument is.

    Args:
        command: the command, such as `data check`.
        function: the function of `longtail.api`; its docstring becomes the help.
        skip: parameters that the caller adds in another form.
    """

    def __init__(
        self, command: str, function: Callable[..., Any], skip: Iterable[str] = ()
    ) -> None:
        self.command = f"longtail {command}"
        self.renamed: dict[str, str] = {}
        self.other_defaults: dict[str, str] = {}  # for the help, by name
        summary, _, rest = (inspect.getdoc(function) or "").partition("\n\n")
        more, _, _ = rest.partition("Args:\n")
        self.parser = ArgumentParser(
            prog=self.command,
            description=f"{summary}\n\n{more}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            exit_on_error=False,
        )
        self.parser.add_function_arguments(
            function, as_group=False, as_positional=True, skip={*skip}
        )
        for action in self.parser._actions:  # for classes, which a command line cannot name
            if action.dest.endswith(".help"):
                action.help = argparse.SUPPRESS
        if str(inspect.signature(function).return_annotation).startswith(("dict", "list[dict")):
            self.parser.add_argument("--json", type=bool, default=False, help="print JSON")

    def add_class(
        self, title: str, made: type, prefix: str | None = None, skip: Iterable[str] = ()
    ) -> None:
        """Adds the arguments of a constructor as a group of options.

        Args:
            title: heading of the group in the help.
            made: the class.
            prefix: prefix of the options, such as `data` in `--data.root`.
            skip: parameters to leave out.
        """
        group = self.parser.add_argument_group(title)
        group.add_class_arguments(made, prefix, as_group=False, skip={*skip})

    def add(self, name: str, option: str, help: str, kind: Any = str) -> None:
        """Adds an argument whose option and value have different names.

        Args:
            name: dotted name of the value, such as `method.name`.
            option: its name on the command line: `--method`, or `DATA` for a positional one.
            help: description.
            kind: type of its value.
        """
        if option.startswith("--"):
            self.renamed[option[2:]] = name
            self.parser.add_argument(f"--{name}", type=kind, help=help)
        else:
            self.parser.add_argument(name, metavar=option, type=str, help=help)

    @property
    def types(self) -> dict[str, Any]:
        """Type of every argument, by its dotted name."""
        return {action.dest: _type_of(action) for action in self._actions()}

    def _actions(self) -> Iterator[argparse.Action]:
        """Arguments with a value, without `--help` and what jsonargparse adds for a class."""
        return (a for a in self.parser._actions if a.default != argparse.SUPPRESS)

    def arguments(self, words: Sequence[str]) -> dict[str, Any] | str:
        """Parses a command line into the function's arguments, or returns the help if requested.

        Raises:
            InputError: for an invalid option or value; the message names it.
        """
        return self.help() if HELP & {*words} else self.parse(self.read(words))

    def read(self, words: Sequence[str], *, lenient: bool = False) -> dict[str, Any]:
        """Nested mapping of the values in a command line, as strings.

        Args:
            words: what follows the command.
            lenient: accept unknown options, which then take one word each.

        Raises:
            InputError: for an unknown option, an option without a value, or an extra word.
        """
        types, loose, lists = self.types, list[str](), set[str]()
        values: dict[str, Any] = {}
        rest = deque(words)
        while rest:
            word = rest.popleft()
            if not word.startswith("--"):
                loose.append(word)
                continue
            option, equals, value = word[2:].partition("=")
            name = self.renamed.get(option, option.replace("-", "_"))
            known = next((n for n in types if f"{name}.".startswith(f"{n}.")), None)
            if known is None and not lenient:
                raise InputError(f"{self.command} has no option --{option}{self._near(option)}")
            kind = types.get(name, str)
            if _accepts(kind, LISTS) and name in lists:
                raise InputError(f"--{option} must be given once, with all its values after it")
            lists.add(name)
            given = [value] if equals else list(_taken(kind, rest))
            if not given and lenient:
                continue
            if not given:
                raise InputError(f"--{option} must have a value, as in --{option} VALUE; got none")
            _put(values, name, _joined(kind, given, raw=name not in types))
        surplus = self._place(values, loose)
        if surplus and not lenient:
            names = " ".join(self._positionals()) or "options only"
            raise InputError(f"{self.command} takes {names}; got {', '.join(map(repr, loose))}")
        return values

    def _place(self, values: dict[str, Any], loose: Sequence[str]) -> deque[str]:
        """Assigns the words without an option to the positional arguments.

        Returns: extra words.
        """
        rest = deque(loose)
        for action in self._words():
            if not rest:
                break
            kind = _type_of(action)
            many = _accepts(kind, LISTS)
            given = [rest.popleft(), *(rest if many else ())]
            if many:
                rest.clear()
            _put(values, action.dest, _joined(kind, given))
        return rest

    def parse(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Checks values against the types, and fills in defaults.

        Args:
            values: nested mapping, from `read` or from Python; strings are converted.

        Raises:
            InputError: for an unknown name, a wrong type or a missing value.
        """
        types = self.types
        given = dict(_leaves(values, types))
        for name in given.keys() - types.keys():
            raise InputError(f"unknown setting {name!r}{nearest(name, types)}")
        for name, value in given.items():
            if isinstance(value, str) and not value.strip():
                raise InputError(f"{name} must not be blank, got {value!r}")
        for action in self._actions():
            if action.required and action.dest not in given:
                option = f"--{_dashed(action.dest)}" if action.option_strings else _shown(action)
                raise InputError(f"{self.command} needs {option}: {action.help}")
        try:
            parsed: dict[str, Any] = self.parser.parse_object(values).as_dict()
            return parsed
        except ArgumentError as error:
            for name, value in given.items():
                if not _fits(value, types[name]):
                    rule = _described(types[name])
                    raise InputError(f"{name} must be {rule}, got {value}") from error
            raise InputError(str(error)) from error

    def help(self) -> str:
        """Help of the command, with options as spelled on the command line."""
        required = [
            f"--{_dashed(action.dest)} {_shown(action)}"
            for action in self._actions()
            if action.required and action.option_strings
        ]
        self.parser.usage = " ".join([self.command, *self._positionals(), *required, "[options]"])
        options = {name: option for option, name in self.renamed.items()}
        for action in self._actions():
            action.metavar = _shown(action)
            if action.option_strings:
                option = f"--{_dashed(options.get(action.dest, action.dest))}"
                named = ".NAME" if _accepts(_type_of(action), (dict,)) else ""
                action.option_strings = [option + named]
                shown = not any(action.default is none for none in (None, False))
                default = _text(action.default)
                if other := self.other_defaults.get(action.dest):
                    default += f"; {other}"
                if other or (shown and action.default not in ({}, (), [])):
                    action.help = f"{action.help or ''} (default: {default})".strip()
        return self.parser.format_help()

    def set_defaults(self, values: Mapping[str, Any]) -> None:
        """Sets the defaults of arguments, from a nested mapping as for `parse`."""
        self.parser.set_defaults(dict(_leaves(values, self.types)))

    def _words(self) -> list[argparse.Action]:
        """Positional arguments."""
        required = [action for action in self._actions() if not action.option_strings]
        return required or list(self._actions())[:1]

    def _positionals(self) -> list[str]:
        """Names of these arguments in the usage."""
        names = [(a.dest if a.option_strings else _shown(a), a.required) for a in self._words()]
        return [name if required else f"[{name.upper()}]" for name, required in names]

    def _near(self, option: str) -> str:
        """Suggests the option nearest to an unknown one."""
        known = [*self.renamed, *map(_dashed, self.types)]
        return nearest(f"--{_dashed(option)}", [f"--{name}" for name in known])


def _type_of(action: argparse.Action) -> Any:
    """Type of an argument: jsonargparse keeps it in a private attribute."""
    return getattr(action, "_typehint", action.type)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _text(value: Any) -> str:
    """A default as written on the command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(action: argparse.Action) -> str:
    """The placeholder for an argument's value in the help."""
    kind = _type_of(action)
    if choices := [
        str(c) for part in _parts(kind) if get_origin(part) is Literal for c in get_args(part)
    ]:
        return "{" + ",".join(choices) + "}"
    if not action.option_strings:
        name = str(action.metavar or action.dest).upper()
        return f"{name} ..." if _accepts(kind, LISTS) and not name.endswith("...") else name
    if _accepts(kind, (bool,)):
        return "[{true,false}]"
    known = {int: "INT", float: "FLOAT"}
    inner = [get_args(part)[0] for part in _parts(kind) if get_origin(part) in LISTS]
    word = next((known[t] for t in known if _accepts(kind, (t,)) or t in inner), "VALUE")
    return f"{word} ..." if inner else word


def _parts(kind: Any) -> tuple[Any, ...]:
    """Members of a union, or the type itself."""
    union = get_origin(kind) in (Union, types.UnionType)
    return get_args(kind) if union else (kind,)


def _accepts(kind: Any, wanted: Sequence[type]) -> bool:
    return any((get_origin(part) or part) in wanted for part in _parts(kind))


def _taken(kind: Any, rest: deque[str]) -> Iterator[str]:
    """Removes the words of an option's value from the front of the rest."""
    if _accepts(kind, (bool,)) and not (rest and rest[0].lower() in BOOLEANS):
        yield "true"
        return
    while rest and not rest[0].startswith("--"):
        yield rest.popleft()
        if not _accepts(kind, LISTS):
            return


def _joined(kind: Any, given: list[str], raw: bool = False) -> Any:
    """The value of an option from its words."""
    if _accepts(kind, LISTS) and (len(given) > 1 or not _accepts(kind, (str,))):
        return given
    if not (raw or _accepts(kind, (dict,))):
        return given[0]
    try:
        return yaml.safe_load(given[0])
    except yaml.YAMLError:  # a string, which the option's type accepts or rejects
        return given[0]


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets a value under a dotted name."""
    *outer, last = name.split(".")
    for key in outer:
        inner = values.setdefault(key, {})
        values = inner if isinstance(inner, dict) else values
    values[last] = value


def _leaves(
    values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Values by dotted name; a mapping that is one argument's value stays whole."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in known:
            yield from _leaves(value, known, f"{name}.")
        else:
            yield name, value


def _fits(value: Any, kind: Any) -> bool:
    """Whether jsonargparse accepts a value for a type."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True


def _described(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    parts = _parts(kind)
    if len(parts) > 1:
        return " or ".join(map(_described, parts))
    if get_origin(kind) in LISTS:
        return f"a list, each {_described(get_args(kind)[0])}"
    known = get_origin(kind) or kind
    return TYPES.get(known, getattr(known, "__name__", str(known)))
