"""Stands in for `myst_nb.glue` where a chapter runs as a notebook.

On the site, ``glue`` hands a cell's values and figures to the text, and shows nothing where the
cell stands. In a notebook the text cannot take them up. So here a figure is shown by the cell
that draws it, and ``numbers`` prints the values that the text calls by name.
"""

import sys
import types

_book = types.ModuleType("myst_nb", "Hands values to the reader of a notebook.")
_book.values, _book.awaited = {}, {}


def _glue(name, value, display=True):
    """Keep a value under a name; show it if it is a figure, or if display asks for it."""
    _book.values[name] = value
    if display or hasattr(value, "_repr_mimebundle_") or hasattr(value, "_repr_html_"):
        from IPython.display import display as show

        show(value)


def _numbers(*wanted):
    """Print values as the text formats them, now or as soon as they are known."""
    _book.awaited.update(item.rpartition(":")[::2] for item in wanted)
    for name in [name for name in _book.awaited if name in _book.values]:
        value, form = _book.values[name], _book.awaited.pop(name)
        print(f"{name:<24} {format(value, '' if form == 's' else form)}")
    later = [name for name, _, _ in (item.rpartition(":") for item in wanted)]
    if later := [name for name in later if name in _book.awaited]:
        print("not computed yet:", ", ".join(later))


_book.glue, _book.numbers = _glue, _numbers
sys.modules["myst_nb"] = _book
