"""Headline numbers and verdicts of the study `attention_routing`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.ablation import few_draws
from moetui.analyses.attention_routing import (
    POPULARITY,
    TOKEN,
    AttentionRouting,
    Predicted,
)
from moetui.analyses.seed_prediction import AS_PUBLISHED, SeedAttention, SeedPrediction
from moetui.stats import Statistic
from moetui.stats.minimum import PREDICTION, enough, warning
from moetui.suites.moe_dynamics.telling import DIFFER, INCONCLUSIVE, agreed, experts, limits, told
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts

OUTPUT, PATTERN, CEILING = "attention output", "attention pattern", "router input"
# Recall that does not matter: one expert in a hundred.
MARGIN = 0.01
SEED_ACCURACY = 0.90
MORE, ADDS, NOTHING, UNCLEAR = (
    "foretells more than the token",
    "adds to the token",
    "nothing beyond the token",
    "unclear",
)
SEED_RULE = (
    "predictable if the top expert is foretold for more than 90 % of the prompts (mean of layers) "
    "in every model; else a complex mapping where some feature correlates with the use of some "
    "expert by |r| > 0.5, else not predictable"
)
CORRECTED_RULE = (
    "by 95 % intervals over documents, mean over the layers: "
    f"{ADDS!r} if what attention put out, together with the table of token identities, recalls at "
    f"least {MARGIN:g} more experts than with features exchanged among equal tokens and than an "
    "exchange within documents leaves of the addition (interval above both, p ≤ 0.05), and more "
    "than token and document bring about together (interval above 0, by tokens that a document has "
    "twice), and even "
    f"{MORE!r} if by itself it also recalls more than the table "
    "(gain wholly above 0 and above what features exchanged within documents gain, p ≤ 0.05 "
    "against these) and than table and features exchanged among equal tokens (likewise); "
    f"{NOTHING!r} if the addition beyond equal tokens, or that beyond token and document, lies "
    f"wholly below {MARGIN:g}; else {UNCLEAR!r}. Inconclusive below a tenth of {PREDICTION}, "
    "without an interval, without the nulls, or with too few draws of them to reach that p"
)
WHY = (
    "The published accuracy is of a map scored on the few prompts that it was fitted to, its "
    "overlap is reached by naming the same experts always, and its correlation is the largest of "
    "hundreds; the corrected recall is of documents that nothing was fitted to, beside what the "
    "token alone foretells, by a table and by the same features of its equals."
)


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model; what is missing is left out."""
    found: list[Measure] = []
    for cell in cells:
        if isinstance(cell.result, SeedAttention):
            found += seed_measures(model, cell.result.scores)
        elif isinstance(cell.result, AttentionRouting):
            found += _corrected(model, cell.result)
    return tuple(found)


def seed_measures(model: str, found: SeedPrediction) -> Iterator[Measure]:
    """The published scores, prompt by prompt, and what a constant answer reaches."""
    for told_of, name in _SCORES:
        for scores, ending in ((found.mean.fitted, ""), (found.mean.constant, CONSTANT)):
            units = tuple(getattr(one, name) for one in found.by_prompt)
            yield Measure(
                model=model,
                label="seed",
                name=f"seed {told_of}{ending}",
                statistic=Statistic(
                    value=getattr(scores, name), n_documents=found.prompts, caveat=AS_PUBLISHED
                ),
                units=None if ending else units,
            )
    if found.correlation is not None:
        yield Measure(
            model=model,
            label="seed",
            name="seed correlation, largest |r|",
            statistic=found.correlation,
        )


_SCORES: tuple[tuple[str, str], ...] = (
    ("accuracy, top expert", "accuracy"),
    ("accuracy, any overlap", "any_overlap"),
    ("experts fetched", "fetched"),
)
CONSTANT = ", always the most frequent"


def _corrected(model: str, found: AttentionRouting) -> Iterator[Measure]:
    for one in found.mean.predictors:
        for name, statistic in (
            (f"recall@k, {one.predictor}", one.recall),
            (f"gain over token identity, {one.predictor}", one.gain),
            (f"added to token identity, {one.predictor}", one.added),
            (f"recall@k, {one.predictor} of equal tokens and {TOKEN}", one.equal_tokens),
            (f"gain beyond equal tokens, {one.predictor}", one.gain_beyond),
            (f"added beyond equal tokens, {one.predictor}", one.added_beyond),
            (f"beyond token and document, {one.predictor}", one.beyond_both),
        ):
            if statistic is not None and statistic.value is not None:
                yield Measure(model=model, label="corrected", name=name, statistic=statistic)


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    own = [cell for cell in cells if cell.analysis in ("attention_prompts", "attention_routing")]
    return Verdicts(
        topic="attention_routing",
        seed=_seed(own),
        corrected=_judged(own),
        why_they_differ=WHY,
    )


def _seed(cells: Sequence[CellResult]) -> Verdict:
    found = {c.model: c.result.scores for c in cells if isinstance(c.result, SeedAttention)}
    evidence = tuple(one for model, scores in found.items() for one in seed_measures(model, scores))
    models = dict.fromkeys(cell.model for cell in cells)
    outcomes = {model: _seed_outcome(found.get(model)) for model in models}
    outcome = agreed(outcomes)
    said = "; ".join(_seed_sentence(model, scores) for model, scores in found.items())
    return Verdict(
        label="seed rule",
        outcome=outcome,
        statement=said if outcome != INCONCLUSIVE else _why_not(cells) or "nothing was measured",
        rule=SEED_RULE,
        evidence=evidence,
    )


def _seed_outcome(found: SeedPrediction | None) -> str:
    if found is None:
        return INCONCLUSIVE
    if found.mean.fitted.accuracy > SEED_ACCURACY:
        return "predictable"
    r = found.correlation
    strong = r is not None and r.value is not None and r.value > 0.5
    return "complex mapping" if strong else "not predictable"


def _seed_sentence(model: str, found: SeedPrediction) -> str:
    fitted, constant, r = found.mean.fitted, found.mean.constant, found.correlation
    largest = ""
    if r is not None and r.null_mean is not None:
        largest = (
            f", and the largest of its correlations is {told(r)} (with features exchanged among "
            f"prompts: {r.null_mean:.3f})"
        )
    return (
        f"in {model} {found.features} features of attention foretell the top expert of "
        f"{fitted.accuracy:.0%} of {found.prompts} prompts that they were fitted to (the most "
        f"frequent one always: {constant.accuracy:.0%}) and overlap with the used experts in "
        f"{fitted.any_overlap:.0%} (always the most frequent: {constant.any_overlap:.0%}; drawn at "
        f"random: {found.chance_overlap:.0%}){largest}"
    )


def _judged(cells: Sequence[CellResult]) -> Verdict:
    found = {c.model: c.result for c in cells if isinstance(c.result, AttentionRouting)}
    models = dict.fromkeys(cell.model for cell in cells)
    reasons = {
        model: reason
        for model in models
        if (reason := _insufficient(found.get(model), model, cells)) is not None
    }
    outcomes = {
        model: INCONCLUSIVE if model in reasons else corrected_outcome(_of(found[model], OUTPUT))
        for model in models
    }
    outcome = agreed(outcomes)
    told_of = [f"{model}: {reason}" for model, reason in reasons.items()]
    if outcome != INCONCLUSIVE:
        told_of = [_sentence(model, found[model], outcomes[model]) for model in models]
    lead = f"{DIFFER}: " if outcome == DIFFER else ""
    return Verdict(
        label="corrected",
        outcome=outcome,
        statement=lead + ("; ".join(told_of) or "nothing was measured"),
        rule=CORRECTED_RULE,
        evidence=tuple(
            one
            for model, result in found.items()
            for one in _corrected(model, result)
            if one.name == f"recall@k, {TOKEN}"
            or any(name in one.name for name in (OUTPUT, PATTERN, CEILING))
        ),
    )


def corrected_outcome(one: Predicted) -> str:
    """The rule on what attention put out; gain and addition have intervals and nulls."""
    gain, added, alone, both = one.gain, one.added, one.gain_beyond, one.added_beyond
    if gain is None or added is None or alone is None or both is None:
        return INCONCLUSIVE
    more, than_equals, beyond = limits(gain), limits(alone), limits(both)
    if more is None or than_equals is None or beyond is None or added.null_high is None:
        return INCONCLUSIVE
    bar = max(0.0, added.null_high) + MARGIN
    apart = None if one.beyond_both is None else limits(one.beyond_both)
    # Exchanged within documents, features hold another token in the way of the document, and tell
    # less of it than they can: only equals of a document show what is neither's.
    if beyond[0] <= bar or not _unlikely(both) or apart is None or apart[0] <= 0:
        least = beyond[1] if apart is None else min(beyond[1], apart[1])
        return NOTHING if least < MARGIN else UNCLEAR
    further = (
        more[0] > max(0.0, gain.null_high or 0.0)
        and than_equals[0] > max(0.0, alone.null_high or 0.0)
        and _unlikely(gain)
        and _unlikely(alone)
    )
    return MORE if further else ADDS


def _unlikely(statistic: Statistic) -> bool:
    return statistic.p is not None and statistic.p <= 0.05


def _insufficient(
    found: AttentionRouting | None, model: str, cells: Sequence[CellResult]
) -> str | None:
    if found is None:
        return _why_not([c for c in cells if c.model == model]) or "nothing was measured"
    sizes = {"documents": found.documents, "tokens": found.tokens}
    if enough(PREDICTION, **sizes) == "inconclusive":
        return warning(PREDICTION, **sizes)
    if found.fit_documents < LEAST_FIT:
        return f"{found.fit_documents} calibration documents, {LEAST_FIT} needed to fit"
    if OUTPUT in found.missing:
        return f"{OUTPUT}: {found.missing[OUTPUT]}"
    beyond = _of(found, OUTPUT).added_beyond
    if beyond is None:
        return "no null was drawn (shuffles=0)"
    if limits(beyond) is None:
        return beyond.caveat or "no interval"
    few = few_draws(found.shuffles)
    return None if few is None else f"{few} (shuffles={found.shuffles})"


LEAST_FIT = 10
_DOES = {
    MORE: MORE,
    ADDS: ADDS,
    NOTHING: "foretells nothing beyond the token",
    UNCLEAR: "may add to the token or not",
}


def _of(found: AttentionRouting, predictor: str) -> Predicted:
    return next(one for one in found.mean.predictors if one.predictor == predictor)


def _why_not(cells: Sequence[CellResult]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))


def _sentence(model: str, found: AttentionRouting, outcome: str) -> str:
    output, token, popular = (_of(found, name) for name in (OUTPUT, TOKEN, POPULARITY))
    added, beyond = output.added, output.added_beyond
    apart = output.beyond_both
    assert added is not None and beyond is not None and apart is not None
    left = "unknown" if added.null_mean is None else f"{added.null_mean:.3f}"
    repeated = (
        "no document has a token twice"
        if apart.value is None
        else f"of the {apart.n_tokens or 0:,} tokens that a document has twice {told(apart)} more "
        "than what is said of their equals there"
    )
    return (
        f"in {model} attention's output {_DOES[outcome]}: it recalls {told(output.recall)} "
        f"of a token's {experts(found.k)}, a table of tokens alone {told(token.recall)}, always "
        f"the most frequent {told(popular.recall)}; together with the table it recalls "
        f"{told(beyond)} more than where it is exchanged among equal tokens (than the table alone: "
        f"{told(added)}, of which {left} is left where it is exchanged within documents); "
        + repeated
    )
