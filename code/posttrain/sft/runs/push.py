"""``posttrain push``: a folder to a repository on the hub.

Chapter: sft/your_model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from posttrain.core.errors import AssetError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_KEPT_HERE = ("checkpoint/*", "tensorboard/*", ".*", "*.tmp", "*.pt", "*.bin")


def files_to_push(folder: Path) -> list[tuple[str, int]]:
    """List what would go.

    Args:
        folder: An adapter or a merged model.

    Returns:
        Names and sizes in bytes; checkpoints, pickles and hidden files stay here.

    Raises:
        AssetError: If it is no folder, or holds neither an adapter nor a model.

    Chapter: sft/your_model.
    """
    if not folder.is_dir():
        raise AssetError(
            f"{folder} is no folder: give the one that posttrain sft or merge wrote"
        )
    kinds = ("adapter_config.json", "config.json")
    if not any((folder / name).is_file() for name in kinds):
        raise AssetError(f"{folder} holds neither an adapter nor a model: {' or '.join(kinds)}")
    found = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(name.match(pattern) for pattern in _KEPT_HERE):
            if not any(part.startswith(".") or part == "checkpoint" for part in name.parts):
                found.append((str(name), file.stat().st_size))
    return found


def push_folder(
    folder: Path, repo_id: str, *, private: bool = True, dry_run: bool = False
) -> list[str]:
    """Upload a folder.

    Args:
        folder: An adapter or a merged model.
        repo_id: ``owner/name``; it is made if it does not exist.
        private: Whether a new repository is private.
        dry_run: Only say what would go.

    Returns:
        Lines that say what was done, or would be.

    Raises:
        AssetError: If the folder holds nothing to push, there is no token, or the hub refuses.
        ValueError: If ``repo_id`` is no name of a repository.

    Chapter: sft/your_model.
    """
    if not _REPOSITORY.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r} names no repository: give owner/name")
    files = files_to_push(folder)
    total = sum(size for _, size in files)
    lines = [f"{size / 1e6:>10,.1f} MB  {name}" for name, size in files]
    lines.append(f"{total / 1e6:>10,.1f} MB  in all, to {repo_id}")
    if not (folder / "README.md").is_file():
        lines.append("there is no README.md: others would not know what this is")
    if dry_run:
        return [*lines, "nothing was sent (--dry-run)"]
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise AssetError(
            "HF_TOKEN is not set: make a token that may write, on the hub's settings page, and "
            "put it into the environment variable HF_TOKEN"
        )
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[name for name, _ in files],
            commit_message=f"Upload {folder.name}",
        )
    except Exception as error:  # the hub's errors are many; none may show the token
        said = str(error).replace(token, "***").splitlines()
        raise AssetError(
            f"{repo_id} was not written ({type(error).__name__}: {said[0] if said else ''})"
        ) from None
    return [*lines, f"sent to {repo_id}"]
