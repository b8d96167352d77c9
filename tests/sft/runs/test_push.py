"""posttrain.sft.runs.push: what goes to the hub, and what stays here."""

from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.sft.runs.push import files_to_push, push_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "run.json",
                 "metrics.jsonl", "checkpoint/checkpoint.pt", "checkpoint/best/x.safetensors",
                 ".git/config", "optimizer.pt", "tensorboard/events"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


PUSHED = ["README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.jsonl",
          "run.json"]  # fmt: skip


def test_what_goes(folder: Path) -> None:
    assert files_to_push(folder) == [(name, 5) for name in PUSHED]
    lines = push_folder(folder, "me/mine", dry_run=True)
    assert lines[-1] == "nothing was sent (--dry-run)" and "to me/mine" in lines[-2]
    (folder / "README.md").unlink()
    assert any("no README.md" in line for line in push_folder(folder, "me/mine", dry_run=True))


def test_it_is_sent_with_the_token_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Api:
        def __init__(self, token: str) -> None:
            calls.append(token)

        def create_repo(self, repo_id: str, **options: Any) -> None:
            calls.append((repo_id, options))

        def upload_folder(self, **options: Any) -> None:
            calls.append(options)
            if options["repo_id"] == "me/broken":
                raise RuntimeError("401 for hf_secret\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(AssetError, match="HF_TOKEN is not set"):
        push_folder(folder, "me/mine")
    assert not calls
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert push_folder(folder, "me/mine")[-1] == "sent to me/mine"
    assert calls[0] == "hf_secret" and calls[1] == (
        "me/mine", {"private": True, "exist_ok": True}
    )  # fmt: skip
    assert calls[2]["allow_patterns"] == PUSHED
    with pytest.raises(AssetError, match=r"was not written \(RuntimeError: 401 for \*\*\*\)"):
        push_folder(folder, "me/broken")


@pytest.mark.parametrize("repo", ["mine", "a/b/c", "", "me/", "https://x/y", "me/mi ne"])
def test_names_of_repositories(folder: Path, repo: str) -> None:
    with pytest.raises(ValueError, match="names no repository: give owner/name"):
        push_folder(folder, repo, dry_run=True)


def test_folders_with_nothing_to_push(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="holds neither an adapter nor a model"):
        push_folder(tmp_path, "me/mine", dry_run=True)
    with pytest.raises(AssetError, match="is no folder"):
        push_folder(tmp_path / "none", "me/mine", dry_run=True)
