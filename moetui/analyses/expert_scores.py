"""Scores by which experts are pruned: how often, how strongly, how strongly when they are asked.

Frequency f_e; EAN, the sum of an expert's output norms over its tokens; REAP, the mean of weight
times output norm over its tokens (arXiv 2510.13999). All on calibration documents: what is
dropped by them is judged on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.cold_load import Loads, loads
from moetui.analyses.routed import RoutedDocument
from moetui.stats import Statistic, document_intervals
from moetui.trace import ModelInfo
from moetui.trace.types import Floats

Array = NDArray[np.float64]
Score = Literal["reap", "ean", "frequency"]

# Super experts (arXiv 2507.23279, section 3): the largest output of an expert lies beyond the
# 99.5th percentile of those of all experts and above a tenth of the largest of them all.
SUPER_PERCENTILE, SUPER_OF_LARGEST = 99.5, 0.1
# There, only layers count in which massive activations arise. Where nothing is massive the two
# rules above still name somebody, so the largest output must be so many times that of the median
# expert as well.
SUPER_OF_MEDIAN = 10.0
NO_OUTPUTS = "the model does not show what single experts put out: neither EAN, REAP nor super"
UNUSED = "no token used it, so there is nothing to take a mean of"


class ExpertScore(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of one expert of a decoder layer, with intervals over documents.

    frequency: f_e. ean: Σ‖f_e‖ over its tokens; reap: mean of g_e‖f_e‖ over its tokens (of ‖f_e‖
    where the weight scales what the expert reads, and is in its output already). largest: the
    largest ‖f_e‖ of any token. super_expert: see the module; never to be pruned. The last four
    None where outputs are not known.
    """

    layer: int
    expert: int
    frequency: Statistic
    ean: Statistic | None
    reap: Statistic | None
    largest: float | None
    super_expert: bool | None


class ExpertScores(msgspec.Struct, frozen=True, kw_only=True, tag="expert_scores"):
    """Scores of all experts on calibration documents; super_rule: what makes a super expert;
    caveat: what is not known."""

    n_documents: int
    n_tokens: int
    experts: tuple[ExpertScore, ...]
    super_rule: str
    caveat: str | None


@dataclass(frozen=True, eq=False)
class OutputSums:
    """By document, of every expert of every layer: norms [D, L, E], Σ‖f_e‖; weighted [D, L, E],
    Σ g_e‖f_e‖; and largest [L, E], the largest ‖f_e‖ of all."""

    norms: Array
    weighted: Array
    largest: Array


def output_sums(documents: Sequence[RoutedDocument], info: ModelInfo) -> OutputSums | None:
    """None where the outputs of experts are not known."""
    L, E = len(info.moe_layers), info.num_experts
    norms, weighted = np.zeros((2, len(documents), L, E))
    largest = np.zeros((L, E))
    for at, one in enumerate(documents):
        if one.output_norms is None:
            return None
        weights = np.ones_like(one.weights) if info.weights_scale_input else one.weights
        norms[at] = _by_expert(one, one.output_norms, E)
        weighted[at] = _by_expert(one, np.abs(weights) * one.output_norms, E)
        rows, cells = _rows(one), one.experts.astype(np.int64)
        used = one.experts >= 0
        np.maximum.at(largest, (rows[used], cells[used]), one.output_norms[used])
    return OutputSums(norms, weighted, largest)


def super_experts(largest: Array) -> NDArray[np.bool_]:
    """Which of the experts with these largest outputs [L, E] are super experts."""
    known = largest[largest > 0]
    if not len(known):
        return np.zeros(largest.shape, bool)
    high = max(
        float(np.percentile(known, SUPER_PERCENTILE)),
        SUPER_OF_LARGEST * float(known.max()),
        SUPER_OF_MEDIAN * float(np.median(known)),
    )
    # The percentile of few experts is a little below the largest, and is it with one of them.
    return np.asarray(largest >= high)


def expert_scores(
    documents: Sequence[RoutedDocument], info: ModelInfo, *, seed: int
) -> ExpertScores:
    """Scores of every expert of every layer on `documents` (at least one)."""
    load, outputs = loads(documents, info), output_sums(documents, info)
    flagged = None if outputs is None else super_experts(outputs.largest)
    experts: list[ExpertScore] = []
    for row, (layer, E) in enumerate(zip(info.moe_layers, load.experts, strict=True)):
        frequency, ean, reap = _layer(load, outputs, row, E, seed)
        experts += [
            ExpertScore(
                layer=layer,
                expert=expert,
                frequency=frequency[expert],
                ean=None if ean is None else ean[expert],
                reap=None if reap is None else reap[expert],
                largest=None if outputs is None else float(outputs.largest[row, expert]),
                super_expert=None if flagged is None else bool(flagged[row, expert]),
            )
            for expert in range(E)
        ]
    return ExpertScores(
        n_documents=len(documents),
        n_tokens=int(load.tokens.sum()),
        experts=tuple(experts),
        super_rule=(
            f"largest output norm at or beyond the {SUPER_PERCENTILE}th percentile of all experts, "
            f"{SUPER_OF_LARGEST:g} of the largest, and {SUPER_OF_MEDIAN:g} times the median"
        ),
        caveat=NO_OUTPUTS if outputs is None else None,
    )


def ranking(documents: Sequence[RoutedDocument], info: ModelInfo, score: Score) -> Array | None:
    """[L, E], by which experts are pruned, lowest first; an expert that no token used has 0.
    None where the score needs outputs that are not known."""
    load = loads(documents, info)
    hits = load.counts.sum(axis=0)
    if score == "frequency":
        return np.asarray(hits / load.tokens.sum())
    outputs = output_sums(documents, info)
    if outputs is None:
        return None
    sums = (outputs.norms if score == "ean" else outputs.weighted).sum(axis=0)
    return sums if score == "ean" else np.asarray(sums / np.maximum(hits, 1))


def _layer(
    load: Loads, outputs: OutputSums | None, row: int, E: int, seed: int
) -> tuple[list[Statistic], list[Statistic] | None, list[Statistic] | None]:
    """Frequency, EAN and REAP of the experts of one layer."""
    hits = load.counts[:, row, :E].astype(float)
    norms, weighted = np.zeros((2, *hits.shape))
    if outputs is not None:
        norms, weighted = outputs.norms[:, row, :E], outputs.weighted[:, row, :E]

    def estimate(weights: Array) -> Array:
        used = weights @ hits
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (weights @ weighted) / used
        shares = used / (weights @ load.tokens)[:, None]
        found: Array = np.stack([shares, weights @ norms, mean]).transpose(0, 2, 1)
        return found

    intervals = document_intervals(estimate, len(load.tokens), seed=seed)
    size = int(load.tokens.sum())
    told = [
        [
            intervals.statistic(
                (kind, expert),
                n_tokens=size if kind == 0 else int(hits[:, expert].sum()),
                caveat=UNUSED if kind == 2 and not hits[:, expert].any() else None,
            )
            for expert in range(E)
        ]
        for kind in range(3)
    ]
    return told[0], *((told[1], told[2]) if outputs is not None else (None, None))


def _rows(one: RoutedDocument) -> NDArray[np.int_]:
    """[T, L, k]: the row of every choice's layer."""
    return np.broadcast_to(np.arange(one.experts.shape[1])[:, None], one.experts.shape)


def _by_expert(one: RoutedDocument, values: Floats, num_experts: int) -> Array:
    """[L, E]: sums of values [T, L, k] over the tokens that chose each expert."""
    used = one.experts >= 0
    cells = _rows(one) * num_experts + one.experts
    L = one.experts.shape[1]
    sums = np.bincount(cells[used], weights=values[used], minlength=L * num_experts)
    found: Array = sums.reshape(L, num_experts).astype(float)
    return found
