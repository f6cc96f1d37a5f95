"""Two verdicts on `attention_router`: the seed's rule on its ratio, and the rule on real shares."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from moetui.analyses.attention_router import (
    ATTENTION,
    CorpusDecomposition,
    CorrectedDecomposition,
    PartShare,
    PromptDecomposition,
)
from moetui.analyses.causal_check import DECIDES, CausalCheck
from moetui.analyses.token_identity import TokenIdentity
from moetui.stats import Statistic
from moetui.stats.minimum import DECOMPOSITION, enough, warned, warning
from moetui.suites.attention_router_measures import (
    SEED_RATIO,
    causal_measures,
    identity_measures,
    share_name,
)
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts

# The largest share of tokens without their router data that a verdict may rest on.
MISSING = 0.01
# The largest part of a token's logits that the parts may miss: shares of the parts' own sum say
# nothing of what is in none of them. Half precision stays far below it.
INCOMPLETE = 0.05

SEED_RULE = (
    "the lowest model's mean ratio over the layers with ratio > 0: H1 above 0.85, H2 from 0.50 to "
    "0.80, H3 below 0.50, else unclear"
)
CORRECTED_RULE = (
    "attention's share of the routers' variance across tokens, mean over the layers above 0 (as "
    "in the seed), lowest model, by its 95 % interval over documents: H1 if wholly above 0.85 (in "
    "every model), H2 if within 0.50 to 0.80, H3 if wholly below 0.50, else unclear. H1 also takes "
    "the causal check: in every model attention replaced by another document's changes the experts "
    "more than random directions of that length and more than any other part replaced. "
    f"Inconclusive below a tenth of {DECOMPOSITION}, without an interval, or with data missing"
)
STATEMENTS = {
    "H1": "attention dominates routing (over 85 %) in every model",
    "H2": "attention carries most of the decision, but not alone (50-80 %)",
    "H3": "attention is not what dominates routing (under 50 %)",
    "unclear": "the number lies between the hypotheses",
}
NOT_CAUSAL = (
    "attention's share is over 85 %, but the causal check does not show that attention matters most"
)
INCONCLUSIVE = "inconclusive"


class _ModelShare(msgspec.Struct, frozen=True):
    """Attention's corrected share in one model (and the other parts'), or why there is none; and
    what stands beside it."""

    model: str
    share: Statistic | None
    reason: str | None
    others: tuple[PartShare, ...] = ()
    causal: CausalCheck | None = None
    identity: TokenIdentity | None = None


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    seed, lowest = _seed_verdict(cells)
    shares = [_model_share(model, cells) for model in models]
    corrected = _corrected_verdict(shares)
    return Verdicts(seed=seed, corrected=corrected, why_they_differ=_why(lowest, shares))


def seed_outcome(lowest: float) -> str:
    """The seed's rule on the lowest model's mean ratio."""
    if lowest > 0.85:
        return "H1"
    if 0.50 <= lowest <= 0.80:
        return "H2"
    return "H3" if lowest < 0.50 else "unclear"


def corrected_outcome(shares: Sequence[Statistic]) -> str:
    """The same hypotheses, by the interval of the lowest share; all shares have intervals."""
    lowest = min(shares, key=lambda share: share.value if share.value is not None else 0.0)
    low, high = lowest.ci_low, lowest.ci_high
    if low is None or high is None:
        return INCONCLUSIVE
    if all(share.ci_low is not None and share.ci_low > 0.85 for share in shares):
        return "H1"
    if low >= 0.50 and high <= 0.80:
        return "H2"
    return "H3" if high < 0.50 else "unclear"


def _seed_verdict(cells: Sequence[CellResult]) -> tuple[Verdict, float | None]:
    found = [
        (
            cell.model,
            cell.result.seed.mean_ratio,
            min(layer.n_prompts for layer in cell.result.seed.layers),
        )
        for cell in cells
        if isinstance(cell.result, PromptDecomposition)
    ]
    ratios = {model: ratio for model, ratio, _ in found if ratio is not None}
    evidence = tuple(
        Measure(
            model=model,
            label="seed",
            name=SEED_RATIO,
            statistic=Statistic(
                value=ratio, n_documents=prompts, caveat="as published: no interval, no null"
            ),
        )
        for model, ratio, prompts in found
    )
    lowest = min(ratios.values()) if ratios else None
    outcome = INCONCLUSIVE if lowest is None else seed_outcome(lowest)
    reason = _reasons(cells) or "no ratio was measured"
    verdict = _verdict("seed rule", outcome, SEED_RULE, evidence, reason)
    absent = [m for m in dict.fromkeys(cell.model for cell in cells) if m not in ratios]
    if ratios and absent:
        # "In every model" must not count a model that failed or has no router.
        told = f"{verdict.statement}; not measured: {', '.join(absent)}"
        verdict = msgspec.structs.replace(verdict, statement=told)
    return verdict, lowest


def _corrected_verdict(shares: Sequence[_ModelShare]) -> Verdict:
    attention = [share.share for share in shares if share.share is not None]
    reasons = [f"{share.model}: {share.reason}" for share in shares if share.reason]
    decided = bool(attention) and not reasons
    outcome = corrected_outcome(attention) if decided else INCONCLUSIVE
    refused = [share.model for share in shares if not _causal(share)] if outcome == "H1" else []
    evidence = tuple(one for share in shares for one in _share_evidence(share))
    verdict = _verdict(
        "corrected",
        "unclear" if refused else outcome,
        CORRECTED_RULE,
        evidence,
        "; ".join(reasons),
    )
    told = f"{NOT_CAUSAL} ({', '.join(refused)})" if refused else verdict.statement
    if decided:
        told = "; ".join(
            [told, *(f"{s.model}, causal check: {_causal_verdict(s)}" for s in shares)]
        )
    return msgspec.structs.replace(verdict, statement=told)


def _causal_verdict(share: _ModelShare) -> str:
    if share.causal is None:
        return "not made"
    reason = share.causal.reason
    return share.causal.verdict if reason is None else f"{share.causal.verdict} ({reason})"


def _causal(share: _ModelShare) -> bool:
    return share.causal is not None and share.causal.verdict == DECIDES


def _share_evidence(share: _ModelShare) -> list[Measure]:
    """Attention first, then the other parts, so that nobody takes the rest for the embedding."""
    named = [(ATTENTION, share.share), *((p.part, p.across_tokens) for p in share.others)]
    found = [
        Measure(model=share.model, label="corrected", name=share_name(part), statistic=statistic)
        for part, statistic in named
        if statistic is not None
    ]
    if share.causal is not None:
        found += causal_measures(share.model, share.causal)
    if share.identity is not None:
        found += identity_measures(share.model, share.identity)
    return found


def _verdict(
    label: str, outcome: str, rule: str, evidence: tuple[Measure, ...], reason: str
) -> Verdict:
    statement = STATEMENTS.get(outcome, f"inconclusive: {reason}")
    return Verdict(label=label, outcome=outcome, statement=statement, rule=rule, evidence=evidence)


def _model_share(model: str, cells: Sequence[CellResult]) -> _ModelShare:
    """The corpus decides where there is one, else the prompts."""
    own = [cell for cell in cells if cell.model == model]
    causal = next((c.result for c in own if isinstance(c.result, CausalCheck)), None)
    identity = next((c.result for c in own if isinstance(c.result, TokenIdentity)), None)
    share, reason, others = _attention_share(own)
    return _ModelShare(model, share, reason, others, causal, identity)


def _attention_share(
    cells: Sequence[CellResult],
) -> tuple[Statistic | None, str | None, tuple[PartShare, ...]]:
    """Attention's share, why it carries no verdict if it does not, and the other parts'."""
    found = _corrected(cells)
    if found is None:
        return None, _reasons(cells) or "no decomposition", ()
    share = next((p.across_tokens for p in found.mean.parts if p.part == ATTENTION), None)
    if share is None or share.value is None:
        return None, "attention's share is undefined", ()
    share = warned(share, DECOMPOSITION, documents=found.documents, tokens=found.tokens)
    others = tuple(part for part in found.mean.parts if part.part != ATTENTION)
    return share, _insufficient(found, share), others


def _corrected(cells: Sequence[CellResult]) -> CorrectedDecomposition | None:
    results = [cell.result for cell in cells]
    corpus = [r.corrected for r in results if isinstance(r, CorpusDecomposition)]
    prompts = [r.corrected for r in results if isinstance(r, PromptDecomposition)]
    return next((found for found in (*corpus, *prompts) if found is not None), None)


def _insufficient(found: CorrectedDecomposition, share: Statistic) -> str | None:
    """Why the numbers carry no verdict, None where they do."""
    sizes = {"documents": found.documents, "tokens": found.tokens}
    if enough(DECOMPOSITION, **sizes) == "inconclusive":
        return warning(DECOMPOSITION, **sizes)
    missing = max(layer.missing_tokens for layer in found.layers)
    if missing > MISSING * (found.tokens + missing):
        return f"router data of {missing} of {found.tokens + missing} tokens are missing"
    error = max(layer.completeness or 0.0 for layer in found.layers)
    if error > INCOMPLETE:
        return f"the parts miss up to {error:.0%} of a token's logits, {INCOMPLETE:.0%} at most"
    return None if share.ci_low is not None else share.caveat or "no interval"


def _reasons(cells: Sequence[CellResult]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))


def _why(seed: float | None, shares: Sequence[_ModelShare]) -> str:
    ratio = "" if seed is None else f" ({seed:.2f})"
    known = [
        (s.share.value, s) for s in shares if s.share is not None and s.share.value is not None
    ]
    lowest = min(known, key=lambda pair: pair[0]) if known else None
    share = "" if lowest is None else f" ({lowest[0]:.2f}{_rest(lowest[1].others)})"
    return (
        f"The seed's ratio{ratio} compares the norms of two parts, counts everything that earlier "
        "layers added (experts' outputs too) as attention, leaves out this layer's own attention "
        "and the norm, and includes what all experts or all tokens receive alike; the corrected "
        f"share{share} counts only what attention contributes to differences between experts "
        f"across tokens.{''.join(map(_beside, shares))}"
    )


def _beside(share: _ModelShare) -> str:
    """What the causal check and η² add, in sentences that begin with a space."""
    told = []
    if share.causal is not None and share.causal.reason is None:
        effects = [
            f"{part.part} {_two(part.resample.change.value)} "
            f"(random {_two(part.resample.change.null_mean)})"
            for part in share.causal.mean.parts
        ]
        told.append(
            f" {share.model}: replaced by what it was in another document, a part changes this "
            f"much of the chosen sets (random: directions of that length): {', '.join(effects)}; "
            f"{share.causal.verdict}."
        )
    if share.identity is not None and share.identity.mean and share.identity.reason is None:
        told.append(
            f" {share.model}: the token alone foretells {_two(share.identity.mean.eta2.value)} of "
            "the variance of the logits (η²), so part of what attention contributes may be the "
            "token's own identity."
        )
    return "".join(told)


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _rest(others: Sequence[PartShare]) -> str:
    values = [(part.part, part.across_tokens) for part in others]
    named = [f"{part} {s.value:.2f}" for part, s in values if s is not None and s.value is not None]
    return "; " + ", ".join(named) if named else ""
