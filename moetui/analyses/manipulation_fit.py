"""What manipulations were fitted to calibration contexts: descriptions, judged elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from moetui.analyses.manipulation_check import Fitted
from moetui.analyses.manipulation_targets import Target, TokenChange, cells_reached
from moetui.analyses.token_search import Search, search_tokens
from moetui.stats import Statistic
from moetui.trace import Forward
from moetui.trace.types import Ints


class ScannedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """target: as L4-E17. best: share of the fitted contexts in which the best token reaches it;
    mean: of all tokens tried. By row: the position's own token, the one before."""

    target: str
    best: tuple[float, ...]
    mean: tuple[float, ...]


class TokenScan(msgspec.Struct, frozen=True, kw_only=True, tag="token_scan"):
    """`candidates` of the vocabulary's tokens, each tried in `contexts` calibration contexts.
    The best of many, on what it was chosen by: no success yet."""

    candidates: int
    vocabulary: int
    contexts: int
    targets: tuple[ScannedTarget, ...]


class FittedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """target: as L4-E17. tokens, fit: as in `moetui.analyses.manipulation.TargetEffects`.
    dose: what is added to the logits of its experts, one for each."""

    target: str
    role: str
    tokens: tuple[str, ...]
    fit: tuple[float, ...]
    dose: tuple[float, ...]


class ManipulationFit(msgspec.Struct, frozen=True, kw_only=True, tag="manipulation_fit"):
    """gradient_error: why tokens were searched at random instead of by gradients."""

    contexts: int
    gradient_error: str | None
    targets: tuple[FittedTarget, ...]


class SeedManipulation(msgspec.Struct, frozen=True, kw_only=True, tag="seed_manipulation"):
    """The seed's own question, on its prompt: tokens optimised for a sequence of experts.

    sequence: as L4-E17 → L8-E3, drawn from the sequence prompt or as asked for. before, after:
    share of its experts chosen at the prompt's last token, untouched and with the optimised tokens
    before it (on the very prompt they were optimised on: no interval, no null).
    """

    prompt: str
    sequence: str
    crafted: str
    before: Statistic
    after: Statistic


def seed_manipulation(
    model: Forward, prompt: str, target: Target, search: Search, *, seed: int
) -> SeedManipulation | None:
    """None where the prompt has one token only: there is nothing before it."""
    ids = model.tokenize(prompt)
    position = len(ids) - 1
    if not position:
        return None
    rows = tuple(range(-position, 0))
    own = TokenChange(rows=rows, tokens=tuple(int(i) for i in ids[:-1]))
    search = replace(search, rows=rows)
    found = search_tokens(model, ids[None], position, target, search, start=[own], seed=seed)
    crafted = found.applied(ids[None], position)

    def share(contexts: Ints) -> Statistic:
        read = model.read_contexts(contexts, position)
        hits = cells_reached(read.experts, model.info.moe_layers, target)
        return Statistic(
            value=float(hits.mean()), n_documents=1, caveat="as published: no interval, no null"
        )

    return SeedManipulation(
        prompt=prompt,
        sequence=str(target),
        crafted="".join(model.token_text(int(i)) for i in crafted[0]),
        before=share(ids[None]),
        after=share(crafted),
    )


def fitted_targets(
    fitted: Sequence[Fitted], texts: Sequence[tuple[str, ...]]
) -> tuple[FittedTarget, ...]:
    """For the result."""
    return tuple(
        FittedTarget(
            target=str(one.target),
            role=one.target.role,
            tokens=said,
            fit=one.fit,
            dose=tuple(max(change.delta) for change in one.raised),
        )
        for one, said in zip(fitted, texts, strict=True)
    )
