"""The rooms of ``book/_ext`` and ``tools``: each file in one, imports between them one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What each room may import, beside itself and the package.
ROOMS = {
    "book._ext.theme": set(),
    "book._ext.site": set(),
    "book._ext.chapters": {"book._ext.site"},
    "book._ext.api": {"book._ext.chapters"},
    "tools.notebooks": {"book._ext.chapters", "book._ext.site"},
    "tools.clean": {"book._ext.chapters", "tools.notebooks"},
    "tools.site": {"book._ext.chapters", "book._ext.site", "tools.notebooks"},
}  # fmt: skip


def imported(text: str) -> Iterator[str]:
    """The rooms that a module's text imports from, anywhere in it."""
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] in ("book", "tools"):
                yield ".".join(parts[: 3 if parts[0] == "book" else 2])


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_rooms_run_one_way(room: str) -> None:
    for file in sorted((ROOT / room.replace(".", "/")).glob("*.py")):
        found = set(imported(file.read_text(encoding="utf-8")))
        assert found <= {room, *ROOMS[room]}, file


def test_every_file_stands_in_a_room() -> None:
    rooms = {room.replace(".", "/") for room in ROOMS}
    for top in ("book/_ext", "tools"):
        files = [path for path in (ROOT / top).rglob("*.py") if path.name != "__init__.py"]
        places = {path.parent.relative_to(ROOT).as_posix() for path in files}
        assert places == {room for room in rooms if room.startswith(top)}
        for init in (ROOT / top).rglob("__init__.py"):
            assert init.read_text() == "", f"{init} must stay bare"


def test_imports_are_found() -> None:
    text = "import tools.site.check, ast\ndef f():\n    from book._ext.api import papers\n"
    assert set(imported(text)) == {"tools.site", "book._ext.api"}
