"""What `cold_experts` shows of its own: the seed's count, then load, triggers, costs and plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from moetui.analyses.cold_load import ColdLoad, JudgedExpert
from moetui.analyses.cold_prompts import ColdPrompts
from moetui.analyses.expert_ablation import ExpertAblation, ExpertAblations
from moetui.analyses.expert_scores import ExpertScores
from moetui.analyses.pruning_plan import CLAIM, SAFE, PruningPlan, PruningPlans
from moetui.analyses.trigger_tokens import ExpertTriggers, TriggerTokens
from moetui.analyses.waking_tokens import WakingTokens
from moetui.sizes import size_text
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value, estimate
from moetui.suites.wording import expert_name

# Rows of a table of single experts: the coldest of the whole model.
ROWS = 24
R = TypeVar("R")


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """The seed's numbers first, then what answers them."""
    return (
        *_section(result, ColdPrompts, "Cold experts on the seed's prompts", _seed_text, _seed),
        *_section(result, ColdLoad, "Cold experts by interval", _load_text, _load),
        *_section(result, TriggerTokens, "Tokens that trigger experts", _trigger_text, _triggers),
        *_section(result, ExpertScores, "Scores for pruning", _score_text, _scores),
        *_ablations(result),
        *_section(result, WakingTokens, "Inputs that wake cold experts", _waking_text, _waking),
        *_section(result, PruningPlans, "Pruning plans", _plan_text, _plans),
    )


def _section(
    result: SuiteResult,
    kind: type[R],
    heading: str,
    text: Callable[[R], str],
    tables: Callable[[str, R], Iterator[Table]],
) -> Iterator[Section]:
    found = [(r.name, one) for r in result.models for one in results_of(result, r.name, kind)]
    if found:
        yield Section(
            heading=heading,
            text=tuple(dict.fromkeys(text(one) for _, one in found)),
            tables=tuple(table for model, one in found for table in tables(model, one)),
        )


def _seed_text(found: ColdPrompts) -> str:
    return f"{found.definition[0].upper()}{found.definition[1:]}. No interval belongs to it."


def _seed(model: str, found: ColdPrompts) -> Iterator[Table]:
    rows = tuple(
        (
            expert_name(one.layer, one.expert),
            one.share,
            one.tokens,
            one.perplexity_change,
            _quoted(one.triggers[:5]),
        )
        for one in found.experts[:ROWS]
    )
    before = "" if found.perplexity is None else f", of {found.perplexity:.3g} untouched"
    yield Table(
        title=f"{model}: {len(found.experts)} cold of {found.of_experts} experts, "
        f"{found.prompts} prompts, {found.tokens} tokens",
        columns=("expert", "share of tokens", "tokens", "change of perplexity", "triggers"),
        rows=rows,
        caption=f"perplexity of the prompts with the expert dropped{before}",
    )


def _load_text(found: ColdLoad) -> str:
    given = ", of which each is given its share of the tokens" if found.mix_given else ""
    return (
        "Cold: the upper limit of f_e over documents lies under the threshold, and so does the "
        "most that so few independent hits leave plausible; conditional: cold, but used "
        "at the uniform share k/E or more in one domain; dead: no hit in enough independent tokens "
        "to see one; undecided: the interval holds the threshold, or hits are "
        "too few to tell. "
        f"Domains{given}: {', '.join(found.domains)}."
    )


def _load(model: str, found: ColdLoad) -> Iterator[Table]:
    names = [threshold.name for threshold in found.thresholds]
    rows: list[tuple[Value, ...]] = []
    for layer in found.layers:
        cells = [
            None
            if layer.cold is None or layer.conditional is None or layer.undecided is None
            else f"{layer.cold[at]} / {layer.conditional[at]} / {layer.undecided[at]}"
            for at in range(len(names))
        ]
        told = layer.reason or layer.caveat
        rows.append((str(layer.layer), layer.experts, *cells, layer.dead, told))
    yield Table(
        title=f"{model}: cold / conditional / undecided, {found.n_documents} documents, "
        f"{found.n_tokens:,} tokens",
        columns=("layer", "experts", *(f"at {name}" for name in names), "dead", "note"),
        rows=tuple(rows),
    )
    coldest = sorted(found.experts, key=lambda one: one.share.value or 0.0)[:ROWS]
    yield Table(
        title=f"{model}: the coldest experts",
        columns=("expert", "share of tokens", "n effective", "called at " + ", ".join(names),
                 "most used in", "share there"),
        rows=tuple(_judged(one) for one in coldest),
    )  # fmt: skip


def _judged(one: JudgedExpert) -> tuple[Value, ...]:
    called = ", ".join(one.coldness) if one.coldness else None
    return (
        expert_name(one.layer, one.expert),
        one.share,
        one.share.n_effective,
        f"dead ({called})" if one.dead else called,
        one.best_domain,
        None if one.in_best_domain is None else estimate(one.in_best_domain),
    )


def _trigger_text(found: TriggerTokens) -> str:
    where = "evaluation documents, which are others" if found.held_out else "the same documents"
    return (
        f"Found on {found.found_on} documents, a document counting once for each token; lift, "
        f"P(expert | token) / P(expert), on {where}. {found.discovered:,} of {found.tested:,} "
        f"cells (token × layer × expert, tokens that occur {found.min_occurrences} times or more) "
        f"have q ≤ {found.level:g}."
    )


def _triggers(model: str, found: TriggerTokens) -> Iterator[Table]:
    firsts: dict[int, list[ExpertTriggers]] = {}
    for one in found.experts:
        if one.tokens:
            firsts.setdefault(one.layer, []).append(one)
    chosen = [one for experts in firsts.values() for one in experts[:4]][:ROWS]
    rows = tuple(
        (
            expert_name(one.layer, one.expert),
            one.discovered,
            f"“{token.token}”",
            f"{token.hits} of {token.occurrences} in {token.documents}",
            token.lift,
        )
        for one in chosen
        # By what they were found on: the largest of several estimates would be too large.
        for token in sorted(one.tokens, key=lambda token: -token.hits / token.occurrences)[:2]
    )
    yield Table(
        title=f"{model}: two triggers of four experts of each layer",
        columns=("expert", "triggers", "token", "hits, documents", "lift"),
        rows=rows,
        caption="those that go to it most often where they were found; all that were listed are in "
        "the JSON",
    )


def _score_text(found: ExpertScores) -> str:
    caveat = f" {found.caveat}." if found.caveat else ""
    return (
        f"On {found.n_documents} calibration documents. EAN: Σ‖f_e‖ over an expert's tokens; REAP: "
        "mean of weight × ‖f_e‖ over them (arXiv 2510.13999). Super expert (arXiv 2507.23279): "
        f"{found.super_rule}; never to be pruned.{caveat}"
    )


def _scores(model: str, found: ExpertScores) -> Iterator[Table]:
    flagged = [one for one in found.experts if one.super_expert]
    low = sorted(
        found.experts,
        key=lambda one: ((one.reap or one.frequency).value or 0.0, one.layer, one.expert),
    )
    rows = tuple(
        (expert_name(one.layer, one.expert), one.frequency, one.ean, one.reap, one.largest,
         "super" if one.super_expert else None)
        for one in (*flagged, *[one for one in low if one not in flagged][: ROWS // 2])
    )  # fmt: skip
    columns = ("expert", "f_e", "EAN", "REAP", "largest ‖f_e‖", "flag")
    yield Table(
        title=f"{model}: super experts: {len(flagged)}; then the lowest by REAP",
        columns=columns,
        rows=rows,
    )


def _ablations(result: SuiteResult) -> Iterator[Section]:
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, ExpertAblations)
    ]
    if not found:
        return
    meaning = {mode: told for _, one in found for mode, told in one.meaning.items()}
    yield Section(
        heading="Experts removed one at a time",
        text=(
            "ΔNLL in nats a predicted token on evaluation documents; chosen, and matched in "
            "frequency, on calibration documents. The null of ΔNLL and KL is the band of the "
            "random control experts, with few of them hardly more than their range.",
            *(f"{mode}: {told}." for mode, told in meaning.items()),
        ),
        tables=tuple(table for model, one in found for table in _ablation_tables(model, one)),
        bars=tuple(_bars(model, one) for model, one in found if one.ablations),
    )


def _ablation_tables(model: str, found: ExpertAblations) -> Iterator[Table]:
    rows = tuple(
        (
            f"{expert_name(one.layer, one.expert)}, {one.role}",
            one.mode,
            one.load,
            one.used,
            one.delta_nll,
            _band(one),
            one.kl,
            one.equivalence.outcome,
        )
        for one in found.ablations
    )
    yield Table(
        title=f"{model}: {found.n_documents} documents, {found.n_tokens:,} predicted tokens; KL "
        f"on {found.kl_documents} of them",
        columns=("expert", "mode", "f_e", "tokens that use it", "ΔNLL",
                 "matched in frequency [band], their f_e", "KL", f"none within {found.margin:g}?"),
        rows=rows,
        together=True,
    )  # fmt: skip
    names = [one.domain for one in found.ablations[0].domains] if found.ablations else []
    yield Table(
        title=f"{model}: ΔNLL by domain",
        columns=("expert", "mode", *names),
        rows=tuple(
            (
                f"{expert_name(one.layer, one.expert)}, {one.role}",
                one.mode,
                *(change.delta_nll for change in one.domains),
            )
            for one in found.ablations
        ),
        together=True,
    )


def _band(one: ExpertAblation) -> str | None:
    band = one.matched
    if band.null_mean is None or band.null_low is None or band.null_high is None:
        return None
    told = f"{band.null_mean:.2g} [{band.null_low:.2g}, {band.null_high:.2g}]"
    loads = [control.load for control in one.matched_controls]
    return f"{told}, {min(loads):.3f} to {max(loads):.3f}"


def _bars(model: str, found: ExpertAblations) -> Bars:
    rows = tuple(
        (f"{expert_name(one.layer, one.expert)}, {one.role}, {one.mode}", one.delta_nll)
        for one in found.ablations[:ROWS]
    )
    ends = [
        end
        for _, one in rows
        for end in (one.value, one.ci_low, one.ci_high, one.null_low, one.null_high)
        if end is not None
    ]
    return Bars(
        title=f"{model}: ΔNLL, and the band of random control experts",
        rows=rows,
        low=min([0.0, *ends]),
        high=max([found.margin, *ends]),
        caption="nats a predicted token",
    )


def _waking_text(found: WakingTokens) -> str:
    return (
        f"{found.tried:,} of {found.vocabulary:,} tokens were put behind {found.contexts} "
        f"calibration texts of {found.context_tokens} tokens, each through the model's own "
        f"forward; the best of each expert then behind {found.checked} evaluation texts. Success: "
        "how often it is routed to the expert there (Wilson interval); its null is how often any "
        "token that was tried was. Dead: no document uses it, and no token wakes it."
    )


def _waking(model: str, found: WakingTokens) -> Iterator[Table]:
    rows = tuple(
        (
            expert_name(one.layer, one.expert),
            one.load,
            one.woken_by,
            None if one.token is None else f"“{one.token}”",
            one.success,
            "yes" if one.dead else "no",
        )
        for one in found.experts[:ROWS]
    )
    columns = ("expert", "f_e", "tokens that wake it", "best", "success in other texts", "dead")
    yield Table(title=f"{model}: the coldest experts", columns=columns, rows=rows)


def _plan_text(found: PruningPlans) -> str:
    empty = f" Nobody is dropped by: {', '.join(found.empty)}." if found.empty else ""
    controls = max((plan.controls for plan in found.plans), default=0)
    null = (
        f"its null is the band of {controls} plans that drop as many random experts of each layer"
        if controls
        else "no random plans were measured beside it"
    )
    return (
        "Whom to drop was decided on calibration documents, super experts excepted; ΔNLL is that "
        f"of the whole plan in one forward, on {found.n_documents} evaluation documents; {null}. "
        f"{''.join(dict.fromkeys(f'{one.mode}: {one.mode_meaning}. ' for one in found.plans))}"
        f"{CLAIM[0].upper()}{CLAIM[1:]}. Safe: {SAFE}.{empty}"
    )


def _plans(model: str, found: PruningPlans) -> Iterator[Table]:
    rows = tuple(
        (
            ", ".join(plan.rules),
            f"{plan.experts} of {plan.of_experts}",
            _saved(plan),
            plan.delta_nll,
            plan.equivalence.outcome,
            "yes" if plan.safe else "no",
        )
        for plan in found.plans
    )
    yield Table(
        title=f"{model}: plans, smallest first; largest that is safe: "
        f"{found.recommended or 'none'}",
        columns=("plan", "experts", "saves", "ΔNLL", f"none within {found.margin:g}?", "safe"),
        rows=rows,
        caption="experts of each plan: `moetui batch … --export-plan FILE`, and the JSON",
    )
    listed = next((one for one in found.plans if one.name == found.recommended), None)
    if listed is not None:
        yield Table(
            title=f"{model}: whom {listed.name} drops",
            columns=("layer", "drop", "keep"),
            rows=tuple(
                (str(one.layer), ", ".join(map(str, one.drop)), one.keep) for one in listed.layers
            ),
        )


def _saved(plan: PruningPlan) -> str | None:
    if plan.bytes_saved is None or not plan.bytes_of_experts:
        return None
    share = plan.bytes_saved / plan.bytes_of_experts
    return f"{size_text(plan.bytes_saved)} ({share:.1%} of the experts)"


def _quoted(tokens: tuple[str, ...]) -> str:
    return " ".join(f"“{token}”" for token in tokens)
