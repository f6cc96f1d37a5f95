"""What `moe_routing_correlation` shows of its own: words by layer, lens, experts, then tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.expert_words import ExpertWords
from moetui.analyses.tuned_lens import LensFidelity, TunedLensFit
from moetui.analyses.vocabulary_alignment import (
    LayerAlignment,
    PromptSetAlignment,
    VocabularyAlignment,
)
from moetui.stats import Statistic
from moetui.suites.moe_routing_correlation_measures import larger_set, seed_set
from moetui.suites.moe_routing_correlation_tasks_sections import task_checks, task_sections
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Bars, Section, Table, Value, estimate

R = TypeVar("R")

# Experts shown; the result keeps more.
SHOWN = 12


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """All of them, as far as they were measured."""
    return (
        *_words(result),
        *_seed_prompts(result),
        *_fidelity(result),
        *_experts(result),
        *task_sections(result),
        *_checks(result),
    )


def _each(result: SuiteResult, kind: type[R]) -> list[tuple[str, R]]:
    return [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, kind)
    ]


def _words(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, VocabularyAlignment)
    if not each:
        return
    tables = [_missing(each)]
    bars = []
    for model, found in each:
        tables += [_by_layer(f"{model}, {one.name}", one) for one in found.sets]
        larger = larger_set(found)
        if larger is not None:
            bars.append(_bars(f"{model}: log-odds of own words over other tasks', raw", larger))
    notes = [f"{model}: {f.tuned_reason}" for model, f in each if f.tuned_reason is not None]
    yield Section(
        heading="Task words by layer",
        text=(
            f"Seed: {each[0][1].seed_definition}.",
            f"Corrected: {each[0][1].definition}.",
            *notes,
        ),
        tables=tuple(tables),
        bars=tuple(bars),
    )


def _missing(each: list[tuple[str, VocabularyAlignment]]) -> Table:
    rows = tuple(
        (
            model,
            words.task,
            len(words.forms),
            sum(form.plain for form in words.forms),
            ", ".join(words.missing) or "none",
        )
        for model, found in each
        for words in found.words
    )
    return Table(
        title="Words that are single tokens",
        columns=("model", "task", "forms", "exactly as given", "words without any"),
        rows=rows,
    )


def _by_layer(title: str, found: PromptSetAlignment) -> Table:
    columns = (
        "layer", "depth", "seed's score", "lens", "probability, unsaid words", "log-odds, nats",
        "over other tasks', nats", "median rank", "KL to output, nats",
    )  # fmt: skip
    rows = tuple(row for layer in found.layers for row in _layer_rows(layer))
    said = "; ".join(
        f"{template}: {', '.join(words)}" for template, words in found.said.items() if words
    )
    return Table(
        title=title,
        columns=columns,
        rows=rows,
        caption=f"{len(found.prompts)} prompts; said by the template and left out: {said or '-'}",
    )


def _layer_rows(layer: LayerAlignment) -> Iterator[tuple[Value, ...]]:
    for at, lens in enumerate(layer.lenses):
        # Log-odds are judged by what they exceed those of the other tasks by.
        first: tuple[Value, ...] = (str(layer.layer), f"{layer.depth:.0%}", layer.seed)
        yield (
            *(first if at == 0 else ("", "", "")),
            lens.lens, lens.probability, estimate(lens.log_odds), lens.specificity,
            lens.median_rank, lens.kl,
        )  # fmt: skip


def _bars(title: str, found: PromptSetAlignment) -> Bars:
    rows = tuple((f"layer {layer.layer}", layer.lenses[0].specificity) for layer in found.layers)
    low, high = _range([statistic for _, statistic in rows])
    return Bars(title=title, rows=rows, low=low, high=high)


def _range(shown: list[Statistic]) -> tuple[float, float]:
    """Wide enough for every value, interval and null, and for 0."""
    ends = [
        end
        for s in shown
        for end in (s.value, s.ci_low, s.ci_high, s.null_low, s.null_high)
        if end is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return (low, high) if high > low else (0.0, 1.0)


def _seed_prompts(result: SuiteResult) -> Iterator[Section]:
    """The seed's appendix: every prompt at every layer."""
    tables = []
    for model, found in _each(result, VocabularyAlignment):
        prompts = seed_set(found)
        layers = [str(layer.layer) for layer in prompts.layers]
        tables.append(
            Table(
                title=f"{model}: seed's score of every prompt",
                columns=("prompt", "task", *(f"layer {layer}" for layer in layers)),
                rows=tuple((row.prompt.strip(), row.task, *row.seed) for row in prompts.prompts),
            )
        )
    if tables:
        yield Section(heading="The seed's prompts one by one", tables=tuple(tables))


def _fidelity(result: SuiteResult) -> Iterator[Section]:
    tables = [
        Table(
            title=f"{model}: KL to the model's output on evaluation documents, nats",
            columns=("layer", "raw lens", "tuned lens", "saved by tuning"),
            rows=tuple((str(one.layer), one.raw, one.tuned, one.saved) for one in found.layers),
            caption="95 % interval over documents in brackets",
        )
        for model, found in _each(result, LensFidelity)
    ]
    fits = [
        f"{model}: rank {fit.rank}, fitted to {fit.fit_tokens:,} tokens of {fit.fit_documents} "
        f"calibration documents, stopped by {fit.held_out_documents} others"
        for model, fit in _each(result, TunedLensFit)
        if fit.rank is not None
    ]
    corpora = (
        *(fit.corpus for _, fit in _each(result, TunedLensFit)),
        *(found.corpus for _, found in _each(result, LensFidelity)),
    )
    used = dict.fromkeys(_documents(corpus) for corpus in corpora if corpus is not None)
    if tables:
        text = (*fits, *used)
        yield Section(heading="Raw and tuned lens", text=text, tables=tuple(tables))


def _documents(used: CorpusUsed) -> str:
    """Which documents, of how many, and what must be known of them."""
    told = f"{used.corpus}: {used.sampled} of {used.available:,} documents ({used.digest[:12]})"
    return f"{told}; {used.caveat}" if used.caveat else told


def _experts(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, ExpertWords)
    if not each:
        return
    tables = []
    for model, found in each:
        tables += [_strongest(model, found), _seed_experts(model, found)]
    yield Section(
        heading="Experts and task words",
        text=(f"Seed: {each[0][1].seed_definition}.", f"Corrected: {each[0][1].definition}."),
        tables=tuple(tables),
    )


def _strongest(model: str, found: ExpertWords) -> Table:
    listed = sorted(found.experts, key=lambda one: (not one.discovered, -abs(one.rho.value or 0)))
    rows: list[tuple[Value, ...]] = [
        (str(one.layer), str(one.expert), one.rho, "yes" if one.discovered else "no")
        for one in listed[:SHOWN]
    ]
    rows.append(("all", "strongest", found.largest, ""))
    return Table(
        title=f"{model}: {found.discoveries.value or 0:.0f} of {found.tests} experts discovered",
        columns=("layer", "expert", "rho", "discovered"),
        rows=tuple(rows),
        caption=f"{found.test}; {found.permutations:,} permutations; {found.discoveries.caveat}; "
        f"{found.discoveries_by_prompt.value or 0:.0f} with {found.discoveries_by_prompt.caveat}",
    )


def _seed_experts(model: str, found: ExpertWords) -> Table:
    return Table(
        title=f"{model}: expert ids summed across layers, as the seed does",
        columns=("expert id", "chosen", "probability where chosen", "correlation"),
        rows=tuple(
            (str(one.expert), one.chosen, one.probability, one.correlation)
            for one in found.seed_experts
        ),
    )


def _checks(result: SuiteResult) -> Iterator[Section]:
    rows = tuple(
        (record.name, *row)
        for record in result.models
        if record.null_of is None
        for row in task_checks(result, record.name)
    )
    if rows:
        table = Table(
            title="Checks of the probes", columns=("model", "check", "outcome"), rows=rows
        )
        yield Section(heading="What should find nothing", tables=(table,))
