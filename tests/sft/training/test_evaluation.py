"""sft.training.evaluation: losses, answers and verdicts, by hand where that can be."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.training.failures import LeakyGPT
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.merge import merge_lora
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.template import EncodedChat, Message, encode_chat
from posttrain.sft.data.dataset import Row
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.training import evaluation
from posttrain.sft.training.evaluation import (
    accuracy_of,
    conversation_losses,
    encode_rows,
    mean_loss,
    plain_model,
    right_answers,
    tokenizer_of,
    write_answers,
)
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packed_forward import frozen_streams
from posttrain.sft.training.packing import pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 49_152
STOP = "<|im_end|>"
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def gpt(vocab_size: int = 31, **changes: Any) -> GPT:
    torch.manual_seed(0)
    shape = {
        "vocab_size": vocab_size, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128,
        "initializer_range": 0.2, **changes,
    }  # fmt: skip
    return GPT(GPTConfig(**shape)).eval()


def adapted(model: GPT, **changes: Any) -> GPT:
    inject_lora(model, LoRAConfig(r=2, **changes), seed=0)
    torch.manual_seed(1)
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def chat(question: str, answer: str | None = None) -> list[Message]:
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": question},
    ]  # fmt: skip
    return messages + ([{"role": "assistant", "content": answer}] if answer is not None else [])


def row(question: str, answer: str = "7") -> Row:
    return {
        "id": question, "kind": "none", "messages": chat(question, f"Answer: {answer}"),
        "answer": answer, "confidence": "high", "entry": "{}",
    }  # fmt: skip


@pytest.fixture(scope="module")
def llama_3(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """SmolLM2's tokenizer with the markers of Llama 3 beside its own."""
    other = copy.deepcopy(tokenizer)
    markers = [m for m in format_named("llama-3").markers if m not in other.get_vocab()]
    other.add_special_tokens({"additional_special_tokens": markers})
    return other


def parrot(
    tokenizer: PreTrainedTokenizerBase, text: str, start: str = "\n", stop: str = STOP
) -> GPT:
    """A model that says a text and stops: each token decides the next, and alone."""
    model = gpt(len(tokenizer), tie_word_embeddings=False, num_hidden_layers=1)
    chain = [*tokenizer.encode(start)[-1:], *tokenizer.encode(text + stop)]
    assert len(set(chain)) == len(chain) <= 17
    with torch.no_grad():
        for part in (model.layers[0].self_attn.o_proj, model.layers[0].mlp.down_proj):
            part.weight.zero_()
        model.embed_tokens.weight.fill_(0.01)
        model.lm_head.weight.zero_()
        for channel, (token, following) in enumerate(pairwise(chain)):
            model.embed_tokens.weight[token] = torch.eye(16)[channel]
            model.lm_head.weight[following] = torch.eye(16)[channel]
    return model


# --- tokenizer and rows ---


def test_a_tokenizer_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(evaluation, "load_tokenizer", lambda n: names.append(n) or object())
    assert tokenizer_of("some name of this test") is tokenizer_of("some name of this test")
    assert names == ["some name of this test"]


def test_rows_are_encoded_and_a_long_one_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [row("1 + 1?"), row("a longer question than the first one?")]
    encoded = encode_rows(rows, tokenizer, 100)
    assert encoded == [encode_chat(r["messages"], tokenizer) for r in rows]
    length = len(encoded[1].input_ids)
    assert encode_rows(rows, tokenizer, length) == encoded
    sentence = (
        rf"the row 'a longer question than the first one\?' has {length} tokens and max_length "
        f"is {length - 1}: raise max_length, or drop the row before"
    )
    with pytest.raises(ValueError, match=sentence):
        encode_rows(rows, tokenizer, length - 1)


def broken(**changes: Any) -> Any:
    made: dict[str, Any] = {**row("2 + 2?"), **changes}
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([broken(id=None)], r"^row 0, counted from 0, has \d+ tokens and max_length is 9"),
        ([row("1?"), broken(id=None)], "^the row '1[?]' has"),
        (
            [broken(messages=chat("2 + 2?"))],
            "^the row .*: the last message is from the user and",
        ),
        ([broken(id=None, messages=chat("?"))], "^row 0, .* the last message is from the user"),
        ([broken(messages=None)], "^the row .* has no 'messages': give a conversation"),
        (["text"], "^row 0, counted from 0, has no 'messages'"),
        ([broken(messages=[])], "^the row .*: the conversation is empty"),
        ([broken(messages=[{"role": "user"}])], "^the row .*: message 0 is .*give a dict"),
        ([broken(messages=chat("<|im_end|>", "x"))], "^the row .*: message 1 .*<.im_end.>"),
    ],
)
def test_a_row_that_cannot_be_trained_is_named(
    tokenizer: PreTrainedTokenizerBase, rows: list[Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        encode_rows(rows, tokenizer, 9)
    assert "\n" not in str(caught.value)


def test_rows_are_encoded_in_the_format_that_is_named(
    tokenizer: PreTrainedTokenizerBase, llama_3: PreTrainedTokenizerBase
) -> None:
    rows = [broken(messages=chat("1 + 1?", "2")[1:])]  # no system message: the formats differ
    for name, reader in (("smollm2", tokenizer), ("chatml", tokenizer), ("llama-3", llama_3)):
        expected = encode_chat(rows[0]["messages"], reader, name)
        assert encode_rows(rows, reader, 100, name) == [expected]
        assert (encode_rows(rows, reader, 100) == [expected]) is (name == "smollm2")
    with pytest.raises(
        ValueError, match=r"^the tokenizer has no special token '<.begin_of_text"
    ):
        encode_rows(rows, tokenizer, 100, "llama-3")
    with pytest.raises(ValueError, match=r"^chat_format is 'llama': choose one of 'chatml', "):
        encode_rows(rows, tokenizer, 100, "llama")


# --- a copy without adapters ---


@pytest.mark.parametrize(
    "kind", ["lora", "dora", "merged", "nf4", "nf4 alone", "plain", "untied"]
)
@torch.no_grad()
def test_the_plain_copy_is_the_same_function(kind: str) -> None:
    model = gpt(tie_word_embeddings=kind != "untied")
    if kind.startswith("nf4"):
        quantize_model(model)
    if kind not in ("nf4 alone", "plain"):
        adapted(model, use_dora=kind == "dora")
    if kind == "merged":
        merge_lora(model)
    expected = model(IDS)
    copy = plain_model(model)
    assert {type(m) for n, m in copy.named_modules() if n.endswith("_proj")} == {nn.Linear}
    assert_close(copy(IDS), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(IDS), expected)
    assert copy.embed_tokens.weight.data_ptr() == model.embed_tokens.weight.data_ptr()
    assert (copy.lm_head.weight is copy.embed_tokens.weight) is (kind != "untied")
    assert not copy.training and not any(p.requires_grad for p in copy.parameters())


def test_the_copy_leaves_what_is_trained_alone() -> None:
    model = adapted(gpt()).train()
    plain_model(model)
    assert model.training and all(p.requires_grad for p in lora_parameters(model).values())
    other = gpt()
    plain_model(other)
    assert all(p.requires_grad for p in other.parameters())


@torch.no_grad()
def test_a_4_bit_model_of_16_bits_with_a_4_bit_head_comes_back_in_16() -> None:
    model = quantize_model(gpt(tie_word_embeddings=False).bfloat16(), skip=())
    copy = plain_model(model)
    assert torch.equal(copy(IDS), model(IDS))
    assert type(copy.lm_head) is nn.Linear
    assert {p.dtype for p in copy.parameters()} == {torch.bfloat16}


# --- answers ---


def test_an_answer_ends_before_the_stop_token(tokenizer: PreTrainedTokenizerBase) -> None:
    model = parrot(tokenizer, "The answer: 42")
    questions = [chat("What?"), chat("What do you say to a much longer question?")]
    assert write_answers(model, tokenizer, questions) == ["The answer: 42"] * 2
    assert write_answers(model, tokenizer, questions[:1], max_new_tokens=3) == ["The answer:"]
    assert write_answers(PackedGPT(model), tokenizer, questions[:1]) == ["The answer: 42"]
    for stop in ((STOP, ":"), (":", STOP)):
        assert write_answers(model, tokenizer, questions, stop=stop) == ["The answer"] * 2
    assert write_answers(model, tokenizer, []) == write_answers(model, tokenizer, [], shared=1)


def test_an_answer_ends_at_the_stop_token_of_the_format(
    tokenizer: PreTrainedTokenizerBase, llama_3: PreTrainedTokenizerBase
) -> None:
    model = parrot(llama_3, "The answer: 42", "\n\n", "<|eot_id|>")
    questions = [chat("What?"), chat("What do you say to a much longer question?")]
    options: dict[str, Any] = {"chat_format": "llama-3", "shared": 1}
    assert write_answers(model, llama_3, questions, **options) == ["The answer: 42"] * 2
    beyond = write_answers(model, llama_3, questions, stop=(STOP,), **options)
    assert all(text != "The answer: 42" for text in beyond)  # it talks on
    with pytest.raises(ValueError, match="the tokenizer has no special token"):
        write_answers(gpt(VOCABULARY), tokenizer, questions, **options)
    with pytest.raises(ValueError, match="chat_format is 'unknown': choose one of"):
        write_answers(model, llama_3, questions, chat_format="unknown")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stop": STOP}, "stop is '<.im_end.>': give a sequence of tokens, such as"),
        ({"stop": ()}, r"stop is \[\]: give at least one token"),
        ({"stop": ("<|eot_id|>",)}, r"stop is \['<.eot_id.>'\]: .*only such as the tokenizer"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number from 1 up"),
        ({"shared": -1}, "shared is -1: give a whole number from 0 up"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: give a whole number from 1 up"),
    ],
)
def test_options_that_no_answer_can_follow_are_refused(
    tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        write_answers(gpt(VOCABULARY), tokenizer, [chat("What?")], **options)


def greedy(model: GPT, tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    """One conversation, one token at a time, all of it computed again for each."""
    ids = encode_chat(messages, tokenizer, add_generation_prompt=True).input_ids
    start = len(ids)
    for _ in range(5):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return str(tokenizer.decode(ids[start:]))


@torch.no_grad()
def test_answers_are_greedy_and_in_order(tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted(gpt(VOCABULARY))
    conversations = [chat(q) for q in ("Three words now?", "One?", "Two words?", "A b c d e?")]
    expected = [greedy(model, tokenizer, messages) for messages in conversations]
    assert len(set(expected)) > 1
    for size in (1, 3, 64):
        texts = write_answers(
            model, tokenizer, conversations, max_new_tokens=5, batch_size=size
        )
        assert texts == expected
    without = write_answers(gpt(VOCABULARY), tokenizer, conversations, max_new_tokens=5)
    assert without != expected  # the adapter counts


@torch.no_grad()
def test_what_is_shared_is_read_once_and_changes_nothing(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = gpt(VOCABULARY)
    start = [*chat("1 + 1?", "2"), {"role": "user", "content": "2 + 2?"},
             {"role": "assistant", "content": "4"}]  # fmt: skip
    conversations = [[*start, *chat(q)[1:]] for q in ("3?", "What is five?", "6 and 7?")]
    expected = write_answers(model, tokenizer, conversations, max_new_tokens=5)
    prefixes: list[list[int]] = []
    generate = evaluation.generate

    def spy(*parts: Any, prefix: list[int], **rest: Any) -> Any:
        prefixes.append(prefix)
        return generate(*parts, prefix=prefix, **rest)

    monkeypatch.setattr(evaluation, "generate", spy)
    options = {"max_new_tokens": 5, "batch_size": 2}
    for shared in (1, 5):
        texts = write_answers(model, tokenizer, conversations, shared=shared, **options)
        assert texts == expected
        known = encode_chat(conversations[0][:shared], tokenizer).input_ids
        assert prefixes[-2:] == [known, known]
    with pytest.raises(ValueError, match="the first 6 messages differ: pass shared=0"):
        write_answers(model, tokenizer, conversations, shared=6)


# --- verdicts ---


def test_verdicts_are_the_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "verify", lambda row, answer: answer == row["answer"])
    good = "Answer: 7\nWhy: it is.\nConfidence: high"
    texts = [good, good.replace("7", "8"), "**Answer:** 7", "I think 7", "Answer: 7\nsure"]
    rows = [row(str(index)) for index in range(5)]
    assert right_answers(rows, texts, strict=True) == [True, False, False, False, False]
    assert right_answers(rows, texts, strict=False) == [True, False, True, False, True]
    with pytest.raises(ValueError, match="shorter"):
        right_answers(rows, texts[:4], strict=True)
    with pytest.raises(ValueError, match="texts is 'seven': give a sequence of texts"):
        right_answers(rows, "seven", strict=True)


@pytest.mark.parametrize(
    ("used", "stop_token"), [(None, "<|im_end|>"), ("llama-3.2", "<|eot_id|>")]
)
def test_accuracy_is_the_share_of_right_first_lines(
    monkeypatch: pytest.MonkeyPatch, used: str | None, stop_token: str
) -> None:
    asked: list[list[Message]] = []

    def answers(
        model: object,
        tokenizer: object,
        conversations: list[list[Message]],
        *,
        shared: int,
        stop: tuple[str, str],
        max_new_tokens: int,
        chat_format: str,
    ) -> list[str]:
        asked.extend(conversations)
        assert max_new_tokens >= 18  # the longest first line of the data set
        assert shared == 1 and stop == (stop_token, "Ċ")
        assert chat_format == (used or "smollm2")
        return ["Answer: 7", "7", "Answer: 7", "answer: 7", "Answer: 8\n\nWhy"]

    monkeypatch.setattr(evaluation, "verify", lambda row, answer: answer == row["answer"])
    monkeypatch.setattr(evaluation, "write_answers", answers)
    rows = [row("a"), row("b"), row("c", "8"), row("d"), row("e", "8")]
    given = () if used is None else (used,)
    assert accuracy_of(gpt(), object(), rows, *given) == 0.4  # type: ignore[arg-type]
    assert asked == [chat(question) for question in "abcde"]
    with pytest.raises(ValueError, match="there is nothing to measure: give at least one"):
        accuracy_of(gpt(), object(), [])  # type: ignore[arg-type]


def test_the_line_break_is_a_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.tokenize("Answer: 7\nWhy")[-2:] == [evaluation.LINE_BREAK, "Why"]


# --- losses ---

EXAMPLES = [
    EncodedChat([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1]),
    EncodedChat([7, 8, 9], [0, 1, 0]),
    EncodedChat([7, 3, 9, 11], [0, 1, 1, 1]),
]


@pytest.mark.parametrize("head", ["plain", "nf4"])
def test_each_conversation_has_its_own_sum(head: str) -> None:
    model = gpt(tie_word_embeddings=False)
    if head == "nf4":
        quantize_model(model, skip=())
    for size in (1, 2, 16):
        sums, counts = conversation_losses(model, EXAMPLES, batch_size=size)
        expected = [sft_loss(model, pack([example])) for example in EXAMPLES]
        assert counts.tolist() == [3, 1, 3]
        assert_close(sums, torch.stack([loss for loss, _ in expected]), atol=1e-5, rtol=1e-5)
        assert not sums.requires_grad and sums.dtype == torch.float32


def test_the_mean_is_per_token(monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.tensor([6.0, 1.0]), torch.tensor([3.0, 1.0])
    monkeypatch.setattr(evaluation, "conversation_losses", lambda *parts: given)
    assert mean_loss(gpt(), EXAMPLES) == 7 / 4  # and not (6/3 + 1/1) / 2


def test_streams_give_the_same_losses() -> None:
    model = gpt().requires_grad_(False)
    streams = frozen_streams(model, EXAMPLES, 1)
    expected: tuple[Tensor, Tensor] = conversation_losses(model, EXAMPLES)
    given = conversation_losses(model, EXAMPLES, streams, 1, batch_size=2)
    assert_close(given, expected, atol=1e-5, rtol=1e-5)
    broken = [stream + 1 for stream in streams]
    assert mean_loss(model, EXAMPLES, broken, 1) != mean_loss(model, EXAMPLES, streams, 1)


def test_dropout_changes_neither_losses_nor_answers(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    expected = conversation_losses(adapted(gpt()), EXAMPLES)
    model = adapted(gpt(), lora_dropout=0.5).train()
    with torch.no_grad():
        assert not torch.equal(model(IDS), model(IDS))
    model.layers[0].eval()  # such as a part that stays so
    modes = [module.training for module in model.modules()]
    assert_close(conversation_losses(model, EXAMPLES), expected, rtol=0, atol=0)
    assert mean_loss(model, EXAMPLES) == mean_loss(model, EXAMPLES)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="none of the 2 tokens is trained"):
        conversation_losses(model, [EncodedChat([1, 2], [0, 0])])
    assert [module.training for module in model.modules()] == modes
    large = adapted(gpt(VOCABULARY), lora_dropout=0.5).train()
    first, second = (
        write_answers(large, tokenizer, [chat("What?")], max_new_tokens=8) for _ in range(2)
    )
    assert first == second and large.training


@torch.no_grad()
def test_frozen_streams_do_not_depend_on_the_mode() -> None:
    model = gpt().requires_grad_(False)
    expected = frozen_streams(model, EXAMPLES, 1)
    model.layers[0].mlp = nn.Sequential(model.layers[0].mlp, nn.Dropout(0.5)).train()
    assert_close(frozen_streams(model.train(), EXAMPLES, 1), expected, rtol=0, atol=0)
    assert model.training and model.layers[0].mlp[1].training


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="batch_size is 0: give a whole number from 1 up"):
        conversation_losses(gpt(), EXAMPLES, batch_size=0)
    with pytest.raises(ValueError, match="there is nothing to measure: give at least one"):
        mean_loss(gpt(), [])


# --- nothing is lost on the way ---


@torch.no_grad()
def test_a_head_that_has_gone_its_own_way_stays_in_the_copy() -> None:
    model = gpt()
    model.lm_head.weight = nn.Parameter(model.embed_tokens.weight + 1)  # the shape says tied
    for changed in (model, adapted(model)):
        copy = plain_model(changed)
        assert_close(copy(IDS), changed(IDS), atol=1e-5, rtol=1e-5)
        assert copy.lm_head.weight is not copy.embed_tokens.weight


def test_a_model_with_a_mask_of_its_own_has_no_plain_copy() -> None:
    with pytest.raises(ValueError, match="LeakyGPT has a visible of its own"):
        plain_model(LeakyGPT(gpt().config))
