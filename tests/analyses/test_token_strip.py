from moetui.analyses.token_strip import token_strip
from tests.builders import make_recording


def test_tokens_of_prompt_and_steps_follow_each_other():
    recording = make_recording(3, 2, tokens=["a", " b", "c", " d", "e"])
    strip = token_strip(recording, 5, 1)
    assert strip.tokens == ["a", " b", "c", " d", "e"]
    assert strip.ids == [0, 1, 2, 3, 4]
    assert (strip.prompt_tokens, strip.cursor) == (3, 1)


def test_rows_that_were_not_promised_yet_are_not_shown():
    strip = token_strip(make_recording(3, 4), 4, 0)
    assert len(strip.tokens) == len(strip.kinds) == len(strip.ids) == 4


def test_kinds_are_kept():
    recording = make_recording(2, 1, kinds=["special", "bytes", "text"])
    assert token_strip(recording, 3, 0).kinds == ["special", "bytes", "text"]
