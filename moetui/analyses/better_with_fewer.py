"""Inputs that fewer experts serve better: found on some documents, and asked again of others.

Of many kinds of input some always do better by chance, and the best of them by the most. So kinds
(domains, and tokens that are read) are picked on calibration documents alone, and what is said of
them is said of evaluation documents, over all kinds that were picked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.fewer_experts import CurvePoint, Trial, TriedDocument
from moetui.stats import (
    Statistic,
    benjamini_hochberg,
    document_bootstrap,
    ratio_of_sums,
    sign_flip,
)

Numbers = NDArray[np.float64]
Kind = Literal["domain", "token read"]

# Documents that a kind of input must occur in, in either half.
LEAST_DOCUMENTS = 10
# Picked where the mean over documents lies so many standard errors below 0.
PICKED_BELOW = -1.645
LEVEL = 0.05
DEFINITION = (
    "a kind of input (a domain, or the token that is read) in which fewer experts lower the loss: "
    f"picked on calibration documents (mean over {LEAST_DOCUMENTS} documents or more "
    f"{-PICKED_BELOW} standard errors below 0), confirmed on evaluation documents (sign flips by "
    f"document, false discovery rate over all that were picked ≤ {LEVEL:g})"
)


class BetterInput(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of input that was picked, with `experts` a token by the model's own rule.

    picked_by: change of the loss on the documents that it was picked on, nats a token: too good,
    because it was picked. change: the same on evaluation documents, with p (two-sided, sign flips
    by document) and q over all that were picked. confirmed: q ≤ .05 and below 0.
    """

    kind: Kind
    name: str
    experts: int
    picked_by: float
    documents: int
    change: Statistic
    confirmed: bool


class BetterWithFewer(msgspec.Struct, frozen=True, kw_only=True):
    """candidates: kinds of input times numbers of experts that were looked at. picked_by, change:
    over all that were picked, on the documents that they were picked on and on the others (n: those
    that hold any of them); None where nothing was picked. documents_better: evaluation documents,
    out of `documents`, whose loss is lower with one expert: what picking without asking again
    would report."""

    definition: str
    candidates: int
    picked: tuple[BetterInput, ...]
    picked_by: float | None
    change: Statistic | None
    documents_better: int | None
    documents: int

    @property
    def confirmed(self) -> tuple[BetterInput, ...]:
        """Those that do better on evaluation documents too."""
        return tuple(one for one in self.picked if one.confirmed)


class FewerExperts(msgspec.Struct, frozen=True, kw_only=True, tag="fewer_experts"):
    """Other numbers of experts than `native`. checked: documents that were run with the native
    number asked for; unchanged: how many of them it left bit for bit. incomplete: why not all
    that was asked for was tried. better: inputs that fewer experts serve better."""

    native: int
    checked: int
    unchanged: int
    points: tuple[CurvePoint, ...]
    incomplete: str | None
    better: BetterWithFewer


@dataclass(frozen=True, eq=False)
class _Changes:
    """By document that holds a kind: Σ of the change of the loss, and how many tokens; places:
    of these documents among all."""

    places: NDArray[np.int64]
    sums: Numbers
    tokens: Numbers

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.tokens.sum())

    @property
    def picked(self) -> bool:
        spread = float(self.sums.std(ddof=1)) / np.sqrt(len(self.sums))
        return bool(self.sums.mean() < PICKED_BELOW * spread)


def better_with_fewer(
    calibration: Sequence[TriedDocument],
    evaluation: Sequence[TriedDocument],
    trials: Sequence[Trial],
    rows: Sequence[tuple[int, int]],
    *,
    seed: int,
) -> BetterWithFewer:
    """Pick on `calibration`, ask `evaluation`.

    trials: those looked at, with fewer experts than natively; rows: where each stands on the M
    axis of the calibration and of the evaluation documents.
    """
    candidates, picked = 0, list[tuple[Trial, Kind, str, _Changes, _Changes]]()
    for trial, (fitted, asked) in zip(trials, rows, strict=True):
        found, others = dict(_kinds(calibration, fitted)), dict(_kinds(evaluation, asked))
        for key in sorted(found.keys() & others.keys()):
            candidates += 1
            if found[key].picked:
                picked.append((trial, key[0], key[1], found[key], others[key]))
    ps = [sign_flip(other.sums, seed=seed) for *_, other in picked]
    qs = benjamini_hochberg(ps) if ps else np.empty(0)
    single = next((row for t, (_, row) in zip(trials, rows, strict=True) if t.experts == 1), None)
    return BetterWithFewer(
        definition=DEFINITION,
        candidates=candidates,
        picked=tuple(
            _asked_again(*one, p=p, q=float(q), seed=seed)
            for one, p, q in zip(picked, ps, qs, strict=True)
        ),
        picked_by=_mean([found for *_, found, _ in picked]),
        change=_pooled([other for *_, other in picked], len(evaluation), seed) if picked else None,
        documents_better=None if single is None else _lower(evaluation, single),
        documents=len(evaluation),
    )


def _kinds(
    documents: Sequence[TriedDocument], row: int
) -> Iterator[tuple[tuple[Kind, str], _Changes]]:
    """Every kind that enough documents hold, with the change of the loss under trial `row`."""
    deltas = [(one.after[row] - one.before).astype(float) for one in documents]
    by_kind: dict[tuple[Kind, str], list[tuple[int, float, int]]] = {}
    for place, (document, delta) in enumerate(zip(documents, deltas, strict=True)):
        if len(delta):
            entry = (place, float(delta.sum()), len(delta))
            by_kind.setdefault(("domain", document.domain), []).append(entry)
        texts = dict(zip(document.ids[:-1].tolist(), document.texts, strict=True))
        for token, text in texts.items():
            at = document.ids[:-1] == token
            entry = (place, float(delta[at].sum()), int(at.sum()))
            by_kind.setdefault(("token read", f"{text} ({token})"), []).append(entry)
    for key, entries in by_kind.items():
        if len(entries) >= LEAST_DOCUMENTS:
            places, sums, tokens = (np.array(column) for column in zip(*entries, strict=True))
            yield key, _Changes(places, sums, tokens.astype(float))


def _asked_again(
    trial: Trial,
    kind: Kind,
    name: str,
    found: _Changes,
    other: _Changes,
    *,
    p: float,
    q: float,
    seed: int,
) -> BetterInput:
    change = document_bootstrap(
        ratio_of_sums(other.sums, other.tokens),
        len(other.sums),
        seed=seed,
        n_tokens=int(other.tokens.sum()),
    )
    return BetterInput(
        kind=kind,
        name=name,
        experts=trial.experts,
        picked_by=found.mean,
        documents=len(found.sums),
        change=msgspec.structs.replace(change, null_mean=0.0, p=p, q=q),
        confirmed=bool(q <= LEVEL and other.mean < 0),
    )


def _mean(found: Sequence[_Changes]) -> float | None:
    if not found:
        return None
    return float(sum(one.sums.sum() for one in found) / sum(one.tokens.sum() for one in found))


def _pooled(found: Sequence[_Changes], documents: int, seed: int) -> Statistic:
    """Over all kinds together, a document being drawn with all that it holds of them.

    Documents that hold none of them say nothing, and do not count as documents here.
    """
    sums, tokens = np.zeros(documents), np.zeros(documents)
    for one in found:
        np.add.at(sums, one.places, one.sums)
        np.add.at(tokens, one.places, one.tokens)
    holding = tokens > 0
    return document_bootstrap(
        ratio_of_sums(sums[holding], tokens[holding]),
        int(holding.sum()),
        seed=seed,
        n_tokens=int(tokens.sum()),
    )


def _lower(documents: Sequence[TriedDocument], row: int) -> int:
    return sum(
        bool(one.after[row].sum(dtype=float) < one.before.sum(dtype=float)) for one in documents
    )
