"""`make robustness`: a toy chapter under three conditions, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("jupytext")
from posttrain.core.robustness import read_record, robustness_file
from tools.clean import robustness
from tools.clean.robustness import (
    RUNS,
    Conditions,
    RobustnessError,
    chapters_of,
    check_conditions,
    chosen,
    faults_of,
    named_ids,
    save_run,
    variables_of,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = """\
# Toy

```{code-cell} ipython3
:tags: [remove-cell]
import os
from posttrain.core.goals import Goal, check_goals
from posttrain.core.seeds import base_seed
```

Text. {claim}`never-reached`

```{code-cell} ipython3
if base_seed() == 2000:
    raise ValueError("broken on purpose")
lucky = base_seed() == 0
```
```{code-cell} ipython3
check_goals([
    Goal("toy.always", "a sum", 1 + 1, 2, "=="),
    Goal("toy.lucky", "by this seed", lucky, True, "=="),
], chapter="toy/page")
```
```{code-cell} ipython3
print("the notebook goes on")
if base_seed() == 2000:
    os._exit(3)
```
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A repository with one chapter."""
    (tmp_path / "book" / "toy").mkdir(parents=True)
    (tmp_path / "book" / "toy" / "page.md").write_text(PAGE)
    (tmp_path / "book" / "toy" / "prose.md").write_text("`check_goals(` is a function.\n")
    (tmp_path / "requirements.lock").write_text("torch==0\n")
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n- chapters:\n  - file: book/toy/prose\n"
        "  - file: book/toy/page\n"
    )
    return tmp_path


@pytest.mark.slow
def test_a_toy_chapter_is_run_and_recorded(
    toy: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = robustness_file(toy / "book/results/robustness", "toy/page")
    assert robustness.main(["--runs", "native"], toy) == 0
    said = capsys.readouterr().out
    assert "toy/page" in said and "2 of 2 held" in said
    assert said.endswith("Every goal and claim held in every run.\n")

    assert robustness.main(["--chapters", "book/toy/page", "--runs", "seed-1000"], toy) == 1
    said = capsys.readouterr().out
    assert "1 of 2 held\n" in said  # a goal that is not met is no cell that raised
    assert [line.split() for line in said.splitlines() if line.startswith("toy.lucky")] == [
        ["toy.lucky", "0", "of", "1", "seed-1000", "False"]
    ]

    assert robustness.main(["--runs", "seed-2000"], toy) == 1
    said = capsys.readouterr().out
    assert "0 of 3 held, 3 cells raised" in said and "not reached" in said

    record = read_record(file, "toy/page")
    assert list(record.runs) == ["native", "seed-1000", "seed-2000"]
    found = {name: (h.kind, h.held, h.of) for name, h in record.summary().items()}
    assert found["toy.always"] == ("goal", 2, 3) and found["toy.lucky"] == ("goal", 1, 3)
    errors = record.runs["seed-2000"]["errors"]
    assert errors[0] == "cell 2: ValueError: broken on purpose"
    assert errors[1].startswith("cell 3: NameError") and "cell 4: DeadKernel" in errors[2]
    machine = record.runs["seed-1000"]["machine"]
    assert machine["base_seed"] == 1000 and {"cpu", "instruction_set", "dtype"} <= set(machine)
    text = file.read_text(encoding="utf-8")
    assert str(toy) not in text and str(ROOT) not in text  # no path of this machine
    assert json.loads(text)["summary"]["toy.lucky"] == {"kind": "goal", "held": 1, "of": 3}
    own = toy / "_build" / "robustness"
    assert sorted(path.name for path in own.iterdir()) == ["native", "seed-1000", "seed-2000"]
    assert (own / "native" / "assets").resolve() == (store / "assets").resolve()


@pytest.mark.slow
def test_a_limit_that_is_not_in_force_stops_the_run(
    toy: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Conditions({"POSTTRAIN_DTYPE": "bfloat16"}, {"dtype": "float32"})
    monkeypatch.setitem(RUNS, "native", wrong)
    with pytest.raises(RobustnessError, match="native: dtype is 'bfloat16' in the kernel, not"):
        robustness.main(["--runs", "native"], toy)
    assert not (toy / "book" / "results").exists()


def found(**changes: Any) -> dict[str, Any]:
    here = str(Path(str(robustness.posttrain.__file__)).parent)
    return {"package": here, "cpu": "Toy, 2 cores", "instruction_set": "AVX2", "aten": "AVX2",
            "dtype": "float32", "onednn": "Intel AVX2"} | changes  # fmt: skip


def test_what_the_libraries_say_counts() -> None:
    name, conditions = "avx2-fp32", RUNS["avx2-fp32"]
    check_conditions(name, conditions, found())
    for changes, said in (
        ({"aten": "AVX512"}, "aten is 'AVX512' in the kernel, not 'AVX2': the limit is not in"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16' in the kernel, not 'float32'"),
        ({"onednn": "Intel AVX-512 with more"}, "oneDNN uses 'Intel AVX-512 with more'"),
        ({"package": "/elsewhere"}, "imports posttrain from /elsewhere, not from"),
    ):
        with pytest.raises(RobustnessError, match=f"^{name}: .*{said}"):
            check_conditions(name, conditions, found(**changes))


def test_a_run_has_its_own_variables_and_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("POSTTRAIN_SEED", "7")
    got = variables_of(RUNS["avx2-fp32"], tmp_path / "store", tmp_path / "goals")
    assert got["POSTTRAIN_DTYPE"] == "float32" and got["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "OMP_NUM_THREADS" not in got and "POSTTRAIN_SEED" not in got
    assert got["POSTTRAIN_HOME"] == str(tmp_path / "store") and "PATH" in got


def test_ids_are_found_where_no_cell_was_reached() -> None:
    assert named_ids(PAGE, "toy/page") == {
        "toy.always": "goal",
        "toy.lucky": "goal",
        "toy.page.never-reached": "claim",
    }
    assert named_ids("```{code-cell}\nx = (\n```\n", "toy/page") == {}


def test_chapters_are_those_whose_cells_check_goals(toy: Path) -> None:
    assert chapters_of(toy) == ["toy/page"]
    real = chapters_of(ROOT)
    assert len(real) >= 8 and {"pretraining/attention", "sft/lora"} <= set(real)


def test_chapters_and_runs_are_chosen_by_name() -> None:
    known = ["pretraining/gpt", "sft/lora"]
    assert chosen("", known, "chapter") == known
    assert chosen("book/sft/lora, pretraining/gpt.md", known, "chapter") == known
    with pytest.raises(RobustnessError, match=r"sft/x: no such chapter; there are pretrai"):
        chosen("sft/lora,sft/x", known, "chapter")


def test_what_the_processor_cannot_do_is_left_out_or_refused(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def run(root: Path, chapter: str, name: str, *_: Any) -> dict[str, Any]:
        asked.append(name)
        return run_of(True)

    monkeypatch.setattr(robustness, "run_chapter", run)
    monkeypatch.setattr(robustness, "instruction_set", lambda: "AMX")
    assert robustness.main([], toy) == 0 and asked == list(RUNS)
    asked.clear()
    monkeypatch.setattr(robustness, "instruction_set", lambda: "AVX2")
    assert robustness.main([], toy) == 0
    assert asked == [name for name in RUNS if name != "avx512"]
    said = "avx512 needs a processor with AVX-512, and this one is: "
    assert f"Left out: {said}" in capsys.readouterr().out
    with pytest.raises(RobustnessError, match=said):
        robustness.main(["--runs", "avx512"], toy)
    monkeypatch.setattr(robustness, "instruction_set", lambda: "aarch64")
    with pytest.raises(RobustnessError, match="avx2-fp32 needs a processor with AVX2"):
        robustness.main(["--runs", "avx2-fp32"], toy)


def run_of(passed: bool, **more: Any) -> dict[str, Any]:
    row = {"id": "sft.a", "kind": "goal", "value": 0.25, "passed": passed, **more}
    return {"date": "2026-01-01", "seconds": 1.0, "machine": {}, "rows": [row], "errors": []}


def test_a_run_replaces_itself_and_others_stay_while_the_page_is_the_same(
    tmp_path: Path,
) -> None:
    file = tmp_path / "sft" / "lora.json"
    save_run(file, "sft/lora", "one", "seed-1000", run_of(False))
    save_run(file, "sft/lora", "one", "native", run_of(True))
    assert list(read_record(file, "sft/lora").runs) == ["native", "seed-1000"]
    save_run(file, "sft/lora", "one", "seed-1000", run_of(True))
    assert read_record(file, "sft/lora").summary()["sft.a"].held == 2
    save_run(file, "sft/lora", "two", "native", run_of(True))
    assert list(read_record(file, "sft/lora").runs) == ["native"]
    file.write_text("damaged")
    save_run(file, "sft/lora", "two", "native", run_of(True))
    assert list(read_record(file, "sft/lora").runs) == ["native"]
    assert [path.name for path in file.parent.iterdir()] == ["lora.json"]


def test_missed_aims_are_no_faults(tmp_path: Path) -> None:
    file = tmp_path / "sft" / "lora.json"
    save_run(file, "sft/lora", "one", "native", run_of(False))
    record = read_record(file, "sft/lora")
    assert faults_of([record], ["native"]) == [["sft.a", "0 of 1", "native", "0.25"]]
    assert faults_of([record], ["seed-1000"]) == []
    save_run(file, "sft/lora", "one", "native", run_of(False, missed_aim=True))
    assert faults_of([read_record(file, "sft/lora")], ["native"]) == []
