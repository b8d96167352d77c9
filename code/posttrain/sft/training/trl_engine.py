"""The same run through TRL and PEFT.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.contention import BusyWatch
from posttrain.core.training.identity import frozen_digest
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.peft_models import check_same_adapter, load_peft_adapter
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset, dtype_of
from posttrain.sft.training.packing import examples_digest
from posttrain.sft.training.run_checks import check_examples, check_outcome
from posttrain.sft.training.watching import Watching

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig  # type: ignore[attr-defined]


@dataclass(frozen=True)
class EngineRun:
    """What an engine reports.

    Attributes:
        losses: Mean loss of each step's batch, before the step, in nats.
        seconds: Time in training alone; of a run that was resumed, the time since.
        tokens: Tokens that were read, padding not counted.
        adapter: Folder of the trained adapter, in PEFT's format: as it was at the lowest
            validation loss where there was a validation, else at the end.
        validation: Validation loss by step, before the first step and then every
            ``eval_steps``: each batch's mean, weighted by its rows, as transformers takes it.
            Empty without validation rows.
    """

    losses: list[float]
    seconds: float
    tokens: int
    adapter: Path
    validation: dict[int, float] = field(default_factory=dict)


def peft_config(config: LoRAConfig) -> LoraConfig:
    """Say the same to PEFT.

    Args:
        config: Our configuration; its field names are PEFT's.

    Returns:
        PEFT's configuration.

    Chapter: sft/lora.
    """
    from peft import LoraConfig

    fields = asdict(config)
    for name in ("target_modules", "layers_to_transform"):
        fields[name] = list(fields[name]) if fields[name] is not None else None
    return LoraConfig(task_type="CAUSAL_LM", **fields)


def sft_config(preset: SFTPreset, folder: Path, *, validate: bool = False) -> SFTConfig:
    """Say the same to TRL.

    Args:
        preset: Schedule, optimizer and batch.
        folder: Where the trainer may write.
        validate: Whether to measure the validation loss before the first step and every
            ``eval_steps``, and to end with the adapter of the lowest. Checkpoints are then
            written at the same steps, and :func:`fit` drops what does not fill a batch.

    Returns:
        TRL's configuration. The rows keep their order, and what does not fill a batch at the
        end of a pass is dropped, as here. In a warm-up, transformers' schedule is one step
        behind ours: its first step has rate zero.

    Chapter: sft/fine_tuning.
    """
    from trl import SFTConfig  # type: ignore[attr-defined]

    training: TrainingConfig = preset.training
    on_gpu = preset.device != "cpu"
    cosine = training.lr_scheduler_type == "cosine"
    schedule: dict[str, Any] = {
        "lr_scheduler_type": "cosine" if cosine else "constant_with_warmup"
    }
    if cosine and training.min_lr_ratio:
        schedule = {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": training.min_lr_ratio},
        }
    save_steps = training.eval_steps if validate else training.save_steps
    validation: dict[str, Any] = {}
    if validate:
        validation = {
            "eval_strategy": "steps",
            "eval_steps": training.eval_steps,
            "eval_on_start": True,
            "per_device_eval_batch_size": preset.batch_size,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=preset.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        max_steps=training.max_steps,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps if training.max_steps > 1 else 0,  # rate 0: no step
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        max_length=preset.max_length,
        train_sampling_strategy="sequential",
        dataloader_drop_last=not validate,  # it would drop validation rows too; see fit
        gradient_checkpointing=on_gpu,  # activations would not fit beside long conversations
        use_cpu=not on_gpu,
        bf16=training.use_bf16,  # autocast; where it is off, the model's own type decides
        logging_nan_inf_filter=False,  # the guard must see what it is to stop
        fp16=on_gpu and preset.dtype == "float16",  # whose small gradients must be scaled
        logging_steps=1,
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 1,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        **validation,
        **schedule,
    )


def fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[EncodedChat],
    preset: SFTPreset,
    folder: Path,
    validation: Sequence[EncodedChat] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Run TRL's SFTTrainer on a model that has its adapter already.

    With validation rows and ``eval_steps``, their loss is measured on the way and the adapter
    of the lowest one is kept. With ``save_steps``, a run that was interrupted goes on from its
    last checkpoint where it is started again with the same folder, model, examples and preset.

    Args:
        model: A PEFT model. Its adapter is trained in float32, also where the weights are in 4
            bits; TRL would train it in bfloat16 there.
        tokenizer: Its tokenizer.
        examples: Encoded conversations, in the order of training.
        preset: Schedule, optimizer and batch.
        folder: Gets the adapter.
        validation: Encoded conversations to be measured on.
        watching: How the run is shown; not at all where it is left out.

    Returns:
        What happened.

    Raises:
        ValueError: If the examples do not fill a step, or one cannot be trained as it is.
        TrainingDiverged: If the guard stops the run, as it does by hand.
        TrainingIncomplete: If fewer steps were taken than asked for, or nothing was learned.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer  # type: ignore[attr-defined]

    from posttrain.sft.training.trl_watching import GuardCallback, WatchCallback

    check_examples(examples, validation, preset)
    watch = BusyWatch(torch.get_num_threads() if preset.device == "cpu" else 1)
    validate = bool(validation) and preset.training.eval_steps > 0
    examples = examples[: len(examples) - len(examples) % preset.batch_size]
    own = folder / "trainer" / _fingerprint(model, examples, validation, preset)
    own.mkdir(parents=True, exist_ok=True)
    train_set, held_out = (
        Dataset.from_list(
            [{"input_ids": x.input_ids, "assistant_masks": x.assistant_mask} for x in part]
        )
        for part in (examples, validation)
    )
    trainer = SFTTrainer(
        cast(Any, model),
        args=sft_config(preset, own, validate=validate),
        train_dataset=train_set,
        eval_dataset=held_out if validate else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(GuardCallback(preset))
    if watching is not None:
        trainer.add_callback(WatchCallback(watching, preset, tokenizer))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    watch.warn()
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=last_checkpoint(own))
    seconds = time.perf_counter() - started
    check_outcome(
        trainer.state.global_step,
        preset,
        (weight.detach() for name, weight in model.named_parameters() if "lora_B" in name),
    )
    log = trainer.state.log_history
    model.save_pretrained(str(folder / "adapter"))
    shutil.rmtree(folder / "trainer")
    return EngineRun(
        losses=[float(entry["loss"]) for entry in log if "loss" in entry],
        seconds=seconds,
        tokens=int(max(entry.get("num_tokens", 0) for entry in log if "loss" in entry)),
        adapter=folder / "adapter",
        validation={
            int(entry["step"]): float(entry["eval_loss"])
            for entry in log
            if "eval_loss" in entry
        },
    )


def last_checkpoint(folder: Path) -> str | None:
    """Find the newest checkpoint of TRL's trainer that was written to its end.

    A kill may leave half of one; it is removed. The trainer writes ``trainer_state.json`` last,
    and keeps in it where the best checkpoint lay: after a move to another folder or machine,
    that is put right.

    Args:
        folder: Where the trainer writes.

    Returns:
        The checkpoint's folder, or ``None``.

    Chapter: sft/your_model.
    """
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            step = int(state["global_step"])
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(path)
            continue
        if best := state.get("best_model_checkpoint"):
            state["best_model_checkpoint"] = str(folder / Path(best).name)
            write_json_atomic(path / "trainer_state.json", state)
        whole.append((step, path))
    return str(max(whole)[1]) if whole else None


def _fingerprint(
    model: PeftModel,
    examples: Sequence[EncodedChat],
    validation: Sequence[EncodedChat],
    preset: SFTPreset,
) -> str:
    """Name a run, so that no checkpoint of another one is taken for its own.

    The frozen weights count, and not where they lie.
    """
    settings = {k: v for k, v in asdict(preset).items() if k not in ("name", "model")}
    settings |= {"dtype": str(dtype_of(preset)), "frozen": frozen_digest(model)}
    rows = [examples_digest(part) for part in (examples, validation)]
    digest = hashlib.sha256(json.dumps([settings, rows]).encode())
    for parameter in model.parameters():
        if parameter.requires_grad:
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def run_trl(
    preset: SFTPreset,
    examples: Sequence[EncodedChat],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedChat] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with TRL and PEFT in this process.

    Args:
        preset: The run; ``quantization="nf4"`` loads the weights through bitsandbytes.
        examples: Encoded conversations, in the order of training.
        folder: Gets the adapter.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded conversations to be measured on; see :func:`fit`.
        watching: How the run is shown.

    Returns:
        What happened.

    Raises:
        AssetError: If ``adapter`` holds none.
        ValueError: If the examples do not fill a step, one cannot be trained as it is, or
            ``adapter`` is none of the preset's shape.
        TrainingIncomplete: If fewer steps were taken than asked for, or nothing was learned.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    check_examples(examples, validation, preset)
    if adapter is not None:
        check_same_adapter(adapter, preset.lora)
    source, dtype = model_source(preset.model), dtype_of(preset)
    options: dict[str, Any] = {}
    if preset.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, device_map={"": preset.device}, trust_remote_code=False, **options
    )
    torch.manual_seed(preset.training.seed)
    tuned = (
        load_peft_adapter(model, adapter, trainable=True)
        if adapter is not None
        else get_peft_model(model, peft_config(preset.lora))
    )
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return fit(tuned, tokenizer, examples, preset, folder, validation, watching)


def model_source(name: str) -> str:
    """Say where the libraries find a model.

    Args:
        name: A name that ``posttrain.core.assets`` knows, a folder, or a repository.

    Returns:
        A folder, or the repository's name.

    Chapter: sft/fine_tuning.
    """
    from posttrain.core.assets import MODELS, model_folder

    return str(model_folder(name)) if name in MODELS or Path(name).is_dir() else name
