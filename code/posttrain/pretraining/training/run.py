"""Stage 0's run: from a preset to a trained character model, once, then from the store.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from posttrain.core.artifacts import Artifact, get_or_build
from posttrain.core.errors import TrainingDiverged
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.checkpoints import History
from posttrain.core.training.identity import tensor_digest
from posttrain.core.training.loop import train
from posttrain.pretraining.data import Corpus, RandomWindows, load_corpus
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.presets import PretrainPreset, get_preset
from posttrain.pretraining.sampling.text import write_text
from posttrain.pretraining.training.metrics import held_out_losses, summed_loss

SAMPLE_STEPS = (0, 100, 500, 1000)
"""After how many steps the model writes a sample; it also does at the end."""

_EVALUATION_WINDOWS = 256  # 33 k characters: enough for a curve; goals use the whole text


@dataclass(frozen=True)
class PretrainRun:
    """A finished run.

    Attributes:
        preset: What was run.
        seed: Seed of weights, batches and samples.
        model: The trained model, in evaluation mode.
        corpus: What it was trained on.
        history: Loss, gradient norm, evaluations (``train_loss``, ``val_loss``, ``samples``).
        diverged: What the guard said where it stopped the run, else ``None``.
        artifact: Where it is stored.
    """

    preset: PretrainPreset
    seed: int
    model: GPT
    corpus: Corpus
    history: History
    diverged: str | None
    artifact: Artifact

    @property
    def samples(self) -> dict[int, list[str]]:
        """Texts that the model wrote, by step."""
        return {
            row["step"]: row["samples"] for row in self.history.evaluations if row["samples"]
        }


@functools.lru_cache(maxsize=4)
def corpus_of(preset_dataset: str, characters: int = 0) -> Corpus:
    """Load a corpus once per process.

    Args:
        preset_dataset: Name of the data set.
        characters: Keep only this many characters of the training text; 0 keeps all.

    Returns:
        The corpus.

    Raises:
        ValueError: If ``characters`` is negative.

    Chapter: pretraining/training_dynamics.
    """
    if characters < 0:
        raise ValueError(f"{characters} characters cannot be kept: give a number, or 0 for all")
    corpus = corpus_of(preset_dataset) if characters else load_corpus(preset_dataset)
    if characters:
        text = corpus.train_text[:characters]
        corpus = replace(corpus, train=corpus.train[:characters], train_text=text)
    return corpus


def train_model(
    preset: PretrainPreset,
    corpus: Corpus,
    *,
    seed: int = 0,
    model_class: type[GPT] = GPT,
    scratch: Path | None = None,
    samples: int = 0,
) -> tuple[GPT, History, str | None]:
    """Train a fresh model as a preset says.

    Args:
        preset: Model, batch size and schedule.
        corpus: The text; its vocabulary sets the model's.
        seed: Seed of weights, batches and samples.
        model_class: ``GPT``, or one that is broken on purpose.
        scratch: Where checkpoints are kept, and found after an interruption.
        samples: How many texts to write at each of :data:`SAMPLE_STEPS`.

    Returns:
        The model, what happened, and what the guard said where it stopped the run.

    Raises:
        ArtifactError: If ``scratch`` holds a checkpoint of another run, or a damaged one.

    Chapter: pretraining/training_dynamics.
    """  # noqa: DOC502
    torch.manual_seed(seed)
    config = replace(preset.model, vocab_size=corpus.tokenizer.vocab_size)
    model = model_class(config).to(preset.device)
    training = replace(preset.training, seed=seed)
    context = config.max_position_embeddings

    def evaluate(current: torch.nn.Module, step: int) -> dict[str, Any]:
        row: dict[str, Any] = {"samples": []}
        for part, tokens in (("train", corpus.train), ("val", corpus.validation)):
            losses = held_out_losses(
                current, tokens, context, max_windows=_EVALUATION_WINDOWS,
                device=preset.device, bf16=training.use_bf16,
            )  # fmt: skip
            row[f"{part}_loss"] = losses.mean().item()
        if samples and (step in SAMPLE_STEPS or step == training.max_steps):
            assert isinstance(current, GPT)
            row["samples"] = write_text(current, corpus.tokenizer, texts=samples, seed=seed)
        return row

    batches = RandomWindows(corpus.train, preset.batch_size, context, seed, preset.device)
    history, diverged = History(), None
    try:
        train(
            model,
            summed_loss,
            batches,
            training,
            evaluate=evaluate,
            checkpoint_folder=scratch,
            description=f"{preset.name} seed {seed}",
            history=history,
            identity={
                "model": config,
                "dataset": preset.dataset,
                "vocabulary": list(corpus.tokenizer.characters),
                "validation": tensor_digest(corpus.validation),
                "samples": samples,
            },
        )
    except TrainingDiverged as error:
        diverged = str(error)
    return model.eval(), history, diverged


def pretrained(
    preset: PretrainPreset | str = "cpu",
    seed: int | None = None,
    *,
    model_class: type[GPT] = GPT,
    train_characters: int = 0,
    samples: int = 0,
) -> PretrainRun:
    """Load a run from the store, or train it.

    Args:
        preset: A preset or its name.
        seed: Seed of weights, batches and samples; the base seed where it is left out.
        model_class: ``GPT``, or one of ``posttrain.pretraining.training.failures``; its
            module's code counts, so a class of a notebook is refused.
        train_characters: Train on this many characters only; 0 means all.
        samples: How many texts to write at each of :data:`SAMPLE_STEPS`.

    Returns:
        The run.

    Raises:
        ValueError: If the preset needs a GPU and this machine has none.

    Chapter: pretraining/training_dynamics.
    """
    preset = get_preset(preset) if isinstance(preset, str) else preset
    seed = base_seed() if seed is None else seed
    if torch.device(preset.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"the preset {preset.name!r} needs a GPU and torch sees none here: use 'cpu'"
        )
    corpus = corpus_of(preset.dataset, train_characters)

    def build(out: Path, scratch: Path) -> dict[str, Any]:
        model, history, diverged = train_model(
            preset, corpus, seed=seed, model_class=model_class, scratch=scratch, samples=samples
        )
        state = {k: v.cpu().contiguous() for k, v in model.state_dict().items()}
        if preset.model.tie_word_embeddings:
            del state["lm_head.weight"]  # it is the embedding
        save_file(state, out / "model.safetensors")
        write_json_atomic(out / "history.json", asdict(history))
        return {"diverged": diverged, "seconds_training": history.seconds}

    artifact = get_or_build(
        f"pretraining-{preset.name}",
        build,
        config={
            "preset": asdict(preset),
            "seed": seed,
            "model_class": model_class.__qualname__,
            "samples": samples,
            "bf16": preset.training.use_bf16,
        },
        data=_text_hash(corpus),
        modules=[__name__, model_class.__module__],
    )
    config = replace(preset.model, vocab_size=corpus.tokenizer.vocab_size)
    model = model_class(config)
    state = load_file(artifact.folder / "model.safetensors")
    state.setdefault("lm_head.weight", state["embed_tokens.weight"])
    model.load_state_dict(state)
    history = History(**json.loads((artifact.folder / "history.json").read_text("utf-8")))
    return PretrainRun(
        preset, seed, model.eval(), corpus, history, artifact.metrics["diverged"], artifact
    )


def _text_hash(corpus: Corpus) -> str:
    both = corpus.train_text + "\0" + corpus.tokenizer.decode(corpus.validation.tolist())
    return hashlib.sha256(both.encode()).hexdigest()


def pretrain_command(
    preset: str, steps: int | None, seed: int, out: Path | None
) -> dict[str, Any]:
    """Run ``posttrain pretrain``.

    Args:
        preset: Name of the preset.
        steps: Optimizer steps, where they should differ from the preset's.
        seed: Seed of weights, batches and samples.
        out: Folder for the weights in Hugging Face's format, or ``None``.

    Returns:
        What was measured.

    Chapter: pretraining/training_dynamics.
    """
    from posttrain.pretraining.model.weights import save_pretrained

    chosen = get_preset(preset)
    if steps is not None:
        warmup = min(chosen.training.warmup_steps, steps)
        training = replace(chosen.training, max_steps=steps, warmup_steps=warmup)
        chosen = replace(chosen, training=training)
    run = pretrained(chosen, seed, samples=1)
    if out is not None:
        save_pretrained(run.model, out)
    last = run.history.evaluations[-1] if run.history.evaluations else {}
    return {
        "preset": preset,
        "steps": len(run.history.loss),
        "train_loss": last.get("train_loss"),
        "val_loss": last.get("val_loss"),
        "seconds_training": run.history.seconds,
        "diverged": run.diverged,
        "sample": (last.get("samples") or [""])[0],
        "stored_in": str(run.artifact.folder),
    }
