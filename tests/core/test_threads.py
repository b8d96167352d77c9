"""How threads wait: set before PyTorch is there, and never against the reader's own choice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.core.threads import WAITING, calm_threads

ROOT = Path(__file__).resolve().parents[2]


def test_waiting_threads_sleep_unless_the_reader_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    calm_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    calm_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_command_line_says_it_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    seen = []
    monkeypatch.setattr(cli, "app", lambda: seen.append(os.environ.get("OMP_WAIT_POLICY")))
    cli.main()
    assert seen == ["PASSIVE"]
    code = "import sys, posttrain.cli, posttrain.core.threads; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_make_and_binder_say_the_same():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    environment = re.search(r"^RUN_ENV = ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
    assert environment
    for name, value in WAITING.items():
        assert f'{name}="$${{{name}:-{value}}}"' in environment[1]
    binder = (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8")
    assert "from posttrain.core.threads import calm_threads; calm_threads()" in binder
