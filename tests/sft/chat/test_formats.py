"""The formats' markers and names."""

import re
from dataclasses import replace

import pytest

from posttrain.sft.chat.formats import FORMATS, format_named


def test_markers_are_the_special_tokens_that_a_format_writes() -> None:
    chatml = ("<|im_start|>", "<|im_end|>")
    llama = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    assert {name: form.markers for name, form in FORMATS.items()} == {
        "chatml": chatml,
        "smollm2": chatml,
        "qwen2.5": chatml,
        "llama-3": llama,
        "llama-3.2": llama,
    }


def test_formats_are_found_by_name() -> None:
    assert format_named("llama-3") is FORMATS["llama-3"]
    assert format_named(FORMATS["chatml"]) is FORMATS["chatml"]
    problem = (
        "chat_format is 'llama3': choose one of 'chatml', 'smollm2', 'qwen2.5', 'llama-3', "
        "'llama-3.2'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        format_named("llama3")


def test_a_preamble_without_a_system_turn_is_refused() -> None:
    problem = 'system_preamble needs a system turn to stand in: give default_system, ""'
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        replace(FORMATS["llama-3.2"], default_system=None)
