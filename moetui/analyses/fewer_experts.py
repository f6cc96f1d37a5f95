"""What fewer or more experts a token cost, and whether it is their number or their scale.

A model made to use k' of its experts changes what is mixed and how much of it. So every number is
tried with the weights as they were, with weights that add up to as much as before, and with a
mixture as long as before; one of the first two is what the model itself does when it is told k'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import nll_change
from moetui.analyses.routed import RoutedDocument
from moetui.errors import UsageError
from moetui.stats import Statistic, document_bootstrap, ratio_of_sums
from moetui.stats.minimum import ABLATION, warned
from moetui.trace import Forward, Intervention, Reweigh, TopK
from moetui.trace.types import Floats, Ints

Numbers = NDArray[np.float64]
Match = Literal["each", "sum", "norm"]
Counts = Literal["few", "all"] | Sequence[int]

MATCHES: tuple[Match, ...] = ("each", "sum", "norm")
MATCHED = {
    "each": "weights as they were",
    "sum": "weights adding up to as much as before",
    "norm": "mixture as long as before",
}
# How far sums of weights in two passes over the same input may differ by rounding.
_SAME_SUM = 1e-2


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """`experts` a token in every layer that routes. match: what stays as it was, see `Reweigh`;
    own: that is what the model does when told so many experts, and TopK alone does it."""

    experts: int
    match: Match
    own: bool

    def changes(self, native: int) -> tuple[Intervention, ...]:
        """What makes a model that uses `native` experts a token use so many."""
        if self.own:
            return (TopK(k=self.experts),)
        reweigh = Reweigh(keep=self.experts, native=native, match=self.match)
        return (reweigh,) if self.experts < native else (TopK(k=self.experts), reweigh)


@dataclass(frozen=True, eq=False, kw_only=True)
class TriedDocument:
    """One document under M trials.

    ids: [T]. texts: [T - 1], of the tokens that were read when the next was predicted. before:
    float32 [T - 1], nats; after: float32 [M, T - 1]. kl: [M], Σ over T tokens of KL(P ‖ P'), None
    where that was not asked.
    """

    document: str
    domain: str
    ids: Ints
    texts: tuple[str, ...]
    before: Floats
    after: Floats
    kl: Numbers | None


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One number of experts. match: what stays as it was, in words; own: the model's own rule.
    nll: change of the loss in nats a predicted token; kl: nats a token, on fewer documents."""

    experts: int
    match: str
    own: bool
    nll: Statistic
    kl: Statistic | None


def numbers_of_experts(counts: Counts, native: int, experts: int) -> tuple[int, ...]:
    """The numbers that are meant, ascending, without the native one: few are 1, half, one and a
    half times and twice the native number, all are 1 to twice it; never more than there are."""
    if counts == "few":
        wanted = {1, native // 2, native + native // 2, 2 * native}
    elif counts == "all":
        wanted = set(range(1, 2 * native + 1))
    else:
        wanted = {int(count) for count in counts}
    return tuple(sorted(n for n in wanted - {native} if 1 <= n <= experts))


def own_match(model: Forward, ids: Ints, experts: int) -> Match:
    """What the model leaves as it was when told another number of experts: each weight, or their
    sum. Seen in the first layer that routes, which has the same input either way. Raises
    UsageError where the model takes no other number."""
    native, other = (
        np.nan_to_num(model.trace(ids, lens=0, residuals=False, interventions=some).expert_weights)
        for some in ((), (TopK(k=experts),))
    )
    sums = native[:, 0].sum(axis=-1), other[:, 0].sum(axis=-1)
    return "sum" if np.abs(sums[0] - sums[1]).max() <= _SAME_SUM * np.abs(sums[0]).max() else "each"


def trials_of(
    model: Forward, ids: Ints, numbers: Sequence[int]
) -> tuple[tuple[Trial, ...], str | None]:
    """The trials that the model allows, and why not all of them, None where they all are."""
    if not numbers:
        return (), "no other number of experts to try"
    native, found, reason = model.info.top_k, list[Trial](), None
    for number in numbers:
        try:
            own = own_match(model, ids, number)
        except UsageError as error:
            return tuple(found), f"{number} experts a token: {error}"
        for match in MATCHES:
            trial = Trial(experts=number, match=match, own=match == own)
            try:
                model.nll(ids[:2], trial.changes(native))
            except UsageError as error:
                reason = f"{MATCHED[match]}: {error}"
            else:
                found.append(trial)
    return tuple(found), reason


def try_document(
    model: Forward,
    document: RoutedDocument,
    trials: Sequence[Trial],
    *,
    kl: bool,
    step: Callable[[], None] = lambda: None,
) -> TriedDocument:
    """One document under every trial; with `kl` two more passes for each. step: after each."""
    native, ids = model.info.top_k, document.ids
    after = np.empty((len(trials), len(document.nll)), np.float32)
    moved = np.zeros(len(trials))
    for row, trial in enumerate(trials):
        changes = trial.changes(native)
        if len(document.nll):
            after[row] = model.nll(ids, changes)
        if kl:
            moved[row] = model.kl(ids, changes).sum(dtype=float)
        step()
    return TriedDocument(
        document=document.id,
        domain=document.domain,
        ids=ids,
        texts=tuple(model.token_text(int(token)) for token in ids[:-1]),
        before=document.nll,
        after=after,
        kl=moved if kl else None,
    )


def unchanged(model: Forward, document: RoutedDocument) -> bool:
    """Whether the native number of experts, asked for, leaves every loss bit for bit."""
    asked = model.nll(document.ids, (TopK(k=model.info.top_k),))
    return bool(np.array_equal(asked, document.nll))


def curve(
    documents: Sequence[TriedDocument], trials: Sequence[Trial], *, seed: int
) -> tuple[CurvePoint, ...]:
    """What every trial costs. Raises ValueError for no documents."""
    if not documents:
        raise ValueError("a curve is measured on documents")
    tokens = [float(len(one.before)) for one in documents]
    before = [one.before.sum(dtype=float) for one in documents]
    return tuple(
        CurvePoint(
            experts=trial.experts,
            match=MATCHED[trial.match],
            own=trial.own,
            nll=nll_change(
                before, [one.after[row].sum(dtype=float) for one in documents], tokens, seed=seed
            ),
            kl=_kl(documents, row, seed),
        )
        for row, trial in enumerate(trials)
    )


def _kl(documents: Sequence[TriedDocument], row: int, seed: int) -> Statistic | None:
    found = [(one.kl[row], len(one.ids)) for one in documents if one.kl is not None]
    if not found:
        return None
    sums, tokens = zip(*found, strict=True)
    whole = document_bootstrap(
        ratio_of_sums(sums, tokens), len(found), seed=seed, n_tokens=int(sum(tokens))
    )
    return warned(whole, ABLATION, documents=len(found))
