"""What stands in for `myst_nb.glue` in a notebook: figures are shown, numbers printed later."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[3] / "tools" / "notebooks" / "glue_stand_in.py"


class Figure:
    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, str]:
        return {"text/plain": "a figure"}


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "myst_nb", ModuleType("myst_nb"))
    runpy.run_path(str(FILE))
    return sys.modules["myst_nb"]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    values: list[object] = []
    monkeypatch.setattr("IPython.display.display", values.append)
    yield values


def test_a_figure_is_shown_where_it_is_drawn(book: ModuleType, shown: list[object]) -> None:
    figure = Figure()
    book.glue("curve", figure, display=False)
    book.glue("loss", 0.5, display=False)
    book.glue("text", "words")
    assert shown == [figure, "words"]


def test_numbers_are_printed_in_the_form_of_the_text(
    book: ModuleType, shown: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"loss": 0.512, "n": 3, "cpu": "a processor", "a:b": 0.5}.items():
        book.glue(name, value, display=False)
    book.numbers("loss:.2f", "n:s", "cpu:s", "a:b:.0%")
    printed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert printed == [["loss", "0.51"], ["n", "3"], ["cpu", "a processor"], ["a:b", "50%"]]


def test_a_number_that_comes_later_is_printed_then(
    book: ModuleType, shown: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    book.numbers("late:.1f", "never:s")
    assert capsys.readouterr().out == "not computed yet: late, never\n"
    book.glue("late", 2, display=False)
    book.numbers()
    assert capsys.readouterr().out.split() == ["late", "2.0"]


def test_chapters_import_it_as_they_import_the_original(book: ModuleType) -> None:
    import myst_nb
    from myst_nb import glue

    assert myst_nb is book and glue is book.glue
