"""What the setup page says of the repository is true: variables, extras, commands, versions."""

import ast
import re
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book/start/setup.md").read_text(encoding="utf-8")
PROGRAMS = [
    path
    for folder in ("code", "tools", "book/_ext")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "__pycache__" not in path.parts
]
NAME = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*"
OWN = re.compile(r"POSTTRAIN_[A-Z]+")


def rows(head: str) -> dict[str, list[str]]:
    """The table whose head begins like this: the cells after the first, by the first."""
    lines = PAGE.split(head, 1)[1].splitlines()[2:]
    table = {}
    for line in lines:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        table[first.strip("`")] = rest
    return table


def variables_of_python(source: str, *, given: bool = True) -> set[str]:
    """Names that a program asks the environment for and, if wanted, gives to others."""
    found = set(OWN.findall(source))
    calls = rf"""(?:environ(?:\.get\(|\[|\.setdefault\()|getenv\()\s*["']({NAME})["']"""
    found |= set(re.findall(calls, source))
    found |= set(re.findall(rf"""_env(?:: str = |=)["']({NAME})["']""", source))  # a default
    if not given or "os.environ" not in source:
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            found |= {
                key for key in map(str, keys) if re.fullmatch(f"{NAME}", key) and "_" in key
            }
    return found


def variables_of_make(source: str) -> set[str]:
    """Names with a default that a reader may change, and names that recipes set."""
    changeable = set(re.findall(rf"^({NAME}) \?=", source, re.MULTILINE))
    environment = re.search(r"^RUN_ENV = ((?:.*\\\n)*.*)", source, re.MULTILINE)
    given = re.findall(rf"\b({NAME})=", environment[1]) if environment else []
    return changeable | set(given)


def variables_of_the_repository() -> set[str]:
    found = variables_of_make((ROOT / "Makefile").read_text(encoding="utf-8"))
    for path in PROGRAMS:
        in_package = path.is_relative_to(ROOT / "code")
        found |= variables_of_python(path.read_text(encoding="utf-8"), given=in_package)
    return found - {"PATH"}


def test_the_table_names_all_environment_variables_and_no_others() -> None:
    assert set(rows("| variable |")) == variables_of_the_repository()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("# see POSTTRAIN_HOME\n", {"POSTTRAIN_HOME"}),
        ("import os\nx = os.environ.get('CHROMIUM', '')\n", {"CHROMIUM"}),
        ("def f(key_env: str = 'A_B'): g(key_env='C_D')\n", {"A_B", "C_D"}),
        ("import os\nx = os.environ['A_B'], os.getenv(\n    'CD')\n", {"A_B", "CD"}),
        ("import os\nenv = {**os.environ, 'OMP_X': '1', 'ok': 2}\n", {"OMP_X"}),
        ("settings = {'OMP_X': '1'}\n", set()),
    ],
)
def test_variables_are_found_in_programs(source: str, found: set[str]) -> None:
    assert variables_of_python(source) == found


def test_variables_are_found_in_make() -> None:
    source = (
        'TORCH ?= torch\nVENV = .venv\nRUN_ENV = PATH="x" A_B=1 \\\n\tC_D=2\n\nx:\n\tE_F=3 y\n'
    )
    assert variables_of_make(source) == {"TORCH", "PATH", "A_B", "C_D"}


def test_the_defaults_of_make_are_those_of_the_table() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, default in re.findall(rf"^({NAME}) \?= *(.*)$", makefile, re.MULTILINE):
        said = rows("| variable |")[name][0]
        assert said == (f"`{default}`" if default else "not set"), name


def test_the_table_of_extras_is_that_of_the_package() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert set(rows("| extra |")) == set(project["project"]["optional-dependencies"])


def test_each_command_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", makefile, re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", PAGE, re.MULTILINE))
    assert {"book", "test", "serve", "install", "distclean"} <= named <= targets


def test_versions_are_those_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch = set(re.findall(r"torch==([\w.]+)", PAGE))
    assert torch == set(re.findall(r"^TORCH \?= torch==(\S+)", makefile, re.MULTILINE))
    wanted = re.search(r"This book needs (Python 3\.\d+ or 3\.\d+)", makefile)
    assert wanted and wanted[1] in PAGE


def test_each_place_says_whether_it_was_tried() -> None:
    places = rows("| place |")
    assert len(places) == 6
    for place, (_, tried) in places.items():
        label = re.search(r"<([\w-]+)>", place)
        assert label and f"({label[1]})=\n" in PAGE, place
        section = PAGE.split(f"({label[1]})=\n")[1].split("\n(")[0]
        assert tried.startswith(("yes: ", "not tried", "planned"))
        assert ("*Not tried" in section) == tried.startswith("not tried"), place


# --- the repository's address ---


@pytest.fixture
def address_in_text() -> ModuleType:
    pytest.importorskip("sphinx")
    from book._ext.site import address_in_text

    return address_in_text


def app_at(address: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(html_context={"repository_url": address}))


def test_the_mark_becomes_the_address(address_in_text: ModuleType) -> None:
    source = ["git clone @repository@ book\n# @repository@\n"]
    address_in_text.write_address(app_at("https://example.org/a/b"), "page", source)
    assert source == ["git clone https://example.org/a/b book\n# https://example.org/a/b\n"]


def test_a_mark_without_an_address_is_a_warning(
    address_in_text: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        address_in_text.logger, "warning", lambda text, *a, **k: said.append(text % a)
    )
    address_in_text.write_address(app_at(""), "page", ["no mark"])
    assert said == []
    address_in_text.write_address(app_at(""), "page", ["@repository@"])
    assert said == ["@repository@ is used, but no repository is known"]


def test_the_page_does_not_hold_the_address() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert "@repository@" in PAGE and config["repository"]["url"] not in PAGE
