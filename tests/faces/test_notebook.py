"""What a cell of a notebook shows, by the code that shows it: IPython's shell with matplotlib's inline backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.simulate import SimulatedCard

IPython = pytest.importorskip("IPython", reason="needs IPython")
matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib")
pytest.importorskip("matplotlib_inline", reason="needs matplotlib_inline")


@pytest.fixture(scope="module")
def shell(
    clean_card: tuple[Path, SimulatedCard], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """A shell in which ``ds`` is open, and the list of what its page shows."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets import Type

    outputs: list[dict[str, Any]] = []

    class Hook(DisplayHook):  # what a cell returns
        def write_output_prompt(self) -> None:
            pass

        def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
            outputs.append(format_dict)

    class Publisher(DisplayPublisher):  # what is shown while it runs, and behind it
        def publish(self, data: dict[str, Any], *args: Any, **options: Any) -> None:
            outputs.append(data)

    class Page(InteractiveShell):
        displayhook_class = Type(Hook)
        display_pub_class = Type(Publisher)

        def enable_gui(self, gui: Any = None) -> None:
            pass

    before = matplotlib.get_backend()
    page = Page.instance(ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    page.display_formatter.active_types = page.display_formatter.format_types
    try:
        opened = f"ds = xr.open_dataset({str(clean_card[0])!r}, engine='miniscope')"
        assert page.run_cell(f"%matplotlib inline\nimport xarray as xr, matplotlib.pyplot as plt\n{opened}").success
        yield page, outputs
        page.run_cell("ds.close(); plt.close('all')")
    finally:
        page.history_manager.end_session()
        Page.clear_instance()
        matplotlib.use(before)


def shown(shell: tuple[Any, list[dict[str, Any]]], cell: str, kind: str) -> int:
    """How many outputs of a kind a cell has."""
    page, outputs = shell
    outputs.clear()
    assert page.run_cell(cell).success
    return sum(kind in output for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("ds.miniscope.plot_headers()", "image/png"),
        ("ds.miniscope.plot()", "image/png"),
        ("ds.miniscope.play(slice(0, 4))", "text/html"),
        ("ds.miniscope.check()", "text/html"),
    ],
)
def test_a_cell_shows_it_once(shell: Any, cell: str, kind: str) -> None:
    assert shown(shell, cell, kind) == 1
    assert shown(shell, "1", kind) == 0, "nor is it shown by the next one"


@pytest.mark.slow
def test_a_figure_that_is_kept_is_shown_when_asked_for(shell: Any) -> None:
    assert shown(shell, "kept = ds.miniscope.plot_headers()", "image/png") == 0
    assert shown(shell, "kept", "image/png") == 1


def test_a_figure_of_ones_own_is_shown_once(shell: Any) -> None:
    assert shown(shell, "figure, axes = plt.subplots(); ds.miniscope.plot('mean', ax=axes)", "image/png") == 1
