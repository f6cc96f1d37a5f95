"""The analyses of `merging` that change the model: single pairs, and many experts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from moetui.analyses.ablation import MARGIN, nll_of, nll_sums
from moetui.analyses.merge_front import Removal, merge_front
from moetui.analyses.merged_pairs import (
    CONTROLS,
    DEFINITION,
    Measured,
    MergedPairs,
    Trial,
    costs,
    foretold,
    mean_change,
    merged_pair,
)
from moetui.analyses.output_similarity import OUTPUT
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.weight_similarity import RAW
from moetui.suites.documents import in_parts
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.merging_plan import (
    SIMILARITIES,
    Change,
    Numbers,
    known,
    pair_trials,
    removals,
    similarities,
)
from moetui.suites.moe_dynamics.merging_similarity import OUTPUTS, WEIGHTS
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, RoutingText, routed
from moetui.suites.moe_dynamics.study import Setting
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

PAIRS = "merged_pairs"
FRONT = "merge_front"


class TrialTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluation documents from the one at `first` on; controls: rows, counted from there, on
    which random draws are tried too. draws: how many, seed_draws: for the seed's pair; shares:
    what parts are removed."""

    documents: tuple[RoutingText, ...]
    first: int
    controls: tuple[int, ...]
    max_tokens: int
    layers: LayersAsked
    draws: int
    seed_draws: int = 0
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class TriedPairs:
    """The trials, alike in all parts, their similarities [S, V], and what was measured."""

    trials: tuple[Trial, ...]
    similarities: Numbers
    measured: Measured


@dataclass(frozen=True, eq=False, kw_only=True)
class TriedRemovals:
    """The removals, alike in all parts, what was refused, and what was measured."""

    removals: tuple[Removal, ...]
    refused: tuple[str, ...]
    measured: Measured


class _Trials:
    """What both analyses have in common: evaluation documents in parts."""

    needs: tuple[str, ...] = (CALIBRATION, ROUTING, OUTPUTS, WEIGHTS)

    def __init__(
        self,
        setting: Setting,
        *,
        draws: int,
        controls: int,
        seed_draws: int = 0,
        shares: Sequence[float] = (),
    ) -> None:
        self._setting, self._draws, self._seed_draws = setting, draws, seed_draws
        self._controls, self._shares = controls, tuple(shares)

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._setting.shared.layers

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without experts that can be read."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        shared = self._setting.shared
        documents = self._setting.evaluation.sample(seed).documents
        rng = np.random.default_rng(seed)
        drawn = rng.choice(len(documents), min(self._controls, len(documents)), replace=False)
        parts, first = [], 0
        for name, some in in_parts(documents):
            mine = np.sort(drawn[(drawn >= first) & (drawn < first + len(some))]) - first
            inputs = TrialTexts(
                documents=tuple(RoutingText(d.id, d.domain, d.text) for d in some),
                first=first,
                controls=tuple(mine.tolist()),
                max_tokens=shared.tokens,
                layers=shared.layers,
                draws=self._draws,
                seed_draws=self._seed_draws,
                shares=self._shares,
            )
            parts.append(Part(name=name, inputs=inputs, tokens=self._tokens(inputs)))
            first += len(some)
        return tuple(parts)

    def _tokens(self, given: TrialTexts) -> int | None:
        """What a part runs, where the number of layers does not depend on the model."""
        if given.layers == "all":
            return None
        layers = 1 if isinstance(given.layers, str) else len(given.layers)
        whole, random = self._tries(layers)
        return given.max_tokens * (whole * len(given.documents) + random * len(given.controls))

    def _tries(self, layers: int) -> tuple[int, int]:
        """How many changes are tried on all documents, and how many on control documents."""
        return 2 * layers, layers * (self._draws + self._seed_draws)


class PairAnalysis(_Trials):
    """Single pairs, merged one at a time."""

    name = PAIRS
    partial_type: Any = TriedPairs

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> TriedPairs:
        """Every trial over the documents of the part."""
        given: TrialTexts = part.inputs
        layers = known(model, needs)
        trials, changes = pair_trials(
            layers, controls=given.draws, seed_controls=given.seed_draws, seed=seed
        )
        return TriedPairs(
            trials=tuple(trials),
            similarities=similarities(layers, trials),
            measured=_measured(model, changes, given, needs, step),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Every pair beside its controls, and what foretells the cost."""
        trials, values = partials[0].trials, partials[0].similarities
        if not trials:
            return Outcome(None, "no pair of experts could be compared")
        measured = _joined([partial.measured for partial in partials])
        own = [at for at, one in enumerate(trials) if one.kind in CONTROLS]
        fair = [at for at, one in enumerate(trials) if one.kind in ("similar", "random")]
        cost = costs(measured, trials, moved=True)
        chosen_by = {"similar": SIMILARITIES.index(OUTPUT), "seed": SIMILARITIES.index(RAW)}
        means = {
            kind: mean_change(measured, [at for at in own if trials[at].kind == kind], seed=seed)
            for kind in chosen_by
        }
        return Outcome(
            MergedPairs(
                definition=DEFINITION,
                margin=MARGIN,
                documents=len(measured.before),
                control_documents=int(np.isfinite(measured.after).all(axis=0).sum()),
                pairs=tuple(
                    merged_pair(
                        measured,
                        trials,
                        at,
                        float(values[chosen_by[trials[at].kind], at]),
                        seed=seed,
                    )
                    for at in own
                ),
                foretold=tuple(
                    foretold(
                        name,
                        [trials[at].layer for at in fair],
                        values[row, fair],
                        cost[fair],
                        seed=seed,
                    )
                    for row, name in enumerate(SIMILARITIES)
                ),
                mean=means["similar"],
                seed_mean=means["seed"],
            )
        )


class FrontAnalysis(_Trials):
    """Many experts at once, merged or pruned, in all layers asked for together."""

    name = FRONT
    partial_type: Any = TriedRemovals

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> TriedRemovals:
        """Every removal over the documents of the part."""
        given: TrialTexts = part.inputs
        found, changes, refused = removals(
            model, known(model, needs), shares=given.shares, draws=given.draws, seed=seed
        )
        return TriedRemovals(
            removals=tuple(found),
            refused=tuple(refused),
            measured=_measured(model, changes, given, needs, step),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """All points."""
        first: TriedRemovals = partials[0]
        if not first.removals:
            return Outcome(None, "; ".join(first.refused) or "no share of the experts was named")
        return Outcome(
            merge_front(
                _joined([partial.measured for partial in partials]),
                first.removals,
                routing_layers(self._setting.shared.layers, info),
                first.refused,
                seed=seed,
            )
        )

    def _tries(self, layers: int) -> tuple[int, int]:
        return 4 * len(self._shares), len(self._shares) * self._draws


def _measured(
    model: Forward, changes: Sequence[Change], given: TrialTexts, needs: Needs, step: Step
) -> Measured:
    """Every change over the documents of a part, random ones over the control documents."""
    documents = routed(needs[ROUTING])[given.first : given.first + len(given.documents)]
    after = np.full((len(changes), len(documents)), np.nan)
    moved, used = after.copy(), np.zeros(after.shape)
    for at, change in enumerate(changes):
        rows = list(given.controls) if change.on_controls else list(range(len(documents)))
        texts = [documents[row].ids for row in rows]
        found = nll_of(model, texts, change.interventions)
        after[at, rows] = nll_sums(found)
        moved[at, rows] = [
            np.abs(one - documents[row].nll).sum(dtype=float)
            for one, row in zip(found, rows, strict=True)
        ]
        used[at] = [_users(document, change, model.info) for document in documents]
        step(at + 1, len(changes))
    return Measured(
        before=nll_sums([document.nll for document in documents]),
        tokens=np.array([len(document.nll) for document in documents], float),
        after=after,
        moved=moved,
        used=used,
    )


def _users(document: RoutedDocument, change: Change, info: ModelInfo) -> int:
    """Tokens that choose an expert that the change concerns."""
    chosen = np.zeros(len(document.ids), bool)
    for layer, experts in change.concerns:
        ids = document.experts[:, info.moe_layers.index(layer)]
        chosen |= np.isin(ids, experts).any(axis=-1)
    return int(chosen.sum())


def _joined(parts: Sequence[Measured]) -> Measured:
    return Measured(
        before=np.concatenate([one.before for one in parts]),
        tokens=np.concatenate([one.tokens for one in parts]),
        after=np.concatenate([one.after for one in parts], axis=1),
        moved=np.concatenate([one.moved for one in parts], axis=1),
        used=np.concatenate([one.used for one in parts], axis=1),
    )
