"""How far routing can be forced, and at what price: success on contexts that nothing was fitted to.

Success@k of a target is that all its experts are among the k chosen at the position. Beside it
stands what random tokens in the same places do (or random changes of the stream of the same
length), what the context does untouched, and how often other experts came in by the very change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.manipulation_check import DRAWS, INPUTS, METHODS, STREAM, Checked, Fitted
from moetui.analyses.manipulation_targets import RAREST, SEQUENCE
from moetui.stats import Statistic, document_bootstrap, joined, permutation_p, rate, ratio_of_sums
from moetui.stats.minimum import Minimum, warned

Numbers = NDArray[np.float64]

MINIMUM = Minimum("success of a manipulation", {"contexts": 30})
DEFINITION = (
    "success@k: in contexts of other documents than those that tokens were fitted to, the share in "
    "which all experts of the target are among the k chosen at the position; null: as many random "
    "tokens in the same places, the same in every context (for the smallest change of the stream: "
    "random directions of its length, which hardly ever reach what only the best one of that "
    "length does: a check, and no contest). Intervals are over contexts: they are of these "
    "targets, not of other experts that might have been drawn"
)


SOLVED = "solved for each context, so random directions of its length are a check and no contest"


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What one method does to a target, or on average over several.

    success: share of contexts; its null as the definition says. excess: success less the mean of
    that null, paired by context. gain: success less that of the untouched contexts, paired; its
    null are up to 20 other experts of the layer under the very same change: None for a sequence.
    prompts: success of random words before the position (inputs that leave its own token).
    kl: KL in nats of what is expected after the position; null: random tokens. nll: nats a token
    that the tokens after the position cost more. missing: why there are no numbers.
    """

    method: str
    success: Statistic | None
    excess: Statistic | None = None
    gain: Statistic | None = None
    kl: Statistic | None = None
    nll: Statistic | None = None
    missing: str | None = None


class TargetEffects(msgspec.Struct, frozen=True, kw_only=True):
    """One target. name: as L4-E17 → L8-E3. untouched, prompts: its success without any change, and
    after random words of other documents. tokens: what was put in, as text, in the order of the
    first methods; fit: the share of the fitted contexts that this reached."""

    name: str
    role: str
    untouched: Statistic
    prompts: Statistic
    tokens: tuple[str, ...]
    fit: tuple[float, ...]
    effects: tuple[Effect, ...]


class StreamChange(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest changes of the stream, over contexts in which the expert was not chosen.

    length: ‖δ‖ over ‖stream‖. pair: the pair formula's length over the solution's; it is no bound:
    pair_above, share in which it is longer than the solution. bound: the shortest pair's length
    over the solution's, at most 1. pair_success: share in which the router chooses the expert
    after the pair formula's change. exact: share in which the search for kept sets came to its end.
    relinearised: share that took more than one problem.
    """

    length: Statistic
    pair: Statistic
    pair_above: Statistic
    bound: Statistic
    pair_success: Statistic
    exact: float
    relinearised: float


class Manipulation(msgspec.Struct, frozen=True, kw_only=True, tag="manipulation"):
    """Over `contexts` contexts of `tokens` tokens, side effects over `after` more.

    mean: over targets that are one expert; rarest: over those that are the rarest of their layer.
    targets: each, the sequence last. draws: random tokens, prompts and ways a method.
    """

    definition: str
    corpus: CorpusUsed | None
    contexts: int
    too_short: int
    tokens: int
    after: int
    draws: int
    untouched: Statistic
    prompts: Statistic
    mean: tuple[Effect, ...]
    rarest: tuple[Effect, ...]
    targets: tuple[TargetEffects, ...]
    stream: StreamChange | None
    reason: str | None


def joined_checks(parts: Sequence[Checked]) -> Checked:
    """The contexts of all parts together."""
    axes = {"random": 1, "random_kl": 1, "prompts": 1}
    names = [name for name in Checked.__dataclass_fields__ if name != "reasons"]
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=axes.get(name, 0))
        for name in names
    }
    reasons = tuple(
        tuple(next((reason for reason in found if reason), "") for found in zip(*each, strict=True))
        for each in zip(*(part.reasons for part in parts), strict=True)
    )
    return Checked(reasons=reasons, **whole)


def manipulation(
    checked: Checked,
    fitted: Sequence[Fitted],
    texts: Sequence[tuple[str, ...]],
    experts: int,
    *,
    tokens: int,
    after: int,
    too_short: int,
    corpus: CorpusUsed | None,
    seed: int,
) -> Manipulation:
    """What was found in all contexts. texts: by target, the tokens that were put in; experts: of
    the widest layer. Raises ValueError for no context."""
    n = len(checked.untouched)
    if not n:
        raise ValueError("a manipulation is judged by contexts")
    found = _Found(checked, fitted, experts, after, seed)
    single = [g for g, one in enumerate(fitted) if one.target.role != SEQUENCE]
    rarest = [g for g in single if fitted[g].target.role == RAREST]
    reason = None if n >= MINIMUM.needs["contexts"] / 10 else f"{n} contexts, {MINIMUM} needed"
    return Manipulation(
        definition=DEFINITION,
        corpus=corpus,
        contexts=n,
        too_short=too_short,
        tokens=tokens,
        after=after,
        draws=len(checked.random),
        untouched=found.untouched(single),
        prompts=found.prompts(single),
        mean=found.effects(single),
        rarest=found.effects(rarest),
        targets=tuple(
            TargetEffects(
                name=str(one.target),
                role=one.target.role,
                untouched=found.untouched([g]),
                prompts=found.prompts([g]),
                tokens=texts[g],
                fit=one.fit,
                effects=found.effects([g]),
            )
            for g, one in enumerate(fitted)
        ),
        stream=found.stream(single),
        reason=reason,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    checked: Checked
    fitted: Sequence[Fitted]
    experts: int
    after: int
    seed: int

    def untouched(self, targets: Sequence[int]) -> Statistic:
        """Success without a change."""
        return self._share(self.checked.untouched[:, targets].mean(axis=1))

    def prompts(self, targets: Sequence[int]) -> Statistic:
        """Success of random words before the position."""
        return self._share(self.checked.prompts[:, :, targets].mean(axis=(0, 2)))

    def effects(self, targets: Sequence[int]) -> tuple[Effect, ...]:
        """Of every method, mean over the targets (by their place among all)."""
        return tuple(self._effect(m, method, targets) for m, method in enumerate(METHODS))

    def _effect(self, m: int, method: str, targets: Sequence[int]) -> Effect:
        found = self.checked
        hits = found.reached[:, targets, m]
        known = ~np.isnan(hits)
        rows = np.asarray(known.any(axis=1))
        if not rows.any():
            told = next((found.reasons[g][m] for g in targets if found.reasons[g][m]), "not tried")
            if method == STREAM and all(self.fitted[g].target.role == SEQUENCE for g in targets):
                told = "it changes the router of one layer"
            return Effect(method=method, success=None, missing=told)
        y = _mean(hits[rows])
        untouched = _mean(np.where(known, found.untouched[:, targets], np.nan)[rows])
        null, paired = self._null(m, method, targets, known, rows)
        success = self._share(y)
        if null is not None:
            success = _with_null(success, null)
        lacking = int((~known).sum())
        partly = f"{lacking} of {known.size} could not be tried" if lacking else None
        solved = SOLVED if method == STREAM else None
        return Effect(
            method=method,
            success=_told(success, partly, solved),
            excess=None if paired is None else _told(self._mean(y - paired), solved),
            gain=self._gain(m, targets, y - untouched),
            kl=self._kl(m, method, targets, rows),
            nll=self._nll(m, targets, rows),
        )

    def _null(
        self,
        m: int,
        method: str,
        targets: Sequence[int],
        known: NDArray[np.bool_],
        rows: NDArray[np.bool_],
    ) -> tuple[Numbers | None, Numbers | None]:
        """Success of every draw [J], and mean of the draws in each context."""
        found = self.checked
        if method in INPUTS:
            draws = found.random[:, :, targets, m].astype(float)
        elif method == STREAM:
            draws = np.moveaxis(found.ways[:, targets], -1, 0).astype(float)
        else:
            return None, None
        each = _mean(np.where(known, draws, np.nan)[:, rows])  # [J, rows]
        return each.mean(axis=1), each.mean(axis=0)

    def _gain(self, m: int, targets: Sequence[int], gains: Numbers) -> Statistic | None:
        """Its null: what other experts of the same layer gained by the same change."""
        if any(len(self.fitted[g].target.cells) > 1 for g in targets):
            return None
        others = np.stack([self._others(g, m) for g in targets])
        statistic = self._mean(gains)
        return _with_null(statistic, others.mean(axis=0)) if others.size else statistic

    def _others(self, g: int, m: int) -> Numbers:
        """[J], gains of other experts drawn at random."""
        found, own = self.checked, self.fitted[g].target.cells[-1].expert
        tried = ~np.isnan(found.reached[:, g, m])
        before, after = found.untouched_experts[tried, g], found.experts[tried, g, m]
        share = [
            np.bincount(ids[ids >= 0], minlength=self.experts)[: self.experts] / max(1, tried.sum())
            for ids in (before, after)
        ]
        # Experts that the layer lacks never come in: they are no controls.
        there = np.flatnonzero((share[0] + share[1] > 0) & (np.arange(self.experts) != own))
        if not len(there):
            return np.zeros(DRAWS)
        rng = np.random.default_rng([self.seed, g, m])
        gains: Numbers = (share[1] - share[0])[rng.choice(there, DRAWS)]
        return gains

    def _kl(
        self, m: int, method: str, targets: Sequence[int], rows: NDArray[np.bool_]
    ) -> Statistic:
        statistic = self._mean(_mean(self.checked.kl[:, targets, m][rows]))
        if method not in INPUTS:
            return statistic
        at = INPUTS.index(method)
        return _with_null(statistic, self.checked.random_kl[:, rows, at].mean(axis=1).astype(float))

    def _nll(self, m: int, targets: Sequence[int], rows: NDArray[np.bool_]) -> Statistic | None:
        if not self.after:
            return None
        return self._mean(_mean(self.checked.nll[:, targets, m][rows]) / self.after)

    def stream(self, targets: Sequence[int]) -> StreamChange | None:
        """Lengths, over contexts and targets in which something had to be changed."""
        values = self.checked.stream[:, targets].astype(float)
        needed = values[..., 0] > 0
        if not needed.any():
            return None
        values = np.where(needed[..., None], values, np.nan)
        length, pair, bound = (values[..., at] for at in range(3))
        above = np.where(needed, (pair > length * (1 + 1e-5)).astype(float), np.nan)
        return StreamChange(
            length=self._ratio(length),
            pair=self._ratio(pair / length),
            pair_above=self._ratio(above),
            bound=self._ratio(bound / length),
            pair_success=self._ratio(values[..., 3]),
            exact=float(np.nanmean(values[..., 4])),
            relinearised=float(np.nanmean(np.where(needed, values[..., 5] > 1, np.nan))),
        )

    def _ratio(self, values: Numbers) -> Statistic:
        """Mean over all [n, G] that are known; the unit of resampling is the context."""
        sums, counts = np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)
        return self._bootstrap(sums, counts)

    def _share(self, y: Numbers) -> Statistic:
        """Mean of shares in [0, 1]."""
        size = len(y)
        if y.sum() in (0, size):
            return self._sized(rate(y, np.ones(size), seed=self.seed))
        return self._mean(y)

    def _mean(self, y: Numbers) -> Statistic:
        return self._bootstrap(y, np.ones(len(y)))

    def _bootstrap(self, sums: Numbers, counts: Numbers) -> Statistic:
        return self._sized(
            document_bootstrap(ratio_of_sums(sums, counts), len(sums), seed=self.seed)
        )

    def _sized(self, statistic: Statistic) -> Statistic:
        statistic = msgspec.structs.replace(statistic, n_tokens=None)
        return warned(statistic, MINIMUM, contexts=statistic.n_documents or 0)


def _told(statistic: Statistic, *caveats: str | None) -> Statistic:
    return msgspec.structs.replace(statistic, caveat=joined(*caveats, statistic.caveat))


def _mean(values: NDArray[np.floating]) -> Numbers:
    """Over the last axis, what is missing left out; every row has something."""
    mean: Numbers = np.nanmean(np.asarray(values, float), axis=-1)
    return mean


def _with_null(statistic: Statistic, draws: Numbers) -> Statistic:
    """The statistic beside what chance gives, and how much of it is as large."""
    if statistic.value is None:
        return statistic
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return msgspec.structs.replace(
        statistic,
        null_mean=float(draws.mean()),
        null_low=low,
        null_high=high,
        p=permutation_p(statistic.value, draws),
    )
