"""What holds for the repository as a whole: its layout, its lock, its pages' references."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from book._ext.chapters.myst import read, without

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
PACKAGE = ROOT / "code" / "posttrain"

# Modules without a test file of their own name: parts split off from another module, and tested
# through it. Each names the file that tests it.
TESTED_WITH: dict[str, str] = {
    "dpo/runs/by_hand_engine.py": "dpo/runs/test_engines.py",
    "dpo/runs/trl_watching.py": "dpo/runs/test_own_run.py",
    "dpo/runs/unsloth_worker.py": "dpo/runs/test_unsloth_engine.py",
    "core/training/checkpoints.py": "core/training/test_loop.py",
    "core/storage/code_hash.py": "core/test_artifacts.py",
    "core/storage/conversion.py": "core/test_assets.py",
    "core/doctor.py": "core/test_cli.py",
    "core/goals_table.py": "core/test_goals.py",
    "core/figures/line_labels.py": "core/figures/test_plotting.py",
    "core/training/optimization.py": "core/training/test_loop.py",
    "core/figures/style.py": "core/figures/test_plotting.py",
    "core/storage/store.py": "core/test_artifacts.py",
    "core/figures/svg.py": "core/figures/test_plotting.py",
    "core/storage/texts.py": "core/test_assets.py",
    "sft/training/unsloth_worker.py": "sft/training/test_unsloth_engine.py",
}
# Exception classes only; each is tested where it is raised.
NO_TEST = {"core/errors.py"}

# In parts, so that this file does not hold what it forbids.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("conda", "anaconda", "org"),
    )
]
PERSONAL_PATH = re.compile(r"(?<![\w./~-])(?:/(?:home|root|work|Users)/\w|[A-Z]:\\Users\\)")


def project_files() -> list[Path]:
    """The files that git tracks or would track; without git, all but what tools make."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode == 0 and (ROOT / ".git").exists():
        names = [name for name in listing.stdout.split("\0") if name]
        return sorted(path for name in names if (path := ROOT / name).is_file())
    made = {".venv", "_build", ".git", "__pycache__"}
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(p in made or p.endswith(("_cache", ".egg-info")) for p in path.parts)
    )


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def chapters() -> list[Path]:
    return sorted(BOOK.rglob("*.md"))


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def make_targets() -> set[str]:
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    places = [*REGISTRY_HOSTS, str(ROOT), str(Path.home())]
    places = [
        place for place in places if len(place) > 5
    ]  # a home such as /root is a pattern's
    found = []
    for path in project_files():
        for number, line in enumerate((text_of(path) or "").splitlines(), 1):
            if PERSONAL_PATH.search(line) or any(place in line for place in places):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        ("data = '/{home}/reader/data'", True),
        ("see C:\\{Users}\\reader", True),
        ("cd /{work}/main", True),
        ("posttrain/home/x", False),
        ("https://example.com/work/paper", False),
        ("/usr/bin/time", False),
    ],
)
def test_the_pattern_for_places_on_one_machine(line: str, forbidden: bool) -> None:
    line = re.sub(r"[{}]", "", line)  # in braces, so that this file does not hold the path
    assert bool(PERSONAL_PATH.search(line)) is forbidden


def test_no_package_hides_the_standard_library_module_code() -> None:
    assert not (ROOT / "code" / "__init__.py").exists()


def test_every_module_has_a_test_file() -> None:
    missing = []
    for path in modules():
        name = path.relative_to(PACKAGE)
        if path.name.startswith("_") or name.as_posix() in NO_TEST:
            continue
        own = (name.parent if name.parent.parts else Path("core")) / f"test_{path.name}"
        files = [own.as_posix(), TESTED_WITH.get(name.as_posix(), own.as_posix())]
        if not any((ROOT / "tests" / file).is_file() for file in files):
            missing.append(f"{name.as_posix()} wants tests/{files[-1]}")
    assert not missing, "\n".join(missing)


def test_every_room_says_what_it_is_and_holds_no_code() -> None:
    packages = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
    folders = {path.parent for path in modules()} - {PACKAGE}
    assert [folder for folder in folders if folder / "__init__.py" not in packages] == []
    for path in packages:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) and len(tree.body) == 1, path.relative_to(PACKAGE)


def test_every_exception_from_that_rule_names_a_module() -> None:
    assert [name for name in (*TESTED_WITH, *NO_TEST) if not (PACKAGE / name).is_file()] == []


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_lock_pins_every_package_once_in_sorted_order() -> None:
    lines = lock_lines()
    inexact = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)]
    assert not inexact
    assert lines == sorted(set(lines))
    names = [line.split("==")[0] for line in lines]
    assert len(names) == len(set(names))


def test_lock_leaves_out_torch_and_what_comes_with_it() -> None:
    names = [line.split("==")[0] for line in lock_lines()]
    left_out = re.compile(
        r"torch|torchvision|torchaudio|torchcodec|xformers|pip|posttrain|nvidia-.*"
    )
    assert [name for name in names if left_out.fullmatch(name)] == []


def test_lock_holds_every_direct_requirement_at_its_pin() -> None:
    lock = dict(line.split("==") for line in lock_lines())
    wrong = []
    for line in (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines():
        name, _, pin = line.split("#")[0].strip().partition("==")
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key and key != "torch" and (key not in lock or (pin and lock[key] != pin)):
            wrong.append(f"{line.strip()}: the lock has {lock.get(key)}")
    assert not wrong, "\n".join(wrong)


def test_torch_has_one_version() -> None:
    pins = {
        name: set(re.findall(r"(?<![\w-])torch==([\w.]+)", (ROOT / name).read_text()))
        for name in ("Makefile", "requirements.in", "requirements-overrides.txt", "README.md")
    }
    assert len(set().union(*pins.values())) == 1, pins


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_readme_are_make_targets(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    code = "\n".join(
        [*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    )
    named = set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE))
    assert named, "the page names no command"
    assert named <= make_targets()
    if page == "README.md":
        assert {"book", "test"} <= named


def test_make_help_names_every_target() -> None:
    helped = subprocess.run(
        ["make", "--silent"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {target for target in make_targets() if f"make {target} " not in helped} <= {"help"}


def test_readme_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], "README.md", "exec"), {})


def code_cells(text: str) -> Iterator[ast.Module]:
    """The parsed code cells of a MyST page, their options and magics left out."""
    for cell in read(text).cells:
        yield ast.parse(cell.python)


def name_called(call: ast.Call) -> str | None:
    return getattr(call.func, "id", None) or getattr(call.func, "attr", None)


def gluing_functions(cells: list[ast.Module]) -> set[str]:
    """``glue``, and the functions of the page that call it."""
    return {"glue"} | {
        function.name
        for cell in cells
        for function in ast.walk(cell)
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and name_called(call) == "glue"
    }


def key_pattern(key: ast.expr) -> str | None:
    """A pattern for a literal key; an f-string's fields match anything."""
    if isinstance(key, ast.Constant):
        return re.escape(str(key.value))
    if isinstance(key, ast.JoinedStr):
        return "".join(
            re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+"
            for part in key.values
        )
    return None


@cache
def glued_keys(text: str) -> tuple[re.Pattern[str], ...]:
    """A pattern for each key that the page's cells glue, alone or as the keys of a dict.

    Where a cell glues under a name that it computes, every string in that cell counts.
    """
    return tuple(_glued_keys(list(code_cells(text))))


def _glued_keys(cells: list[ast.Module]) -> Iterator[re.Pattern[str]]:
    functions = gluing_functions(cells)
    for cell in cells:
        for call in ast.walk(cell):
            if not (
                isinstance(call, ast.Call) and call.args and name_called(call) in functions
            ):
                continue
            given = call.args[0]
            keys = given.keys if isinstance(given, ast.Dict) else [getattr(given, "key", given)]
            for key in keys:
                pattern = key_pattern(key) if key is not None else None
                if pattern is not None:
                    yield re.compile(pattern)
                else:
                    for node in ast.walk(cell):
                        if isinstance(node, ast.Constant) and isinstance(node.value, str):
                            yield re.compile(re.escape(node.value))


def used_glue_keys(text: str) -> Iterator[tuple[str, str]]:
    """(page, key) of each glue role and directive; page is empty for the page's own keys."""
    role = r"\{glue(?::\w*)?\}`([^`]+)`"
    directive = r"^(?:`{3,}|:{3,})\{glue(?::\w*)?\}\s*(\S+)"
    for used in [*re.findall(role, text), *re.findall(directive, text, re.MULTILINE)]:
        page, _, key = used.strip().rpartition("::")
        yield page, key.split(":")[0]


def missing_glue(path: Path) -> list[str]:
    missing = []
    text = without(path.read_text(encoding="utf-8"), "code-cell", "code-block")
    for page, key in used_glue_keys(text):
        source = path
        if page:
            beside, from_book = path.parent / page, BOOK / page
            source = beside if beside.is_file() else from_book
        text = source.read_text(encoding="utf-8") if source.is_file() else ""
        if not any(pattern.fullmatch(key) for pattern in glued_keys(text)):
            missing.append(f"{path.name}: {page and page + '::'}{key}")
    return missing


def test_every_glued_number_on_a_page_is_glued_by_a_cell() -> None:
    missing = [key for path in chapters() for key in missing_glue(path)]
    assert not missing, "\n".join(missing)


def test_a_number_that_no_cell_glues_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```{code-cell}\n:tags: [hide-input]\n%time 1\nglue('loss', 1.0)\n"
        "for seed in range(3):\n    glue(f'loss_{seed}', 1.0)\n"
        "def keep(numbers):\n    for key in numbers:\n        myst_nb.glue(key, 1.0)\n"
        "keep({'low': 1.0, f'{seed}-high': 2.0})\nkeep({f'all-{n}': n for n in names})\n"
        "```\n\n"
        "{glue:text}`loss:.3f` {glue}`loss_2` {glue:text}`acc:.1f` {glue:text}`low`\n"
        "{glue:text}`2-high` {glue:text}`2-low` {glue:text}`all-3` {glue:text}`some-3`\n\n"
        "```{glue:figure} curve\n```\n"
    )
    assert missing_glue(page) == [
        "page.md: acc", "page.md: 2-low", "page.md: some-3", "page.md: curve",
    ]  # fmt: skip


def cited_keys(text: str) -> set[str]:
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
    return {re.sub(r"\{.*?\}", "", key).strip() for keys in roles for key in keys.split(",")}


def test_every_citation_is_in_the_bibliography() -> None:
    bibliography = BOOK / "references.bib"
    text = bibliography.read_text(encoding="utf-8") if bibliography.is_file() else ""
    known = re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)\s*,", text, re.MULTILINE)
    repeated = {key for key in known if known.count(key) > 1}
    assert not repeated
    missing = {
        f"{path.relative_to(ROOT)}: {key}"
        for path in chapters()
        for key in cited_keys(path.read_text(encoding="utf-8")) - set(known)
    }
    assert not missing, "\n".join(sorted(missing))


def test_every_page_is_in_the_contents() -> None:
    contents = ROOT / "_toc.yml"
    if not contents.is_file():
        pytest.skip("no _toc.yml yet")
    named = re.findall(
        r"^\s*-?\s*(?:root|file):\s*(\S+)", contents.read_text(encoding="utf-8"), re.MULTILINE
    )
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in chapters()}
    assert pages <= set(named), "a page outside _toc.yml is not built"
