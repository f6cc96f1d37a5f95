"""Headline numbers of `generation`, and its two verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.answer_routing import AnswersRouting
from moetui.analyses.generated_routing import GeneratedRouting, NaturalRouting
from moetui.analyses.persistence import Persistence
from moetui.analyses.seed_generation import SeedGeneration
from moetui.stats import Statistic
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts
from moetui.suites.wording import interval, number, probability

SEED_CONSISTENCY = "consistency from step to step"
SEED_HANDOFFS = "handoffs a generated token"
SEED_PHASES = "steps that begin a phase"
INCONCLUSIVE = "inconclusive"
LEVEL = 0.05
# The share of texts with a phase from which on generation has phases.
TEXTS = 0.05

SEED_RULE = (
    "the seed states no threshold; it calls 45.9 % consistency with phases detected dynamic "
    "routing. Read as: phases where any step of any text begins one by its rule, else no phases"
)
CORRECTED_RULE = (
    "texts that the model writes, by the overlap of neighbouring steps, mean over layers. "
    "Persistent where the overlap is beyond that of equal tokens (interval above 0, p ≤ 0.05) and "
    "beyond that of all pairs of tokens of the same text (interval above 0); text-wide where it is "
    "beyond equal tokens only; token identity where it is not, but its interval lies above chance; "
    "else chance. Phases where more than 5 % of the texts have a step beyond the token-stratified "
    "shuffle (Wilson interval above 0.05), by a false discovery rate of 5 % over texts; few phases "
    "where fewer have one; else no phases. Inconclusive below 20 texts or with data missing. "
    "Models that differ: mixed"
)
WORDS = {
    "persistent": "experts stay from token to token beyond what equal tokens and the text as a "
    "whole explain",
    "text-wide": "neighbouring tokens share more experts than equal tokens explain, but no more "
    "than any two tokens of the same text",
    "token identity": "experts stay from token to token no more than equal tokens explain",
    "chance": "experts stay from token to token no more than unrelated tokens of the same loads",
}


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model, from all its results; a number that is missing is left out."""
    return tuple(measure for cell in cells for measure in _of(model, cell))


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    seed = [(c.model, c.result) for c in cells if isinstance(c.result, SeedGeneration)]
    return Verdicts(
        seed=_seed_verdict(seed, cells),
        corrected=_corrected_verdict(tuple(dict.fromkeys(c.model for c in cells)), cells),
        why_they_differ=_why(seed),
    )


def persistence_outcome(found: Persistence) -> str:
    """The corrected rule on the mean over layers."""
    whole = found.layers[0]
    beyond, p = whole.over_tokens, whole.over_tokens.p
    if beyond.ci_low is not None and beyond.ci_low > 0 and p is not None and p <= LEVEL:
        inside = whole.over_sequence.ci_low
        return "persistent" if inside is not None and inside > 0 else "text-wide"
    overlap = whole.overlap
    above = overlap.ci_low is not None and overlap.null_mean is not None
    return (
        "token identity" if above and (overlap.ci_low or 0) > (overlap.null_mean or 0) else "chance"
    )


def phase_outcome(found: GeneratedRouting) -> str:
    """The corrected rule on phases."""
    share = found.phases.with_phase
    if found.phases.reason is not None:
        return "phases untested"
    if share.ci_low is not None and share.ci_low > TEXTS:
        return "phases"
    return "few phases" if share.value else "no phases"


def _of(model: str, cell: CellResult) -> Iterator[Measure]:
    match cell.result:
        case SeedGeneration() as found:
            known = [text.consistency for text in found.texts if text.consistency is not None]
            units = tuple(known) if len(known) == len(found.texts) else None
            yield Measure(
                model=model, label="seed", name=SEED_CONSISTENCY, statistic=found.consistency,
                units=units,
            )  # fmt: skip
            yield Measure(model=model, label="seed", name=SEED_HANDOFFS, statistic=found.handoffs)
            yield Measure(model=model, label="seed", name=SEED_PHASES, statistic=found.phase_steps)
        case GeneratedRouting() as found:
            for name, statistic in _generated(found):
                yield Measure(model=model, label="corrected", name=name, statistic=statistic)
        case NaturalRouting() as found:
            for name, statistic in _steps("documents", found.persistence):
                yield Measure(model=model, label="corrected", name=name, statistic=statistic)
        case AnswersRouting() as found:
            for one in found.differences:
                yield Measure(
                    model=model,
                    label="corrected",
                    name=f"{one.what}, wrong less right answers of one kind",
                    statistic=one.difference,
                )


def _generated(found: GeneratedRouting) -> Iterator[tuple[str, Statistic]]:
    yield from _steps("written texts", found.persistence)
    yield "texts with a phase beyond equal tokens", found.phases.with_phase
    yield "distance of windows over equal tokens", found.phases.over_tokens
    if found.decode is not None:
        name = "tokens whose experts differ between decoding and prefill, a layer"
        yield name, found.decode.overall.differs


def _steps(what: str, found: Persistence) -> Iterator[tuple[str, Statistic]]:
    whole = found.layers[0]
    yield f"overlap of neighbouring steps, {what}", whole.overlap
    yield f"overlap over equal tokens, {what}", whole.over_tokens
    yield f"overlap over all pairs of the text, {what}", whole.over_sequence


def _seed_verdict(
    found: Sequence[tuple[str, SeedGeneration]], cells: Sequence[CellResult]
) -> Verdict:
    if not found:
        said = _reasons(cells) or "the seed's prompts were not continued"
        return _verdict("seed rule", INCONCLUSIVE, f"inconclusive: {said}", SEED_RULE, ())
    outcomes = {"phases" if any(t.phases for t in one.texts) else "no phases" for _, one in found}
    said = outcomes.pop() if len(outcomes) == 1 else "mixed"
    told = "; ".join(
        f"{model}: consistency {number(one.consistency.value)}, {number(one.handoffs.value)} "
        f"handoffs a token, phases in {sum(bool(t.phases) for t in one.texts)} of "
        f"{len(one.texts)} texts"
        for model, one in found
    )
    evidence = tuple(
        measure
        for model, _ in found
        for measure in measures(model, [c for c in cells if c.model == model])
        if measure.label == "seed"
    )
    return _verdict("seed rule", said, f"{said}: {told}", SEED_RULE, evidence)


def _corrected_verdict(models: Sequence[str], cells: Sequence[CellResult]) -> Verdict:
    outcomes, told, evidence = [], [], []
    for model in models:
        own = [cell for cell in cells if cell.model == model]
        found = next((c.result for c in own if isinstance(c.result, GeneratedRouting)), None)
        evidence += [one for one in measures(model, own) if one.label == "corrected"]
        if found is None or found.reason is not None:
            reason = found.reason if found is not None else _reasons(own)
            outcomes.append(INCONCLUSIVE)
            told.append(f"{model}: inconclusive: {reason or 'no text was written'}")
        else:
            said, phase = persistence_outcome(found.persistence), phase_outcome(found)
            outcomes.append(f"{said}, {phase}")
            answers = next((c.result for c in own if isinstance(c.result, AnswersRouting)), None)
            told.append(f"{model}: {WORDS[said]} ({_numbers(found)}); {_phases(found, phase)}")
            told[-1] += _decode(found) + _answers(answers)
    said = INCONCLUSIVE if not outcomes or INCONCLUSIVE in outcomes else "mixed"
    if said == "mixed" and len(set(outcomes)) == 1:
        said = outcomes[0]
    return _verdict("corrected", said, "; ".join(told), CORRECTED_RULE, tuple(evidence))


def _numbers(found: GeneratedRouting) -> str:
    whole = found.persistence.layers[0]
    return (
        f"overlap {number(whole.overlap.value)} {interval(whole.overlap)}, chance "
        f"{number(whole.overlap.null_mean)}; over equal tokens "
        f"{number(whole.over_tokens.value)} {interval(whole.over_tokens)}, p "
        f"{probability(whole.over_tokens.p)}; over all pairs of the text "
        f"{number(whole.over_sequence.value)} {interval(whole.over_sequence)}; {found.texts} texts"
    )


def _phases(found: GeneratedRouting, outcome: str) -> str:
    share, changes = found.phases.with_phase, found.phases.changes
    if outcome == "phases untested":
        return f"phases were not tested: {found.phases.reason}"
    inside = sum(change.generated for change in changes)
    return (
        f"{outcome}: {number(share.value)} {interval(share)} of {found.phases.texts} texts have a "
        f"step beyond equal tokens, {inside} of these {len(changes)} steps in what was written"
    )


def _decode(found: GeneratedRouting) -> str:
    if found.decode is None:
        return ""
    differs, near = found.decode.overall.differs, found.decode.overall.near_ties
    if not differs.value:
        return f"; decoding chooses as prefill does, in all {found.decode.tokens:,} tokens"
    return (
        f"; decoding and prefill of the same text choose other experts in "
        f"{number(differs.value)} of tokens a layer, {number(near.value)} of these near ties"
    )


def _answers(found: AnswersRouting | None) -> str:
    if found is None:
        return ""
    reason = f" ({found.reason})" if found.reason else ""
    return f"; right against wrong answers: {found.verdict}{reason}"


def _verdict(
    label: str, said: str, statement: str, rule: str, evidence: tuple[Measure, ...]
) -> Verdict:
    return Verdict(label=label, outcome=said, statement=statement, rule=rule, evidence=evidence)


def _reasons(cells: Sequence[CellResult]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))


def _why(found: Sequence[tuple[str, SeedGeneration]]) -> str:
    chance = "; ".join(
        f"{model}: {number(one.phase_steps.value)} of the steps begin a phase, "
        f"{number(one.phase_steps.null_mean)} with the steps in random order"
        for model, one in found
    )
    return (
        "The seed compares one step's experts with the union of three steps before, which differ "
        "by more than its threshold even where nothing changes"
        f"{f' ({chance})' if chance else ''}, and gives its consistency without the overlap that "
        "popular experts and repeated tokens have anyway; the corrected numbers stand beside both."
    )
