"""The formats' markers and names."""

import re

import pytest

from posttrain.sft.chat_formats import FORMATS, format_named


def test_markers_are_the_special_tokens_that_a_format_writes() -> None:
    chatml = ("<|im_start|>", "<|im_end|>")
    assert {name: form.markers for name, form in FORMATS.items()} == {
        "chatml": chatml,
        "smollm2": chatml,
        "qwen2.5": chatml,
        "llama-3": (
            "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
        ),
    }  # fmt: skip


def test_formats_are_found_by_name() -> None:
    assert format_named("llama-3") is FORMATS["llama-3"]
    assert format_named(FORMATS["chatml"]) is FORMATS["chatml"]
    problem = "chat_format is 'llama3': choose one of 'chatml', 'smollm2', 'qwen2.5', 'llama-3'"
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        format_named("llama3")
