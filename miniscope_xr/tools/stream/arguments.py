"""What a command was asked for, as a value with names and types: argparse's namespace goes no further than this."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

Asked = TypeVar("Asked")


def taken(kind: type[Asked], namespace: argparse.Namespace) -> Asked:
    """Return the options of a command, taken out of what argparse parsed.

    Parameters
    ----------
    kind
        A dataclass; each of its fields is an argument of the command's parser.
    """
    described: Any = kind
    return kind(**{field.name: getattr(namespace, field.name) for field in fields(described)})


def typed(kind: type[Asked], run: Callable[[Asked], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command that argparse can call (``func=``), which hands on the options it was asked for."""
    return lambda namespace: run(taken(kind, namespace))


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
