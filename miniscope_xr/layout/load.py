"""Layouts: where on a card the words are, loaded from YAML.

A layout is the one place that knows addresses. :mod:`miniscope_xr.layout.words` turns it into ``construct``
structs and, from those, into numpy dtypes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from miniscope_xr.errors import LayoutError, did_you_mean, parser_said
from miniscope_xr.layout.checks import fail, shortened
from miniscope_xr.layout.model import Layout
from miniscope_xr.layout.schema import parse_layout
from miniscope_xr.source.regular import read_regular

_MAX_LAYOUT_BYTES = 1 << 20
_MAX_VALUES = 100_000  # of a layout file, repetitions by YAML's aliases counted: a few lines can mean billions


# Ten times faster, but text nested too deeply ends the interpreter: for our own files only.
_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _values(node: yaml.Node | None, where: str, known: dict[int, int]) -> int:
    """How many values a YAML node stands for."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES  # what is met again inside itself has no end
        children = [n for pair in node.value for n in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_values(child, where, known) for child in children)
    if known[id(node)] >= _MAX_VALUES:
        raise fail(where, f"repeats itself by aliases (&, *) to more than {_MAX_VALUES} values; write out what it says")
    return known[id(node)]


_KINDS = {type(None): "nothing", list: "a list", str: "text"}


def _parse_text(text: str, where: str, loader: Any = yaml.SafeLoader) -> Layout:
    try:
        reader = loader(text)
        try:
            node = reader.get_single_node()
            _values(node, where, {})
            data = None if node is None else reader.construct_document(node)
        finally:
            reader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise fail(where, f"is not YAML: {parser_said(error)}") from error
    if not isinstance(data, Mapping):
        found = _KINDS.get(type(data), "one value")
        raise fail(where, f"expected a mapping with sectors, header and buffer, found {found}")
    return parse_layout(data, where)


@lru_cache(maxsize=1)
def builtin_layouts() -> dict[str, Layout]:
    """Layouts shipped with the package, by id; of two that fit a card alike, the first is meant."""
    found = {}
    for file in sorted((resources.files("miniscope_xr") / "layouts").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            layout = _parse_text(file.read_text(encoding="utf-8"), file.name, _FAST_LOADER)
            found[layout.id] = layout
    return dict(sorted(found.items(), key=lambda item: item[1].rank))


def layout_names() -> Iterator[str]:
    """Every id and alias :func:`load_layout` understands."""
    for layout in builtin_layouts().values():
        yield layout.id
        yield from layout.aliases


def _load_file(path: Path) -> Layout:
    try:
        content = read_regular(path, _MAX_LAYOUT_BYTES)
    except OSError as error:
        raise fail(str(path), f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise fail(str(path), f"cannot be a layout: {error}; a layout is a YAML file, a card image is not") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fail(str(path), "is not a text file") from error
    return _parse_text(text.replace("\r\n", "\n"), path.name)


def load_layout(source: str | os.PathLike[str] | Mapping[str, Any] | Layout) -> Layout:
    """Load a layout.

    Parameters
    ----------
    source
        The id of a shipped layout (``v4-wirefree``, ``daq-wirefree``, ``v3-wirefree``, or mio's
        ``wirefree-sd-layout`` and ``wirefree-sd-layout-battery``), the path of a YAML file, a mapping
        with the same content, or a Layout.

    Raises
    ------
    LayoutError
        Names the field that is wrong, or the layouts there are.
    """
    if isinstance(source, Layout):
        return source
    if isinstance(source, Mapping):
        name = source.get("id", "dict")
        return parse_layout(source, name if isinstance(name, str) else "dict")
    if not isinstance(source, str | os.PathLike):
        raise LayoutError(f"layout: expected an id, a path, a mapping or a Layout, found {shortened(source)}")
    for layout in builtin_layouts().values():
        if source == layout.id or source in layout.aliases:
            return layout
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return _load_file(path)
    known = list(layout_names())
    raise LayoutError(
        f"layout {shortened(str(source))} is neither known nor a file{did_you_mean(str(source), known)}; "
        f"known: {', '.join(known)}"
    )
