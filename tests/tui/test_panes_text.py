import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from moetui.tui.text import plain

# What vocabularies and pranksters hold: any character, the nasty ones often.
NASTY = "\x00\x07\x08\x1b\r\n\t\x7f\x85\x9b\u200b\u200d\u202e\u2066\ufe0f\ufeff\u0301\u0489\ud800"
HOSTILE = st.text(
    st.one_of(
        st.characters(), st.sampled_from(NASTY + "[]/漢字कि한🇫🇷👩🏽é"), st.sampled_from(" \\")
    ),
    max_size=24,
)
FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" capital", "·capital"),
        ("   ", "···"),
        ("a b ", "a b·"),
        ("\n", "↵"),
        ("\t\r", "⇥␍"),
        ("\x1b[31m", "␛[31m"),
        ("\x00\x7f", "␀␡"),
        ("\x9b", "\\x9b"),
        ("\u200b", "⟨zwsp⟩"),
        ("\u202eevil", "⟨rlo⟩evil"),
        ("\u2066", "⟨U+2066⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("[bold]x[/]", "[bold]x[/]"),
        ("\\xe2\\x82", "\\xe2\\x82"),
        ("漢字", "漢字"),
        ("e\u0301", "é"),
        ("\u0301", "◌\u0301"),
        ("a\u200db", "a⟨zwj⟩b"),
        ("", ""),
    ],
)
def test_what_is_invisible_is_shown(text, shown):
    assert plain(text) == shown


def test_marks_beyond_two_on_a_letter_are_spelt_out():
    assert plain("x" + "\u0302" * 4) == "x\u0302\u0302⟨U+0302⟩⟨U+0302⟩"


@given(HOSTILE)
def test_nothing_that_styles_or_moves_is_left(text):
    shown = plain(text)
    assert not {c for c in shown if unicodedata.category(c) in FORBIDDEN}
    shown.encode("utf-8")


@given(HOSTILE)
def test_only_marks_on_a_base_have_no_width(text):
    previous = ""
    for character in plain(text):
        if cell_len(character) == 0:
            assert unicodedata.category(character) in ("Mn", "Me")
            assert previous
        previous = character


@given(HOSTILE, st.integers(0, 30))
def test_a_width_is_kept_exactly(text, width):
    assert cell_len(plain(text, width)) == width


@given(HOSTILE)
def test_width_is_the_sum_of_its_characters(text):
    shown = plain(text)
    assert cell_len(shown) == sum(cell_len(character) for character in shown)


@given(HOSTILE)
def test_markup_is_never_needed_to_be_escaped(text):
    # Drawn as a rich Text it is the same text: nothing was parsed.
    assert Text(plain(text)).plain == plain(text)


def test_cut_text_says_so():
    assert plain("tokenization", 6) == "token…"
    assert plain("漢字漢字", 6) == "漢字… "
