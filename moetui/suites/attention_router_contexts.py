"""What `attention_router` shows of tokens in several contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from moetui.analyses.context_sensitivity import (
    ContextLayer,
    ContextSensitivity,
    Distance,
    WordContexts,
)
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table, Value


def sections(result: SuiteResult) -> Iterator[Section]:
    """The seed's rate beside the distances, over its own words and over the corpus."""
    found = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, ContextSensitivity)
    ]
    if found:
        rows = tuple(row for model, one in found for row in _totals(model, one))
        columns = ("model", "measure", "value")
        yield Section(
            heading="Context sensitivity",
            text=(
                f"Seed: {found[0][1].seed_definition}",
                "Corrected: equal token ids only. 1 − Jaccard of the chosen sets and total "
                "variation of their weights, between contexts, beside two nulls: experts "
                "relabelled at random (the weakest: any router that reads the token beats it, "
                "trained or not), and the same token with its context shuffled.",
                *(said for model, one in found for said in _verdicts(model, one)),
            ),
            tables=(
                Table(title="Over all words and layers", columns=columns, rows=rows),
                *(table for model, one in found for table in _tables(model, one)),
            ),
        )


def _totals(model: str, found: ContextSensitivity) -> Iterator[tuple[Value, ...]]:
    cells = f"{found.seed_sensitive} of {found.seed_cells} cells"
    yield model, f"seed: rate of sensitive cells ({cells})", found.seed_rate
    yield model, "corrected, seed's words: 1 − Jaccard", found.set_distance
    yield model, "corrected, seed's words: total variation", found.weight_distance
    if found.mined is not None:
        for name, distance in (("sets", found.mined.sets), ("weights", found.mined.weights)):
            for which, statistic in _named(distance):
                yield model, f"corrected, corpus: {name} {which}", statistic


def _named(distance: Distance) -> Iterator[tuple[str, Value]]:
    yield "between contexts", distance.between
    yield "under shuffled contexts", distance.shuffled
    yield "between, beyond shuffled", distance.excess


def _verdicts(model: str, found: ContextSensitivity) -> Iterator[str]:
    if found.mined is None:
        yield f"{model}: no corpus was read for contexts of frequent tokens."
        return
    reason = f": {found.mined.reason}" if found.mined.reason else ""
    yield (
        f"{model}, {len(found.mined.words)} frequent tokens of the corpus: "
        f"{found.mined.verdict}{reason}. Null beaten by the sets: {found.mined.beaten}."
    )


def _tables(model: str, found: ContextSensitivity) -> Iterator[Table]:
    title = f"{model}: the seed's words"
    yield _word_table(f"{title}, 1 − Jaccard of the chosen sets", found.words, lambda at: at.sets)
    yield _word_table(
        f"{title}, total variation of the weights", found.words, lambda at: at.weights
    )
    dropped = [(word.word, one) for word in found.words for one in word.dropped]
    if dropped:
        rows = tuple((f"“{word}”", f"“{one.context}”", one.reason) for word, one in dropped)
        columns = ("word", "context", "why it was dropped")
        yield Table(title=f"{model}: contexts not compared", columns=columns, rows=rows)


def _word_table(
    title: str, words: Sequence[WordContexts], of: Callable[[ContextLayer], Distance]
) -> Table:
    rows: list[tuple[Value, ...]] = []
    for word in words:
        token = None if word.token_text is None else f"“{word.token_text}”"
        kept = f"{len(word.kept)} of {len(word.kept) + len(word.dropped)}"
        lead = (f"“{word.word}”", token, kept)
        for layer in word.layers:
            told = of(layer)
            experts = " ".join(f"E{expert}" for expert in layer.top_experts)
            distances = (told.between, told.shuffled, told.excess)
            rows.append((*lead, str(layer.layer), experts, *distances))
        if not word.layers:
            rows.append((*lead, f"{word.verdict}: {word.reason}", None, None, None, None))
    columns = (
        "word", "token", "contexts kept", "layer", "top experts", "between contexts",
        "shuffled", "beyond shuffled",
    )  # fmt: skip
    return Table(title=title, columns=columns, rows=tuple(rows))
