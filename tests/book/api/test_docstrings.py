"""book/_ext/api/docstrings.py: what Sphinx is told about the package's docstrings."""

from types import SimpleNamespace
from typing import Any

import pytest

from book._ext.api.docstrings import source_module

APP: Any = SimpleNamespace(config=SimpleNamespace(api_package="posttrain"))


@pytest.mark.parametrize(
    ("module", "name", "shown_in"),
    [
        ("posttrain.core.records", "Row", "posttrain.core.records"),
        ("posttrain.core.records", "Record", None),
        ("posttrain.core.records", "Record.select", None),
        ("posttrain.core.records", "missing", None),
        ("posttrain.nowhere", "Row", None),
    ],
)
def test_no_source_is_looked_for_outside_the_package(
    module: str, name: str, shown_in: str | None
) -> None:
    __import__("posttrain.core.records")
    assert source_module(APP, module, name) == shown_in
