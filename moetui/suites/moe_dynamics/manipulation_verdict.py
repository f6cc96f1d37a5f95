"""Headline numbers and verdicts of `manipulation`: the seed's question, and held-out success."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from moetui.analyses.manipulation import MINIMUM, Effect, Manipulation
from moetui.analyses.manipulation_check import AT, BEFORE, INPUTS, STREAM, TOKENS
from moetui.analyses.manipulation_fit import SeedManipulation
from moetui.analyses.manipulation_targets import SEQUENCE
from moetui.analyses.misrouting import Misrouting
from moetui.analyses.paraphrase import Paraphrase
from moetui.analyses.routing_robustness import RoutingRobustness
from moetui.stats import Statistic
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts
from moetui.suites.wording import claim

LEVEL = 0.05
MOSTLY = 0.5
# Success beyond random tokens that counts as none: "no effect" has to be shown, too.
MARGIN = 0.1
INCONCLUSIVE = "inconclusive"
FORCED, PARTLY, BY_TOKEN, UNCLEAR, NOT = (
    "manipulable",
    "partly manipulable",
    "by its own token only",
    "unclear",
    "not manipulable",
)
CHANGE = "change of the sets"
SEED_SEQUENCE = "sequence reached at the prompt's last token by optimised tokens, share of experts"
SEED_STABILITY = "the prompt's sets under single typing errors, Jaccard"
SEED_RULE = (
    "“Can we craft inputs that force specific routing patterns?”: manipulable if the optimised "
    "tokens reach every expert of the sequence at the prompt's last token, partly if more of them "
    "than the prompt itself reaches, else not. The seed's own run never ended: it reports none"
)
CORRECTED_RULE = (
    "by held-out success@k of three tokens before the position, mean over the one-expert targets "
    f"(rarest and random): manipulable if its 95 % interval lies above {MOSTLY} and beyond random "
    "tokens (paired excess above 0 by its interval, p ≤ .05) in every model; partly if beyond "
    "random tokens in every model; by its own token only if just the token at the position is "
    f"beyond random ones; not manipulable if the excess of both is below {MARGIN} by its interval; "
    "unclear otherwise, or where models differ in more than how far. Inconclusive below a tenth of "
    f"{MINIMUM}, without an interval, or with data missing"
)
STATEMENTS = {
    FORCED: "tokens before a position force one chosen expert there in most unseen contexts",
    PARTLY: "tokens before a position bring a chosen expert in more often than random tokens do, "
    "but do not force it",
    BY_TOKEN: "only the token at the position itself moves its routing to a chosen expert",
    UNCLEAR: "the contexts neither show that fitted tokens do more than random ones nor that they "
    "do not, or the models differ",
    NOT: "no token that was fitted, at the position or before it, does more than random ones",
}


def measures(model: str, cells: Sequence[CellResult]) -> Iterator[Measure]:
    """Of one model; a number that is missing is left out."""
    for cell in cells:
        found = cell.result
        if isinstance(found, SeedManipulation):
            yield _measure(model, SEED_SEQUENCE, found.after, "seed")
        elif isinstance(found, Manipulation):
            yield from _success(model, found)
        elif isinstance(found, Misrouting):
            yield _measure(model, f"attack within {found.bound:g} nats: {CHANGE}", found.attack)
            yield _measure(model, "attack beyond a typical swap within the bound", found.beyond)
        elif isinstance(found, RoutingRobustness):
            if found.prompt is not None:
                yield _measure(model, SEED_STABILITY, found.prompt, "seed")
            for one in found.perturbations:
                if one.change is not None:
                    yield _measure(model, f"{one.name}: {CHANGE}", one.change)
        elif isinstance(found, Paraphrase):
            yield _measure(model, f"another wording: {CHANGE}", found.change)


def _success(model: str, found: Manipulation) -> Iterator[Measure]:
    yield _measure(model, "untouched: success@k, one expert", found.untouched)
    for effect in found.mean:
        if effect.success is not None:
            yield _measure(model, f"{effect.method}: success@k, one expert", effect.success)
        if effect.excess is not None:
            yield _measure(model, f"{effect.method}: beyond random", effect.excess)
        if effect.kl is not None and effect.method != AT:
            yield _measure(model, f"{effect.method}: KL of the next token, nats", effect.kl)
    for target in found.targets:
        if target.role == SEQUENCE:
            for effect in target.effects:
                if effect.method in INPUTS and effect.success is not None:
                    name = f"{effect.method}: success@k, whole sequence"
                    yield _measure(model, name, effect.success)
    if found.stream is not None:
        yield _measure(model, f"{STREAM}: length over the stream's", found.stream.length)
        yield _measure(model, "pair formula: success@k", found.stream.pair_success)


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both, over all models."""
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    seed = {c.model: c.result for c in cells if isinstance(c.result, SeedManipulation)}
    found = {c.model: c.result for c in cells if isinstance(c.result, Manipulation)}
    return Verdicts(
        seed=_seed(models, seed, cells),
        corrected=_corrected(models, found, cells),
        why_they_differ=(
            "The seed optimises tokens on one prompt and asks whether the same prompt then takes "
            "the sequence, which says how far a search gets, not what an input does elsewhere; the "
            "corrected number is of contexts that nothing was fitted to, beside what random tokens "
            "reach there, for experts that were picked for being rare or at random."
        ),
    )


def outcome_of(found: Manipulation) -> tuple[str, str | None]:
    """The corrected outcome for one model; with a reason where it is inconclusive."""
    if found.reason is not None:
        return INCONCLUSIVE, found.reason
    effects = {effect.method: effect for effect in found.mean}
    before, at = effects[TOKENS], effects[AT]
    for one in (before, at):
        why = _unjudged(one)
        if why is not None:
            return INCONCLUSIVE, why
    success = before.success
    assert success is not None
    if beyond_random(before):
        above = success.ci_low is not None and success.ci_low > MOSTLY
        return (FORCED if above else PARTLY), None
    if beyond_random(at):
        return BY_TOKEN, None
    return (NOT if all(map(_no_more, (before, at))) else UNCLEAR), None


def _no_more(effect: Effect) -> bool:
    """Whether success beyond random tokens is shown to be less than the margin."""
    excess = effect.excess
    if excess is None or excess.value is None:
        return False
    # Without an interval every context is alike: a router that no token moves.
    return (excess.ci_high if excess.ci_high is not None else excess.value) < MARGIN


def beyond_random(effect: Effect) -> bool:
    """Whether a method reaches more than random tokens (or directions) do."""
    success, excess = effect.success, effect.excess
    if success is None or excess is None or success.p is None or success.p > LEVEL:
        return False
    if excess.ci_low is not None:
        return excess.ci_low > 0
    # Every context alike: then the success itself has to lie beyond all draws.
    return (
        success.ci_low is not None
        and success.null_high is not None
        and success.ci_low > success.null_high
    )


def _unjudged(effect: Effect) -> str | None:
    if effect.success is None:
        return effect.missing or f"{effect.method}: not tried"
    if effect.success.ci_low is None:
        return f"{effect.method}: {effect.success.caveat or 'no interval'}"
    return None


def _seed(
    models: Sequence[str], found: dict[str, SeedManipulation], cells: Sequence[CellResult]
) -> Verdict:
    evidence = tuple(
        _measure(model, name, value, "seed")
        for model, one in found.items()
        for name, value in ((SEED_SEQUENCE, one.after), ("the same, untouched", one.before))
    )
    absent = [model for model in models if model not in found]
    if not found:
        outcome, told = (
            INCONCLUSIVE,
            f"inconclusive: {_reasons(cells) or 'no prompt was optimised'}",
        )
    else:
        each = [_seed_outcome(one) for one in found.values()]
        outcome = max(each, key=[FORCED, PARTLY, NOT].index)
        told = "; ".join(
            f"{model}: the optimised tokens reach {one.after.value:.0%} of {one.sequence} at the "
            f"last token of “{one.prompt}”, which reaches {one.before.value:.0%} by itself"
            for model, one in found.items()
        )
        told = f"{outcome}: {told}" + (f"; not measured: {', '.join(absent)}" if absent else "")
    return Verdict(
        label="seed rule", outcome=outcome, statement=told, rule=SEED_RULE, evidence=evidence
    )


def _seed_outcome(found: SeedManipulation) -> str:
    before, after = found.before.value or 0.0, found.after.value or 0.0
    if after == 1:
        return FORCED
    return PARTLY if after > before else NOT


def _corrected(
    models: Sequence[str], found: dict[str, Manipulation], cells: Sequence[CellResult]
) -> Verdict:
    each = {model: outcome_of(one) for model, one in found.items()}
    reasons = [f"{model}: {why}" for model, (_, why) in each.items() if why is not None]
    own = {c.model: c.reason for c in cells if c.analysis == "manipulation" and c.reason}
    reasons += [
        f"{model}: {own.get(model) or _reasons(cells) or 'nothing was measured'}"
        for model in models
        if model not in found
    ]
    evidence = tuple(m for model, one in found.items() for m in _success(model, one))
    if reasons or not found:
        told = "; ".join(dict.fromkeys(reasons)) or "nothing was measured"
        outcome, statement = INCONCLUSIVE, f"inconclusive: {told}"
    else:
        outcome = _in_every_model({one for one, _ in each.values()})
        numbers = "; ".join(f"{model}: {_numbers(one)}" for model, one in found.items())
        statement = f"{STATEMENTS[outcome]}; {numbers}"
    return Verdict(
        label="corrected",
        outcome=outcome,
        statement=statement,
        rule=CORRECTED_RULE,
        evidence=evidence,
    )


def _in_every_model(outcomes: set[str]) -> str:
    """What holds of all models."""
    if len(outcomes) == 1:
        return next(iter(outcomes))
    return PARTLY if outcomes == {FORCED, PARTLY} else UNCLEAR


def _numbers(found: Manipulation) -> str:
    """Success of the input methods beside their nulls."""
    said = [
        f"{effect.method} {claim(effect.success)}"
        + (" (a check: it is solved for)" if effect.method == STREAM else "")
        for effect in found.mean
        if effect.method in (AT, BEFORE, TOKENS, STREAM) and effect.success is not None
    ]
    return f"{', '.join(said)}; untouched {claim(found.untouched)}, {found.contexts} contexts"


def _reasons(cells: Sequence[CellResult]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))


def _measure(
    model: str, name: str, statistic: Statistic, label: Literal["seed", "corrected"] = "corrected"
) -> Measure:
    return Measure(model=model, label=label, name=name, statistic=statistic)
