"""Fitting and judging: tokens are scanned and searched on calibration contexts, then tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.manipulation import joined_checks, manipulation
from moetui.analyses.manipulation_check import DRAWS, METHODS, Checked, Fitted, check_contexts
from moetui.analyses.manipulation_fit import (
    ManipulationFit,
    ScannedTarget,
    TokenScan,
    fitted_targets,
)
from moetui.analyses.manipulation_targets import Target, TokenChange, cut, reached
from moetui.analyses.token_search import (
    DOSES,
    STARTS,
    Search,
    best_token,
    candidate_tokens,
    fitted_dose,
    raised,
    scan_counts,
    search_tokens,
)
from moetui.suites.documents import in_parts, some_of
from moetui.suites.moe_dynamics.manipulation_plan import (
    Fitting,
    Plan,
    contexts_for_fit,
    targets_of,
)
from moetui.suites.moe_dynamics.routing import CALIBRATION, routed
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import AddLogits, Forward, ModelInfo

SCAN, FIT = "token_scan", "manipulation_fit"
# Where a scanned token is put: at the position, and before it.
ROWS = (0, -1)
_SLICES = 4
_NO_CONTEXT = "no document is as long as a context"


class ScanInputs(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of the vocabulary, at one row."""

    fitting: Fitting
    row: int
    tokens: int | None
    slice: int


@dataclass(frozen=True, eq=False)
class Scanned:
    """candidates: int32 [C]; counts: int32 [targets, C], see `scan_counts`."""

    targets: tuple[Target, ...]
    row: int
    contexts: int
    candidates: NDArray[np.int32]
    counts: NDArray[np.int32]


class TokenScanAnalysis:
    """Every candidate token, at the position and before it."""

    name = SCAN
    needs: tuple[str, ...] = (CALIBRATION,)
    partial_type: Any = Scanned

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the parts."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """A few slices of the candidates at each row."""
        own = self._plan.own
        tokens = own.scan_tokens
        each = own.fit_contexts * own.context_tokens
        return tuple(
            Part(
                name=f"tokens {one + 1}/{_SLICES} at row {row}",
                inputs=ScanInputs(fitting=self._plan.fitting, row=row, tokens=tokens, slice=one),
                tokens=None if tokens is None else each * tokens // _SLICES,
            )
            for row in ROWS
            for one in range(_SLICES)
        )

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Scanned:
        """One short pass for every token and context."""
        given: ScanInputs = part.inputs
        calibration = routed(needs[CALIBRATION])
        targets = targets_of(model, given.fitting, calibration, seed=seed)
        contexts, _ = contexts_for_fit(given.fitting, calibration, seed=seed)
        candidates = candidate_tokens(model.info.vocab_size, given.tokens, seed=seed)
        candidates = candidates[given.slice :: _SLICES]
        position = given.fitting.context_tokens - 1
        counts = np.zeros((len(targets), len(candidates)), np.int32)
        for done, context in enumerate(contexts, 1):
            counts += scan_counts(model, context[None], position, given.row, candidates, targets)
            step(done, len(contexts))
        return Scanned(targets, given.row, len(contexts), candidates, counts)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """How well the best token did where it was chosen."""
        scans = [whole_scan(partials, row) for row in ROWS]
        first = scans[0]
        if not first.contexts:
            return Outcome(None, _NO_CONTEXT)
        targets = tuple(
            ScannedTarget(
                target=str(target),
                best=tuple(float(one.counts[at].max() / one.contexts) for one in scans),
                mean=tuple(float(one.counts[at].mean() / one.contexts) for one in scans),
            )
            for at, target in enumerate(first.targets)
        )
        return Outcome(
            TokenScan(
                candidates=len(first.candidates),
                vocabulary=info.vocab_size,
                contexts=first.contexts,
                targets=targets,
            )
        )


def whole_scan(partials: Sequence[Scanned], row: int) -> Scanned:
    """All slices at one row."""
    own = [one for one in partials if one.row == row]
    return Scanned(
        own[0].targets,
        row,
        own[0].contexts,
        np.concatenate([one.candidates for one in own]),
        np.concatenate([one.counts for one in own], axis=1),
    )


class FitInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Every so many-th target, from `slice` on."""

    fitting: Fitting
    search: Search
    slice: int


@dataclass(frozen=True, eq=False)
class FittedPart:
    """Some of the targets; texts: the tokens put in, as text."""

    fitted: tuple[Fitted, ...]
    texts: tuple[tuple[str, ...], ...]
    contexts: int
    gradient_error: str | None


class ManipulationFitAnalysis:
    """For every target the best scanned tokens, tokens found by gradients, and a dose."""

    name = FIT
    needs: tuple[str, ...] = (CALIBRATION, SCAN)
    partial_type: Any = FittedPart

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the parts."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The targets of a model are not known here: every fourth one in each part."""
        return tuple(
            Part(
                name=f"targets {one + 1}/{_SLICES}",
                inputs=FitInputs(fitting=self._plan.fitting, search=self._plan.search, slice=one),
                tokens=self._tokens() // _SLICES,
            )
            for one in range(_SLICES)
        )

    def _tokens(self) -> int:
        """Of all targets, as if three layers were asked for; a gradient counts as three passes."""
        own = self._plan.own
        layers = self._plan.setting.shared.layers
        count = 1 if isinstance(layers, str) else len(layers)
        tried = own.fit_contexts * (STARTS + own.search_steps * own.search_candidates)
        slopes = own.search_steps * own.gradient_contexts * 4
        rest = own.fit_contexts * (2 * len(DOSES) + len(METHODS))
        return (count * own.targets + 1) * (tried + slopes + rest) * own.context_tokens

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> FittedPart:
        """Searches, one target after the other."""
        given: FitInputs = part.inputs
        calibration = routed(needs[CALIBRATION])
        contexts, _ = contexts_for_fit(given.fitting, calibration, seed=seed)
        position = given.fitting.context_tokens - 1
        scans = [whole_scan(needs[SCAN], row) for row in ROWS]
        every = scans[0].targets if len(contexts) else ()
        mine = range(given.slice, len(every), _SLICES)
        fitted = []
        for at in mine:
            changes = [best_token(scan.counts[at], scan.candidates, scan.row) for scan in scans]
            changes.append(
                search_tokens(
                    model, contexts[:, : position + 1], position, every[at], given.search,
                    seed=seed,
                )
            )  # fmt: skip
            fitted.append(_fitted(model, contexts, position, every[at], changes))
            step(len(fitted), len(mine))
        texts = tuple(
            tuple("".join(map(model.token_text, change.tokens)) for change in one.changes)
            for one in fitted
        )
        return FittedPart(tuple(fitted), texts, len(contexts), model.router_gradient_error)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What was found for every target."""
        fitted, texts = whole_fit(partials)
        if not fitted:
            return Outcome(None, _NO_CONTEXT)
        return Outcome(
            ManipulationFit(
                contexts=partials[0].contexts,
                gradient_error=partials[0].gradient_error,
                targets=fitted_targets(fitted, texts),
            )
        )


def whole_fit(
    partials: Sequence[FittedPart],
) -> tuple[tuple[Fitted, ...], tuple[tuple[str, ...], ...]]:
    """All targets in their order: they were dealt out in turn."""
    most = max(len(one.fitted) for one in partials)
    pairs = [
        (one.fitted[at], one.texts[at])
        for at in range(most)
        for one in partials
        if at < len(one.fitted)
    ]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def _fitted(
    model: Forward,
    contexts: NDArray[np.int32],
    position: int,
    target: Target,
    changes: Sequence[TokenChange],
) -> Fitted:
    """With the share of the fitted contexts that each reaches, and the dose."""
    shares = []
    for change in changes:
        read = model.read_contexts(change.applied(contexts, position), position)
        shares.append(float(reached(read.experts, model.info.moe_layers, target).mean()))
    dose = fitted_dose(model, contexts, position, target)
    added = raised(model, contexts, position, target, dose)
    return Fitted(
        target=target,
        changes=tuple(changes),
        fit=tuple(shares),
        raised=tuple(one for one in added if isinstance(one, AddLogits)),
    )


class CheckInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Documents whose beginnings are the contexts."""

    fitting: Fitting
    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CheckedPart:
    """What was found in some contexts; None where no document was long enough."""

    checked: Checked | None
    too_short: int
    fitted: tuple[Fitted, ...]
    texts: tuple[tuple[str, ...], ...]


class ManipulationAnalysis:
    """Everything that was fitted, in contexts of evaluation documents, beside its controls."""

    name = "manipulation"
    needs: tuple[str, ...] = (CALIBRATION, FIT)
    partial_type: Any = CheckedPart

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> Any:
        """What is said of the corpus, and of the contexts."""
        return [self._plan.fitting, self._plan.setting.evaluation.used(seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        plan = self._plan
        documents = plan.setting.evaluation.sample(seed).documents
        some = some_of([one.text for one in documents], plan.own.contexts, seed)
        return tuple(
            Part(
                name=name,
                inputs=CheckInputs(fitting=plan.fitting, texts=texts),
                tokens=len(texts) * self._tokens(),
            )
            for name, texts in in_parts(some)
        )

    def _tokens(self) -> int:
        """Of one context, as if three layers were asked for by a list of three."""
        plan, layers = self._plan, self._plan.setting.shared.layers
        count = 1 if isinstance(layers, str) else len(layers)
        tried = (count * plan.own.targets + 1) * len(METHODS) * plan.length
        return tried + (4 * DRAWS + 1) * plan.own.context_tokens + plan.length

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> CheckedPart:
        """Short passes in batches; the stream's changes context by context."""
        given: CheckInputs = part.inputs
        length = given.fitting.context_tokens + given.fitting.after
        contexts = cut((model.tokenize(text) for text in given.texts), length)
        fitted, texts = whole_fit(needs[FIT])
        short = len(given.texts) - len(contexts)
        if not len(contexts) or not fitted:
            return CheckedPart(None, short, fitted, texts)
        _, donors = contexts_for_fit(given.fitting, routed(needs[CALIBRATION]), seed=seed)
        position = given.fitting.context_tokens - 1
        found = check_contexts(model, contexts, position, fitted, donors, seed=seed, step=step)
        return CheckedPart(found, short, fitted, texts)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Success, its nulls and its price, with intervals over contexts."""
        parts = [one.checked for one in partials if one.checked is not None]
        if not parts:
            return Outcome(None, _NO_CONTEXT)
        own = self._plan.own
        found = manipulation(
            joined_checks(parts),
            partials[0].fitted,
            partials[0].texts,
            info.num_experts,
            tokens=own.context_tokens,
            after=own.after,
            too_short=sum(one.too_short for one in partials),
            corpus=self._plan.setting.evaluation.used(seed),
            seed=seed,
        )
        return Outcome(found, found.reason)
