"""What `manipulation` shows of its own results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from moetui.analyses.manipulation import Effect, Manipulation, TargetEffects
from moetui.analyses.manipulation_check import INPUTS
from moetui.analyses.manipulation_fit import ManipulationFit, SeedManipulation, TokenScan
from moetui.analyses.misrouting import Misrouting
from moetui.analyses.paraphrase import Paraphrase
from moetui.analyses.routing_robustness import RoutingRobustness
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value

R = TypeVar("R")


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """All of them, as far as they were measured."""
    return (
        *_success(result),
        *_stream(result),
        *_fit(result),
        *_seed(result),
        *_attacks(result),
        *_robustness(result),
    )


def _each(result: SuiteResult, kind: type[R]) -> list[tuple[str, R]]:
    return [(r.name, one) for r in result.models for one in results_of(result, r.name, kind)]


def _success(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, Manipulation)
    if not each:
        return
    tables: list[Table] = []
    for model, found in each:
        tables += [
            _summary(f"{model}: mean over targets of one expert", found, found.mean),
            _summary(f"{model}: the rarest experts of their layers", found, found.rarest),
            _prices(model, found),
            *_targets(model, found),
        ]
    bars = tuple(
        Bars(
            title=f"{model}: success@k, mean over targets of one expert",
            rows=(
                ("untouched", found.untouched),
                *((e.method, e.success) for e in found.mean if e.success is not None),
            ),
            low=0.0,
            high=1.0,
            caption="the null is that of random tokens in the same places, or of random directions",
        )
        for model, found in each
    )
    yield Section(
        heading="Forcing an expert",
        text=(
            f"{each[0][1].definition[0].upper()}{each[0][1].definition[1:]}.",
            "Tokens are the same in all contexts and were fitted to others; logits and forced "
            "experts change the whole pass, the stream is changed at the position alone and anew "
            "for every context.",
        ),
        tables=tuple(tables),
        bars=bars,
    )


def _summary(title: str, found: Manipulation, effects: tuple[Effect, ...]) -> Table:
    rows = [
        (
            effect.method,
            effect.success if effect.success is not None else effect.missing,
            effect.excess,
            effect.gain,
        )
        for effect in effects
    ]
    untouched: tuple[Value, ...] = ("untouched", found.untouched, None, None)
    prompts: tuple[Value, ...] = ("random words before it", found.prompts, None, None)
    return Table(
        title=title,
        columns=("method", "success@k", "beyond random", "gain over untouched"),
        rows=(untouched, prompts, *rows) if effects is found.mean else tuple(rows),
        caption=f"{found.contexts} contexts of {found.tokens} tokens, {found.draws} random draws",
    )


def _prices(model: str, found: Manipulation) -> Table:
    return Table(
        title=f"{model}: side effects",
        columns=("method", "KL of the next token, nats", "ΔNLL of the tokens after it, nats each"),
        rows=tuple((effect.method, effect.kl, effect.nll) for effect in found.mean),
        caption=f"{found.after} tokens after the position; null of KL: random tokens there",
    )


def _targets(model: str, found: Manipulation) -> Iterator[Table]:
    yield Table(
        title=f"{model}: success@k of every target",
        columns=("target", "why", "method", "success@k"),
        rows=tuple(row for one in found.targets for row in _target_rows(one)),
    )
    yield Table(
        title=f"{model}: tokens put in, and what they reached where they were fitted",
        columns=("target", *(cell for name in INPUTS for cell in (name, "fitted"))),
        rows=tuple(
            (
                one.name,
                *(
                    cell
                    for text, fit in zip(one.tokens, one.fit, strict=True)
                    for cell in (repr(text), fit)
                ),
            )
            for one in found.targets
        ),
        caption="fitted: share of the contexts that they were chosen on; no success yet",
    )


def _target_rows(one: TargetEffects) -> Iterator[tuple[Value, ...]]:
    yield one.name, one.role, "untouched", one.untouched
    for effect in one.effects:
        success = effect.success if effect.success is not None else effect.missing
        yield one.name, one.role, effect.method, success


def _stream(result: SuiteResult) -> Iterator[Section]:
    rows: list[tuple[Value, ...]] = []
    for model, found in _each(result, Manipulation):
        one = found.stream
        if one is not None:
            rows += [
                (model, "length over that of the stream", one.length),
                (model, "pair formula over the solution's length", one.pair),
                (model, "pair formula longer than the solution, share", one.pair_above),
                (model, "pair bound over the solution's length", one.bound),
                (model, "expert chosen after the pair formula's change, share", one.pair_success),
                (model, "kept sets searched to the end, share", one.exact),
                (model, "solved again around the changed stream, share", one.relinearised),
            ]
    if rows:
        yield Section(
            heading="Smallest change of the stream",
            text=(
                "The shortest vector that, added to the stream at the router, makes the expert's "
                "score exceed all but k − 1 others', whichever these are; norm frozen in the "
                "problem, computed anew in the check. In contexts in which it was not chosen.",
            ),
            tables=(Table(title="Lengths", columns=("model", "what", "value"), rows=tuple(rows)),),
        )


def _fit(result: SuiteResult) -> Iterator[Section]:
    scans = _each(result, TokenScan)
    if not scans:
        return
    text = [
        f"{model}: {one.candidates:,} of {one.vocabulary:,} tokens were tried in {one.contexts} "
        "calibration contexts."
        for model, one in scans
    ]
    text += [
        f"{model}: no gradient ({one.gradient_error}); tokens were searched at random."
        for model, one in _each(result, ManipulationFit)
        if one.gradient_error is not None
    ]
    rows: list[tuple[Value, ...]] = [
        (model, target.target, target.best[0], target.mean[0], target.best[1], target.mean[1])
        for model, one in scans
        for target in one.targets
    ]
    columns = ("model", "target", "best at it", "mean at it", "best before it", "mean before it")
    yield Section(
        heading="Scan of the vocabulary",
        text=("Shares of the contexts on which tokens were chosen: no success yet.", *text),
        tables=(Table(title="Best and mean token", columns=columns, rows=tuple(rows)),),
    )


def _seed(result: SuiteResult) -> Iterator[Section]:
    rows = tuple(
        (model, one.sequence, one.prompt, one.crafted, one.before, one.after)
        for model, one in _each(result, SeedManipulation)
    )
    if rows:
        columns = ("model", "sequence", "prompt", "optimised", "share untouched", "share reached")
        yield Section(
            heading="The seed's prompt",
            text=(
                "Tokens before the prompt's last one were optimised for the sequence, on that "
                "prompt, which is what the seed set out to do.",
            ),
            tables=(Table(title="Sequence of experts", columns=columns, rows=rows),),
        )


def _attacks(result: SuiteResult) -> Iterator[Section]:
    rows: list[tuple[Value, ...]] = []
    text: list[str] = []
    for model, one in _each(result, Misrouting):
        text.append(f"{one.definition[0].upper()}{one.definition[1:]}.")
        text.append(
            f"{model}: {one.swaps} swaps in each of {one.contexts} contexts, bound {one.bound:g} "
            f"nats; {one.none} contexts had no swap within it."
        )
        rows += [
            (model, "attack", one.attack),
            (model, "typical swap within the bound", one.typical),
            (model, "attack less typical", one.beyond),
            (model, "any swap", one.any_swap),
            (model, "share of swaps within the bound", one.within),
            (model, "KL of the attacks, nats", one.attack_kl),
        ]
        if one.guided is not None:
            rows.append((model, "attacks that a gradient proposed, share", one.guided))
    if rows:
        columns = ("model", "what", "value")
        table = Table(title="Change of the sets by one swap", columns=columns, rows=tuple(rows))
        yield Section(
            heading="Adversarial misrouting", text=tuple(dict.fromkeys(text)), tables=(table,)
        )


def _robustness(result: SuiteResult) -> Iterator[Section]:
    rows: list[tuple[Value, ...]] = []
    text: list[str] = []
    for model, one in _each(result, RoutingRobustness):
        text.append(f"{one.definition[0].upper()}{one.definition[1:]}.")
        rows += [
            (model, flips.name, flips.change if flips.change is not None else flips.missing,
             flips.flipped)
            for flips in one.perturbations
        ]  # fmt: skip
    for model, wording in _each(result, Paraphrase):
        text.append(f"Another wording: {wording.definition}.")
        rows.append((model, "another wording", wording.change, None))
        rows.append((model, "another wording less another problem", wording.excess, None))
    if rows:
        columns = ("model", "perturbation", "change of the sets", "other sets, share")
        table = Table(title="Change by perturbation", columns=columns, rows=tuple(rows))
        yield Section(heading="Robustness", text=tuple(dict.fromkeys(text)), tables=(table,))
