"""Every token reads as what it is, whatever bytes it holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.model import Model
from moetui.model.text import TokenTexts


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_the_bytes_of_all_tokens_are_the_bytes_of_the_text(demo: Model, text: str) -> None:
    pieces = []
    for token in demo.tokenize(text):
        piece, kind = demo.texts.text(int(token)), demo.texts.kind(int(token))
        assert kind in {"text", "bytes"}
        if kind == "bytes":
            pieces.append(piece.encode("latin-1", "strict").decode("unicode_escape"))
            continue
        pieces.append(piece.encode().decode("latin-1"))
    assert "".join(pieces).encode("latin-1") == text.encode()


def test_control_tokens_are_marked(demo: Model) -> None:
    end = next(iter(demo.tokenizer.eos_token_ids))
    assert demo.texts.kind(end) == "special"
    assert demo.texts.kind(int(demo.tokenize("def")[0])) == "text"


class SentencePiece:
    """The face of a tokenizer that writes spaces as ▁ and bytes as <0xNN>."""

    all_special_ids = (0,)
    pieces = ("<s>", "▁the", "<0xE4>", "<0x41>", "cat")

    def get_vocab(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces)}

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self.pieces[token] if token < len(self.pieces) else None


@pytest.mark.parametrize(
    ("token", "text", "kind"),
    [
        (0, "<s>", "special"),
        (1, " the", "text"),
        (2, "\\xe4", "bytes"),
        (3, "A", "text"),
        (4, "cat", "text"),
        (5, "<unused 5>", "special"),
    ],
)
def test_sentencepiece_vocabularies_read_the_same_way(token: int, text: str, kind: str) -> None:
    texts = TokenTexts(SentencePiece())
    assert (texts.text(token), texts.kind(token)) == (text, kind)
