"""posttrain.sft.data.forgetting: text and conversations from elsewhere."""

import pytest

from posttrain.core.assets import load_text
from posttrain.core.errors import AssetError
from posttrain.sft.chat.masking import check_encoded
from posttrain.sft.data import forgetting
from posttrain.sft.data.forgetting import general_chats, play_windows


def test_windows_are_spread_over_the_held_out_plays(tokenizer) -> None:
    windows = play_windows(tokenizer, 5, tokens=40)
    plays = load_text("shakespeare", "validation")
    places = []
    for window in windows:
        assert len(window.input_ids) == 40
        assert window.assistant_mask == [0] + [1] * 39
        text = tokenizer.decode(window.input_ids[4:-4])
        assert text in plays
        places.append(plays.index(text))
    assert places == sorted(places)
    assert places[0] < len(plays) / 10 and places[-1] > len(plays) * 0.7


@pytest.mark.parametrize("count", [0, 10**6])
def test_windows_that_do_not_fit(tokenizer, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} windows of 160 tokens do not fit"):
        play_windows(tokenizer, count)


def test_chats_train_the_answer_and_fit_the_length(tokenizer) -> None:
    chats = general_chats(tokenizer, 40, max_length=200)
    assert len(chats) == 40 and len({tuple(chat.input_ids) for chat in chats}) == 40
    for chat in chats:
        check_encoded(chat, tokenizer)
        assert len(chat.input_ids) <= 200
    assert "The answer is" in tokenizer.decode(chats[0].input_ids)
    assert chats == general_chats(tokenizer, 40, max_length=200)
    assert chats != general_chats(tokenizer, 40, max_length=200, seed=1)


def test_too_many_chats(tokenizer) -> None:
    with pytest.raises(ValueError, match=r"count is 500: give 1 to \d+, which is all"):
        general_chats(tokenizer, 500)


def test_without_lm_eval(tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "package_folder", lambda name: None)
    with pytest.raises(AssetError, match="pip install --no-deps lm-eval"):
        general_chats(tokenizer, 1)
