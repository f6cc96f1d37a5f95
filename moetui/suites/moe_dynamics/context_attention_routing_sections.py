"""What `context_attention_routing` shows of its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.context_attention_routing import ContextAttentionRouting
from moetui.analyses.context_relations import Relation
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table, Value

_LEVEL = 0.05
_COLUMNS = ("attention and routing", "beyond", "hidden state and routing")


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """The seed's target, and the targets of the corpus."""
    each = [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, ContextAttentionRouting)
    ]
    return (_seed(each), _mined(each)) if each else ()


def _seed(each: Sequence[tuple[str, ContextAttentionRouting]]) -> Section:
    told = [
        f"{model}: “{found.seed.word}” as token “{found.seed.token_text}” in "
        f"{len(found.seed.kept)} contexts, {len(found.seed.dropped)} dropped"
        + (f"; {found.seed.reason}." if found.seed.reason else ".")
        for model, found in each
    ]
    return Section(
        heading="The seed's target",
        text=(f"Seed: {each[0][1].seed_definition}.", *told),
        tables=tuple(table for model, found in each for table in _seed_tables(model, found)),
    )


def _seed_tables(model: str, found: ContextAttentionRouting) -> Iterator[Table]:
    seed = found.seed
    if seed.layers:
        yield Table(
            title=f"{model}: “{seed.word}” in the seed's contexts",
            columns=("layer", "seed's correlation", *_COLUMNS),
            rows=tuple(
                (str(one.layer), one.correlation, *_row(other))
                for one, other in zip(seed.layers, seed.corrected, strict=True)
            ),
            caption="beside the seed's number the corrected ones of the same contexts",
        )
    if seed.dropped:
        yield Table(
            title=f"{model}: contexts not compared",
            columns=("context", "why it was dropped"),
            rows=tuple((f"“{one.context}”", one.reason) for one in seed.dropped),
        )


def _mined(each: Sequence[tuple[str, ContextAttentionRouting]]) -> Section:
    notes = []
    for model, found in each:
        if found.reason is not None:
            notes.append(f"{model}: inconclusive: {found.reason}.")
        if found.without_attention:
            layers = ", ".join(map(str, found.without_attention))
            notes.append(f"{model}: no attention over tokens at the layers {layers}.")
        if found.targets:
            notes.append(f"{model}: {_single(found)}.")
    return Section(
        heading="Frequent tokens of the corpus",
        text=(
            f"Corrected: {each[0][1].definition}. Null of a token: its contexts permuted "
            f"({each[0][1].permutations:,} times, rows and columns together).",
            "In layer 0 nothing but attention differs between the contexts of a token: there the "
            "two go together in any model, and the mean leaves it out.",
            *notes,
        ),
        tables=tuple(table for model, found in each for table in _tables(model, found)),
    )


def _single(found: ContextAttentionRouting) -> str:
    """How many tokens are significant alone, beside how many would be by chance."""
    tests = [
        one.partial.p
        for target in found.targets
        for one in target.layers
        if one.partial.p is not None and one.layer in found.mean_layers
    ]
    hits = sum(p <= _LEVEL for p in tests)
    return (
        f"token by token, in the layers of the mean, p ≤ {_LEVEL:g} beyond the rest in {hits} of "
        f"{len(tests)} tests; {_LEVEL * len(tests):.1f} would be by chance alone, and three to "
        "seven times as many where a common cause acts in a form that ranks do not take out"
    )


def _tables(model: str, found: ContextAttentionRouting) -> Iterator[Table]:
    if not found.targets:
        return
    yield Table(
        title=f"{model}: over {len(found.targets)} tokens",
        columns=("layer", *_COLUMNS),
        rows=tuple(
            ("mean of layers > 0" if one.layer is None else str(one.layer), *_row(one))
            for one in (*found.layers, found.mean)
        ),
    )
    yield Table(
        title=f"{model}: token by token",
        columns=("token", "contexts", "layer", *_COLUMNS),
        rows=tuple(
            (f"“{target.token_text}”", target.contexts, str(one.layer), *_row(one))
            for target in found.targets
            for one in target.layers
        ),
    )


def _row(found: Relation) -> tuple[Value, ...]:
    return found.raw, found.partial, found.hidden
