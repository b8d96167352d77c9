"""A store of results: trained once, found again by what they depend on.

An artifact lies in ``home()/artifacts/<name>/<key>/``. The key is a hash of the configuration,
the data, torch's version and the code (see `code_hash`), so that after an edit exactly what
depends on it is built again. A folder there is complete: it is built elsewhere and renamed.

Chapter: start/how_this_book_works.
"""

import contextlib
import hashlib
import json
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import Timeout

from posttrain.core.errors import ArtifactError
from posttrain.core.machine import package_version, run_record
from posttrain.core.storage import store
from posttrain.core.storage.code_hash import module_hashes
from posttrain.core.storage.files import is_disk_full, plain, sync_to_disk, write_json_atomic

KEY_DIGITS = 16

Build = Callable[[Path, Path], dict[str, Any] | None]
Modules = Iterable[str | ModuleType]


@dataclass(frozen=True)
class Artifact:
    """A finished result.

    Attributes:
        folder: Where its files lie; to be read, not written.
        record: What was recorded when it was built: config, data, modules, metrics, files,
            seconds, machine.
        reused: False if this call built it.
    """

    folder: Path
    record: dict[str, Any]
    reused: bool

    @property
    def metrics(self) -> dict[str, Any]:
        """What the build returned."""
        return dict(self.record.get("metrics", {}))


def artifact_key(config: Any, data: str, modules: Modules) -> str:
    """Return the key under which a result is stored.

    Args:
        config: Whatever decides the result: a dataclass, or what JSON can hold.
        data: Hash of the input data, or any string that changes with it.
        modules: Modules whose code decides the result, as modules or dotted names.

    Returns:
        16 hexadecimal digits.
    """
    return _key(_inputs(config, data, modules))


def get_or_build(
    name: str, build: Build, *, config: Any, data: str = "", modules: Modules
) -> Artifact:
    """Return the artifact for these inputs; build it first if the store has none.

    Of two processes at once one builds and the other waits. After a kill or an error nothing
    half-made is visible, and the next try with the same key is handed the same scratch folder.

    Args:
        name: Letters, digits, dots, dashes and underscores.
        build: Called as ``build(out, scratch)``: writes the result's files into ``out``, may
            keep checkpoints in ``scratch``, and returns metrics for the record, or None.
        config: Whatever decides the result: a dataclass, or what JSON can hold.
        data: Hash of the input data, or any string that changes with it.
        modules: Modules whose code decides the result; what they import counts as well.

    Returns:
        The artifact, checked file by file against its record.

    Raises:
        ArtifactError: If the disk is full.
        Exception: Whatever else `build` raises.
        ValueError: If the name has other characters.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise ValueError(
            f"artifact name {name!r}: use up to 80 letters, digits, dots, dashes and "
            "underscores, and begin with a letter or digit"
        )
    inputs = _inputs(config, data, modules)
    folder = store.store_folder() / name / _key(inputs)
    if folder.is_dir() and not store.find_damage(folder):
        return Artifact(folder, store.read_record(folder), reused=True)
    try:
        with store.locked(folder):
            if folder.is_dir():  # another process built it just now, or it is damaged
                damage = store.find_damage(folder)
                if not damage:
                    return Artifact(folder, store.read_record(folder), reused=True)
                label = store.label_of(folder)
                sentence = f"the artifact {label} is damaged ({damage}): building it again"
                warnings.warn(sentence, stacklevel=2)
            _build(folder, build, inputs)
    except Exception as error:
        if is_disk_full(error):
            raise ArtifactError(_disk_full(folder)) from error
        raise
    return Artifact(folder, store.read_record(folder), reused=False)


def _inputs(config: Any, data: str, modules: Modules) -> dict[str, Any]:
    try:
        config = json.loads(json.dumps(config, sort_keys=True, default=plain))
    except (TypeError, ValueError) as error:
        raise TypeError(f"the config of an artifact must be plain data: {error}") from error
    return {
        "config": config,
        "data": data,
        "torch": package_version("torch"),
        "modules": module_hashes(modules),
    }


def _key(inputs: dict[str, Any]) -> str:
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_DIGITS]


def _build(folder: Path, build: Build, inputs: dict[str, Any]) -> None:
    """Build under a temporary name, then rename to `folder`; the caller holds the lock."""
    store.sweep(folder.parent, mine=folder)
    scratch, temporary = store.scratch_of(folder), store.temporary_of(folder)
    resumed = scratch.exists()
    try:
        temporary.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        started = time.perf_counter()
        metrics = build(temporary, scratch)
        if not isinstance(metrics, dict | None):
            raise TypeError(
                f"build must return a dict of metrics or None, not {type(metrics).__name__}"
            )
        machine = run_record(since=started)
        record = {
            "name": folder.parent.name,
            "key": folder.name,
            "created": machine["created"],
            "seconds": machine["seconds"],
            "resumed": resumed,
            "metrics": metrics or {},
            **inputs,
            "machine": machine,
            "files": store.describe_files(temporary),
        }
        write_json_atomic(temporary / store.RECORD, record)
        if folder.exists():  # damaged
            store.discard(folder)
        temporary.rename(folder)
        sync_to_disk(folder.parent)
        shutil.rmtree(scratch, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            scratch.rmdir()  # only if nothing is kept in it


def _disk_full(folder: Path) -> str:
    root = store.store_folder()
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**20
    return (
        f"the disk is full: {store.label_of(folder)} could not be stored in {root} "
        f"({free:,.0f} MiB free now). Nothing half-written was left there. Free some space "
        "(see: posttrain artifacts list), or set POSTTRAIN_HOME to a folder on another disk, "
        "and run it again"
    )


def list_artifacts() -> list[Artifact]:
    """List what the store holds, by name, the newest first within a name.

    Returns:
        Finished artifacts. Where a record cannot be read it holds only ``name``, ``key`` and
        ``damage``.
    """
    folders = store.store_folder().glob("[!.]*/[!.]*")
    found = [Artifact(folder, store.read_record(folder), reused=True) for folder in folders]
    found.sort(key=lambda artifact: str(artifact.record.get("created", "")), reverse=True)
    return sorted(found, key=lambda artifact: artifact.folder.parent.name)


def show(name_or_key: str) -> list[Artifact]:
    """Find artifacts.

    Args:
        name_or_key: A name, a key or its first four digits or more, or ``name/key``.

    Returns:
        All of that name, or the one with that key.

    Raises:
        ArtifactError: If there is none.
    """
    name, _, key = name_or_key.rpartition("/")
    everything = list_artifacts()
    found = [
        artifact
        for artifact in everything
        if (not name and artifact.folder.parent.name == key)
        or (
            len(key) >= 4
            and artifact.folder.name.startswith(key)
            and name in ("", artifact.folder.parent.name)
        )
    ]
    if not found:
        names = sorted({artifact.folder.parent.name for artifact in everything})
        known = f"it has: {', '.join(names)}" if names else "it is empty"
        raise ArtifactError(
            f"no artifact {name_or_key!r} in {store.store_folder()}; {known}. "
            "Run: posttrain artifacts list"
        )
    return found


def remove(name_or_key: str) -> list[str]:
    """Remove artifacts, and with a name also the checkpoints of interrupted builds.

    Args:
        name_or_key: As for `show`.

    Returns:
        What was removed, as ``name/key``.

    Raises:
        ArtifactError: If there is none, or a process is building it.
    """
    root = store.store_folder()
    if is_name := name_or_key in {folder.name for folder in root.glob("[!.]*")}:
        folders = sorted((root / name_or_key).glob("[!.]*"))
        parents = {root / name_or_key}
    else:
        folders = [artifact.folder for artifact in show(name_or_key)]
        parents = {folder.parent for folder in folders}
    for folder in folders:
        try:
            with store.locked(folder, wait=False):
                store.discard(folder)
        except Timeout as error:
            raise ArtifactError(
                f"another process is working on {store.label_of(folder)}: wait for it to end, "
                "or stop it"
            ) from error
    for parent in parents:
        store.sweep(parent, scratch=is_name)
        with contextlib.suppress(OSError):
            parent.rmdir()  # only if nothing else is in it
    return [store.label_of(folder) for folder in folders]
