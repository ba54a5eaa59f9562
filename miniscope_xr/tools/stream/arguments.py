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
