"""What a command was asked for, as a value with names and types: argparse's namespace goes no further than this.

A command's options are a dataclass (``frozen``, ``kw_only``), and each field says once what it is::

    card: str = positional("a card's device or an image file", "CARD")
    frames: int | None = option("the first N frames only", "N")
    force: bool = flag("overwrite an output that is there")
    stall: list[str] = several("a card stall, in ms", "AT:LENGTH")

A field without such words is no argument: whoever makes the parser sets it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from typing import Any, TypeVar, cast

Asked = TypeVar("Asked")
_NUMBERS: dict[str, dict[str, Any]] = {"int": {"type": int}, "float": {"type": float}}


def positional(text: str | None, metavar: str | None = None, **more: Any) -> Any:
    """A word in its place; ``more`` is of argparse's ``add_argument``."""
    return field(metadata={"option": False, "help": text, "metavar": metavar, **more})


def option(text: str, metavar: str | None = None, *, default: Any = None, **more: Any) -> Any:
    """``--NAME VALUE``, a number where the field is one; ``group`` is the heading in the help, and what is below it."""
    return field(
        default=default, metadata={"option": True, "help": text, "metavar": metavar, "default": default, **more}
    )


def flag(text: str, **more: Any) -> Any:
    """``--NAME``: true where it is typed."""
    return field(default=False, metadata={"option": True, "help": text, "action": "store_true", **more})


def several(text: str, metavar: str, **more: Any) -> Any:
    """``--NAME VALUE``, which can be given again."""
    how = {"option": True, "help": text, "metavar": metavar, "action": "append", "default": [], **more}
    return field(default_factory=list, metadata=how)


def texts(of: Mapping[str, str], **more: Any) -> Any:
    """``--NAME TEXT`` for each name in ``of``, which says what it is: those that were given, by their names."""
    return field(default_factory=dict, metadata={"texts": of, **more})


def declare(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add to a parser what the fields of ``kind`` say."""
    groups: dict[Any, Any] = {(): parser}
    for each in fields(kind):
        how = {**each.metadata}
        group = how.pop("group", ())
        if group not in groups:
            groups[group] = parser.add_argument_group(*group)
        if "texts" in how:
            for name, text in how["texts"].items():
                groups[group].add_argument(_dashed(name), metavar="TEXT", help=text)
        elif how:
            name = _dashed(each.name) if how.pop("option") else each.name
            number = _NUMBERS.get(str(each.type).removesuffix(" | None"), {})
            groups[group].add_argument(name, **number, **how)


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def taken(kind: type[Asked], namespace: argparse.Namespace) -> Asked:
    """Return the options of a command, taken out of what argparse parsed."""
    given, described = vars(namespace), cast(Any, kind)
    return kind(**{
        each.name: {name: given[name] for name in each.metadata["texts"] if given[name] is not None}
        if "texts" in each.metadata else given[each.name]
        for each in fields(described)
    })  # fmt: skip


def runs(parser: argparse.ArgumentParser, kind: type[Asked], run: Callable[[Asked], int]) -> None:
    """Give a command's parser its arguments, and have it hand on what it was asked for (``func=``)."""
    declare(parser, kind)
    parser.set_defaults(func=lambda namespace: run(taken(kind, namespace)))


def rate_of(word: str) -> float | str | None:
    """Return the frame rate that a word asks for: None for ``measured``, ``nominal``, or a number.

    Raises
    ------
    argparse.ArgumentTypeError
        It is none of them.
    """
    if word in ("measured", "nominal"):
        return None if word == "measured" else word
    try:
        return float(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r}: expected measured, nominal or a number") from error


def anywhere(parser: argparse.ArgumentParser, name: str) -> None:
    """Let the words of a positional argument stand behind options too, where argparse does not look for them any more.

    The parser is changed and not subclassed: a module's ``register`` adds its commands to any parser of argparse.

    Parameters
    ----------
    parser
        Of the command.
    name
        Of an argument with ``nargs="*"``.
    """
    plain = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        found, rest = plain(args, namespace)
        setattr(found, name, [*getattr(found, name), *(word for word in rest if not word.startswith("-"))])
        return found, [word for word in rest if word.startswith("-")]

    parser.parse_known_args = parse  # type: ignore[method-assign, assignment]
