"""A page's key changes with what its cells compute from, and with nothing else."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from posttrain.core.page_key import (
    OTHER_VARIABLES,
    PageKey,
    cells_of,
    describe_processor,
    page_key,
)

PAGE = """# A page

Prose.

```{code-cell} ipython3
:tags: [hide-input]
from pack.loss import loss
print(loss(2))
```

````{code-cell} ipython3
---
tags: [remove-cell]
mystnb: {image: {width: 3}}
---
text = '''
```
not a fence
```
'''
````

```python
from pack import unused
```
"""
SOURCES = {
    "__init__": "",
    "loss": '"""Losses."""\nfrom pack.inner.data import SCALE\n\n'
    "def loss(x):\n    return x * SCALE\n",
    "inner/__init__": "",
    "inner/data": "SCALE = 2\n",
    "engine": 'COMMAND = ["python", "-m", "pack.worker"]\n',
    "worker": "print('work')\n",
    "core/__init__": "",
    "core/records": "def record(name):\n    return name\n",
    "unused": "x = 1\n",
}


class Project:
    """A page, a lock and a package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page, self.lock = folder / "book/sft/lora.md", folder / "requirements.lock"
        self.write("book/sft/lora.md", PAGE)
        self.write("requirements.lock", "# made\nnumpy==1\n")
        for name, text in SOURCES.items():
            self.write(f"pack/{name}.py", text)

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def key(self, **processor: str) -> PageKey:
        return page_key(self.page, self.lock, processor or None, package="pack")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return Project(tmp_path)


def test_cells_are_read_without_options_and_prose():
    assert cells_of(PAGE) == [
        "from pack.loss import loss\nprint(loss(2))",
        "text = '''\n```\nnot a fence\n```\n'''",
    ]
    assert cells_of("# No cells\n\n```python\nx = 1\n```\n") == []
    skipped = "```{code-cell} python\n:tags: [skip-execution, hide-cell]\n\nx = 1\n```\n"
    assert cells_of(skipped) == ["# skip-execution\nx = 1"]


def test_what_the_key_is_made_of(project: Project):
    key = project.key(name="a processor")
    assert list(key.parts["modules"]) == ["pack.inner", "pack.inner.data", "pack.loss"]
    assert key.has_cells and len(key.parts["cells"]) == 2
    assert key.parts["processor"] == {"name": "a processor"} and key.parts["records"] == {}
    assert json.loads(json.dumps(key.parts)) == key.parts and len(key.key) == 64
    assert "pack" not in sys.modules  # nothing was run


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("book/sft/lora.md", "loss(2)", "loss(3)", ["cells"]),
        ("book/sft/lora.md", "loss(2))", "loss(2))  # four", ["cells"]),
        ("book/sft/lora.md", "Prose.", "Better prose.", []),
        ("book/sft/lora.md", "[hide-input]", "[hide-input, full-width]", []),
        ("book/sft/lora.md", "[hide-input]", "[raises-exception]", ["cells"]),
        ("pack/inner/data.py", "2", "3", ["pack.inner.data"]),
        ("pack/loss.py", "return x * SCALE", "return SCALE * x", ["pack.loss"]),
        ("pack/loss.py", "Losses.", "All losses.", []),
        ("pack/loss.py", "def loss", "# the loss\ndef loss", []),
        ("pack/unused.py", "1", "2", []),
        ("requirements.lock", "numpy==1", "numpy==2", ["lock"]),
        ("requirements.lock", "# made", "# made again", []),
    ],
)
def test_the_key_changes_with_what_decides_the_result(
    project: Project, file: str, old: str, new: str, changed: list[str]
):
    before = project.key()
    text = (project.folder / file).read_text()
    assert old in text
    project.write(file, text.replace(old, new))
    assert project.key().differs_in(before.parts) == changed
    assert (project.key().key != before.key) == bool(changed)


def test_the_processor_counts_for_a_build_only(project: Project):
    one, two = project.key(name="one"), project.key(name="two")
    assert one.key != two.key and two.differs_in(one.parts) == ["name"]
    assert project.key().differs_in(one.parts) == ["processor"]


@pytest.mark.parametrize(
    ("cell", "modules"),
    [
        ("import pack.engine", ["pack.engine", "pack.worker"]),
        ("from pack import engine as e, loss", ["pack.engine", "pack.inner", "pack.loss"]),
        ("command = ['-m', 'pack.worker']", ["pack.worker"]),
        ("%env X=1\nimport pack.unused", ["pack.unused"]),
        ("if True:\n    %time\n    import pack.unused", ["pack.unused"]),
        ("import json", []),
        ("!pack worker", ["pack.engine", "pack.unused", "pack.worker"]),
        ("run(['pack', 'worker'])", ["pack.engine", "pack.unused", "pack.worker"]),
        ("files = !ls pack", ["pack.engine", "pack.unused", "pack.worker"]),
        ("SELECT everything", []),
    ],
)
def test_modules_of_a_cell(project: Project, cell: str, modules: list[str]):
    project.write("book/sft/lora.md", f"```{{code-cell}} ipython3\n{cell}\n```\n")
    found = project.key().parts["modules"]
    assert set(modules) <= set(found) and (modules or not found)
    if "pack.unused" not in modules:
        assert "pack.unused" not in found


def test_of_a_record_the_outcomes_count_and_for_a_build_its_label(project: Project):
    reads = PAGE.replace("loss import loss", "core.records import record as loss")
    project.write("book/sft/lora.md", reads)
    record = {
        "config": 1,
        "outcomes": [1],
        "summary": 2,
        "module": "toy.loss",
        "created": "now",
    }
    machine = {"name": "a processor"}

    def keys(**changes: object) -> tuple[str, str]:
        project.write("book/results/sft/rank.json", json.dumps(record | changes))
        return project.key().key, project.key(**machine).key

    plain, build = keys()
    assert keys() == (plain, build)
    again, shown = keys(created="later")
    assert again == plain and shown != build
    assert keys(outcomes=[2])[0] != plain and keys(summary=3)[0] != plain


def test_recorded_results_count_where_they_are_read(project: Project):
    project.write("book/results/sft/rank.json", "[1]")
    project.write("book/results/dpo/beta.json", "[1]")
    assert project.key().parts["records"] == {}
    reads = PAGE.replace("loss import loss", "core.records import record as loss")
    project.write("book/sft/lora.md", reads)
    before = project.key()
    assert list(before.parts["records"]) == ["rank.json"]
    project.write("book/results/dpo/beta.json", "[2]")
    assert project.key() == before
    project.write("book/results/sft/rank.json", "[2]")
    assert project.key().differs_in(before.parts) == ["rank.json"]


def test_the_processor_is_described(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    own = [name for name in os.environ if name.startswith("POSTTRAIN_")]
    for name in (*own, *OTHER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POSTTRAIN_HOME", "anywhere")
    plain = describe_processor()
    assert set(plain) == {"name", "instruction set", "threads", "native bf16", "python"}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("POSTTRAIN_SOMETHING", "1")
    more = {"ONEDNN_MAX_CPU_ISA": "AVX2", "POSTTRAIN_SOMETHING": "1"}
    limited = describe_processor()
    assert limited.items() >= more.items() and limited["name"] != plain["name"]


def test_a_missing_file_is_named(project: Project):
    with pytest.raises(FileNotFoundError, match=r"requirements\.lock"):
        page_key(project.page, project.folder / "none/requirements.lock", package="pack")
