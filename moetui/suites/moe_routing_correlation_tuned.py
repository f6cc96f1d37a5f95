"""The analyses of `moe_routing_correlation` that fit a tuned lens and judge it on other text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from moetui.analyses.tuned_lens import (
    FidelityRows,
    FittedLens,
    fidelity_rows,
    fitted_lens,
    lens_fidelity,
    tuned_lens_fit,
)
from moetui.suites.documents import Documents, in_parts
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo

TUNED_LENS = "tuned_lens"


class FitInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Calibration texts; of fit_documents of them the first tokens are fitted to. asked: see
    `moetui.analyses.tuned_lens.fitted_lens`."""

    texts: tuple[str, ...]
    fit_documents: int
    tokens: int
    asked: bool | None


class EvaluationInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluation texts, of which some positions of the first tokens are read."""

    texts: tuple[str, ...]
    tokens: int
    positions: int


class TunedLensAnalysis:
    """`tuned_lens`: how often each token occurs in calibration text, and translators fitted to it.

    The first is what words are matched to random tokens by, so this runs on every model.
    """

    name = TUNED_LENS
    needs: tuple[str, ...] = ()
    partial_type: Any = FittedLens

    def __init__(
        self, calibration: Documents, *, fit_documents: int, tokens: int, asked: bool | None
    ) -> None:
        self._calibration = calibration
        self._fit_documents, self._tokens, self._asked = fit_documents, tokens, asked

    def settings(self, *, seed: int) -> Any:
        """What is said of the corpus."""
        return self._calibration.used(seed)

    def unfit(self, info: ModelInfo) -> str | None:
        """A model whose lens cannot be read has no use for it."""
        return info.lens_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: the fit is a whole."""
        inputs = FitInputs(
            texts=self._calibration.texts(seed),
            fit_documents=self._fit_documents,
            tokens=self._tokens,
            asked=self._asked,
        )
        return (Part(name="fit", inputs=inputs, tokens=self._fit_documents * self._tokens),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> FittedLens:
        """Counts and fit."""
        asked: FitInputs = part.inputs
        return fitted_lens(
            model,
            asked.texts,
            fit_documents=asked.fit_documents,
            tokens=asked.tokens,
            asked=asked.asked,
            seed=seed,
            step=step,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[FittedLens], *, seed: int) -> Outcome:
        """Sizes and what stopped the training."""
        (found,) = partials
        return Outcome(tuned_lens_fit(found, self._calibration.used(seed)), found.reason)


class LensFidelityAnalysis:
    """`lens_fidelity`: how near raw and tuned lens come to the output on evaluation documents."""

    name = "lens_fidelity"
    needs: tuple[str, ...] = (TUNED_LENS,)
    partial_type: Any = FidelityRows

    def __init__(self, evaluation: Documents, *, tokens: int, positions: int) -> None:
        self._evaluation, self._tokens, self._positions = evaluation, tokens, positions

    def settings(self, *, seed: int) -> Any:
        """What is said of the corpus."""
        return self._evaluation.used(seed)

    def unfit(self, info: ModelInfo) -> str | None:
        """A model whose lens cannot be read has none to judge."""
        return info.lens_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """25 documents each."""
        return tuple(
            Part(
                name=name,
                inputs=EvaluationInputs(
                    texts=texts, tokens=self._tokens, positions=self._positions
                ),
                tokens=self._tokens * len(texts),
            )
            for name, texts in in_parts(self._evaluation.texts(seed))
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> FidelityRows:
        """KL at some positions of every document."""
        asked: EvaluationInputs = part.inputs
        return fidelity_rows(
            model,
            asked.texts,
            needs[TUNED_LENS][0].lens,
            tokens=asked.tokens,
            positions=asked.positions,
            seed=seed,
            step=step,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[FidelityRows], *, seed: int) -> Outcome:
        """Intervals over documents; a raw lens alone is a result as well."""
        if not partials:
            return Outcome(None, "no evaluation documents were asked for")
        return Outcome(lens_fidelity(partials, self._evaluation.used(seed), seed=seed))
