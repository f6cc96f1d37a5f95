"""The tokens of a recording, as a strip to move along."""

from __future__ import annotations

import msgspec

from moetui.trace import Recording, TokenKind


class TokenStrip(msgspec.Struct, frozen=True, kw_only=True):
    """The first T rows of a recording.

    tokens, kinds, ids: [T], as in `moetui.trace.Trace`: readable text; "text", "special" or
        "bytes" (part of a character); vocabulary ids.
    prompt_tokens: how many leading rows are the prompt; the rest was generated.
    cursor: the row looked at.
    """

    tokens: list[str]
    kinds: list[TokenKind]
    ids: list[int]
    prompt_tokens: int
    cursor: int


def token_strip(recording: Recording, rows: int, token: int) -> TokenStrip:
    """The first `rows` rows of `recording`, with the cursor on row `token`."""
    prompt = recording.prompt
    kept = min(rows, len(prompt))
    steps = [recording.locate(row) for row in range(kept, rows)]
    return TokenStrip(
        tokens=[*prompt.tokens[:kept], *(t.tokens[i] for t, i in steps)],
        kinds=[*prompt.token_kinds[:kept], *(t.token_kinds[i] for t, i in steps)],
        ids=[*prompt.token_ids[:kept].tolist(), *(int(t.token_ids[i]) for t, i in steps)],
        prompt_tokens=min(prompt.prompt_tokens, rows),
        cursor=token,
    )
