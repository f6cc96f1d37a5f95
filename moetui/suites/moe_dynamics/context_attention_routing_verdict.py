"""Headline numbers and both verdicts of `context_attention_routing`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from moetui.analyses.context_attention_routing import ContextAttentionRouting, SeedLayer
from moetui.stats import Statistic, equivalent
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts

LEVEL = 0.05
# Within so much a correlation counts as none.
MARGIN = 0.1
STRONG, WEAK = 0.5, 0.2
INCONCLUSIVE = "inconclusive"

MIDDLE = "seed correlation, middle layer"
MEAN = "seed correlation, mean of layers"
RAW = "attention and routing, mean of layers > 0"
BEYOND = "attention and routing beyond the rest, mean of layers > 0"
HIDDEN = "hidden state and routing, mean of layers > 0"

SEED_RULE = (
    f"the correlation, mean over layers, lowest model: strong from {STRONG}, context-dependent "
    f"from {WEAK}, else weak (the seed's words; its text states no thresholds)"
)
CORRECTED_RULE = (
    "mean over target tokens of the rank correlation of attention and routing, mean of layers > 0: "
    "attention matters: beyond length, the token before and the hidden state it is above "
    f"{MARGIN:g}, as much as their other forms may leave (95 % interval, over tokens and the "
    f"documents that they share, p ≤ {LEVEL:g}); shared causes: it is above 0, and beyond these "
    f"within ±{MARGIN:g}; no relation: within ±{MARGIN:g} as it is; else unclear. Where models "
    "differ, every one is told. Inconclusive below a tenth of 30 contexts or 20 tokens, without "
    "an interval, or without attention"
)


class _Answer(msgspec.Struct, frozen=True):
    """What one model's numbers say, in a word and a sentence."""

    outcome: str
    statement: str


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model; a number that is missing is left out."""
    return tuple(
        Measure(model=model, label=label, name=name, statistic=statistic)
        for found in _results(model, cells)
        for label, name, statistic in _named(found)
        if statistic.value is not None
    )


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    return Verdicts(
        seed=_seed(models, cells),
        corrected=_corrected(models, cells),
        why_they_differ=(
            "The seed correlates pairs of sixteen contexts of one token as if they were "
            "independent, and compares attention position by position from the start of texts of "
            "different length, so that length alone makes tables alike; the corrected number "
            "permutes contexts, takes out what length, the token before and the hidden state "
            "explain, and asks many tokens."
        ),
    )


def _named(
    found: ContextAttentionRouting,
) -> Iterator[tuple[Literal["seed", "corrected"], str, Statistic]]:
    layers = found.seed.layers
    if layers:
        yield "seed", MEAN, _seed_mean(layers)
        yield "seed", MIDDLE, layers[len(layers) // 2].correlation
    yield "corrected", RAW, found.mean.raw
    yield "corrected", BEYOND, found.mean.partial
    yield "corrected", HIDDEN, found.mean.hidden


def _seed_mean(layers: Sequence[SeedLayer]) -> Statistic:
    known = [one.correlation.value for one in layers if one.correlation.value is not None]
    return msgspec.structs.replace(
        layers[0].correlation, value=float(np.mean(known)) if known else None
    )


def _results(model: str, cells: Sequence[CellResult]) -> list[ContextAttentionRouting]:
    return [
        cell.result
        for cell in cells
        if cell.model == model and isinstance(cell.result, ContextAttentionRouting)
    ]


def _seed(models: Sequence[str], cells: Sequence[CellResult]) -> Verdict:
    means = {
        model: _seed_mean(found.seed.layers).value
        for model in models
        for found in _results(model, cells)
        if found.seed.layers
    }
    known = {model: mean for model, mean in means.items() if mean is not None}
    evidence = _evidence(models, cells, "seed")
    if not known:
        reasons = {f.seed.reason for m in models for f in _results(m, cells) if f.seed.reason}
        reasons |= {cell.reason for cell in cells if cell.reason} if not reasons else set()
        told = "inconclusive: " + ("; ".join(sorted(reasons)) or "not measured")
        return _verdict("seed rule", INCONCLUSIVE, told, SEED_RULE, evidence)
    lowest = min(known.values())
    outcome = "strong" if lowest >= STRONG else "context-dependent" if lowest >= WEAK else "weak"
    said = ", ".join(f"{mean:.2f} ({model})" for model, mean in known.items())
    told = f"{outcome}: attention and routing of the target's contexts correlate by {said}"
    absent = [model for model in models if model not in known]
    if absent:
        told += f"; not measured: {', '.join(absent)}"
    return _verdict("seed rule", outcome, told, SEED_RULE, evidence)


def _corrected(models: Sequence[str], cells: Sequence[CellResult]) -> Verdict:
    answers = {model: _answer([c for c in cells if c.model == model]) for model in models}
    outcomes = list(dict.fromkeys(one.outcome for one in answers.values()))
    outcome = outcomes[0] if len(outcomes) == 1 else "models differ"
    if not outcomes or INCONCLUSIVE in outcomes:
        outcome = INCONCLUSIVE
    told = "; ".join(f"{m}: {one.outcome}: {one.statement}" for m, one in answers.items())
    evidence = _evidence(models, cells, "corrected")
    return _verdict("corrected", outcome, told or "no model was read", CORRECTED_RULE, evidence)


def _answer(cells: Sequence[CellResult]) -> _Answer:
    found = next((c.result for c in cells if isinstance(c.result, ContextAttentionRouting)), None)
    if found is None or found.reason is not None:
        reasons = [c.reason for c in cells if c.reason is not None]
        return _Answer(INCONCLUSIVE, "; ".join(dict.fromkeys(reasons)) or "not measured")
    raw, beyond = found.mean.raw, found.mean.partial
    if raw.ci_low is None or beyond.ci_low is None:
        return _Answer(INCONCLUSIVE, raw.caveat or beyond.caveat or "no interval")
    return _Answer(_outcome(raw, beyond), _told(found))


def _outcome(raw: Statistic, beyond: Statistic) -> str:
    # What ranks do not take out of a common cause can leave a small rest that is surely above 0.
    if _above(beyond, MARGIN):
        return "attention matters"
    if _above(raw) and equivalent(beyond, MARGIN).outcome == "equivalent":
        return "shared causes"
    return "no relation" if equivalent(raw, MARGIN).outcome == "equivalent" else "unclear"


def _above(statistic: Statistic, least: float = 0.0) -> bool:
    above = statistic.ci_low is not None and statistic.ci_low > least
    return above and statistic.p is not None and statistic.p <= LEVEL


def _told(found: ContextAttentionRouting) -> str:
    raw, beyond, hidden = found.mean.raw, found.mean.partial, found.mean.hidden
    return (
        f"over {len(found.targets)} tokens in {found.fewest} contexts or more, attention and "
        f"routing correlate by {_shown(raw)}, by {_shown(beyond)} beyond length, the token before "
        f"and the hidden state, which itself goes with routing by {_shown(hidden)}"
    )


def _shown(statistic: Statistic) -> str:
    if statistic.value is None:
        return "nothing that could be measured"
    if statistic.ci_low is None:
        return f"{statistic.value:.2f}"
    return f"{statistic.value:.2f} [{statistic.ci_low:.2f}, {statistic.ci_high:.2f}]"


def _evidence(
    models: Sequence[str], cells: Sequence[CellResult], label: str
) -> tuple[Measure, ...]:
    return tuple(one for model in models for one in measures(model, cells) if one.label == label)


def _verdict(
    label: str, outcome: str, statement: str, rule: str, evidence: tuple[Measure, ...]
) -> Verdict:
    return Verdict(label=label, outcome=outcome, statement=statement, rule=rule, evidence=evidence)
