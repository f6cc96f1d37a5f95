"""What `attention_router` shows beside the shares: causes, the token's identity, whose layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from moetui.analyses.attention_router import CorpusDecomposition
from moetui.analyses.causal_check import CausalCheck, LayerEffects
from moetui.analyses.context_sensitivity import ContextSensitivity, MinedContexts
from moetui.analyses.sanity import Sanity
from moetui.analyses.token_identity import TokenIdentity
from moetui.suites.results import SuiteResult
from moetui.suites.tables import Section, Table, Value
from moetui.suites.wording import number

R = TypeVar("R")


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """Sources by layer, causal check, token identity and contexts from the corpus."""
    return (*_sources(result), *_causes(result), *_identity(result), *_mined(result))


def checks(result: SuiteResult, model: str) -> tuple[tuple[str, Value], ...]:
    """Rows of the sanity table."""
    found: list[tuple[str, Value]] = []
    for one in (one for name, one in _all(result, Sanity) if name == model):
        worst = [layer.completeness for layer in one.layers if layer.completeness is not None]
        found += [
            (
                "logits with capture are those without, bit for bit",
                f"{'yes' if one.same_logits == one.texts else 'no'}: {one.same_logits} of "
                f"{one.texts} texts",
            ),
            ("top-k reproduced by the model's own norm, router and selection", _reproduced(one)),
            ("exact ties at the k-boundary, rate at the worst layer", _ties(one)),
            (
                "completeness error of the split on the prompts, worst token (at most "
                f"{one.completeness_bound:.0e})",
                f"{max(worst):.1e}" if worst else "no split",
            ),
            (
                "another token's logits for a token's (near 0 in a finite text), worst layer",
                number(max((_value(layer.shuffled.value) for layer in one.layers), key=abs)),
            ),
            ("layer 0: earlier experts add nothing", _said(one.first_layer_experts)),
            ("checks that failed", "; ".join(one.failed) or "none"),
        ]
    return tuple(found)


def _reproduced(found: Sanity) -> str:
    rates = [layer.reproduced.value for layer in found.layers if layer.reproduced is not None]
    known = [rate for rate in rates if rate is not None]
    if not known:
        return f"not asked: {found.reproduced_error or 'no layer was read'}"
    worst = min(known)
    return f"{'yes' if worst == 1 else 'no'}: {worst:.2%} of tokens at the worst layer"


def _ties(found: Sanity) -> str:
    rates = [layer.ties.value for layer in found.layers if layer.ties is not None]
    known = [rate for rate in rates if rate is not None]
    return number(max(known)) if known else "undefined: every eligible expert is chosen"


def _said(passed: bool | None) -> str:
    return "layer 0 does not route" if passed is None else "yes" if passed else "no"


def _value(value: float | None) -> float:
    return 0.0 if value is None else value


def _all(result: SuiteResult, kind: type[R]) -> list[tuple[str, R]]:
    found: list[tuple[str, Any]] = [(cell.model, cell.result) for cell in result.cells]
    return [(model, one) for model, one in found if isinstance(one, kind)]


def _sources(result: SuiteResult) -> Iterator[Section]:
    tables = []
    for model, corpus in _all(result, CorpusDecomposition):
        for router in corpus.sources:
            rows = tuple(
                (source.part, "" if source.layer is None else source.layer, source.across_tokens)
                for source in router.sources
            )
            title = f"{model}: the router of layer {router.layer}"
            columns = ("part", "added by layer", "share across tokens")
            tables.append(Table(title=title, columns=columns, rows=rows))
    if tables:
        yield Section(
            heading="Shares by the layer that added them",
            text=("The sources of a part sum to its share; all sources of a router sum to 1.",),
            tables=tuple(tables),
        )


def _causes(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], list[str]()
    for model, found in _all(result, CausalCheck):
        text = [found.definition]
        rows: list[tuple[Value, ...]] = []
        for layer in (*found.layers, found.mean):
            rows += _effect_rows(layer, found.mean_layers)
        size = f"{found.tokens:,} tokens of {found.documents} documents"
        told = found.verdict if found.reason is None else f"{found.verdict}: {found.reason}"
        tables.append(
            Table(
                title=f"{model}: a part replaced by that of another document's token, {size}",
                columns=("layer", "part", "1 − Jaccard", "beyond random", "length of the change"),
                rows=tuple(rows),
                caption=f"{told}; length: of the change over that of the stream",
            )
        )
    if tables:
        yield Section(heading="Causal check", text=tuple(text), tables=tuple(tables))


def _effect_rows(layer: LayerEffects, mean_layers: Sequence[int]) -> list[tuple[Value, ...]]:
    name = _layer_name(layer.layer, mean_layers)
    return [
        (name, part.part, part.resample.change, part.resample.excess, part.resample.length)
        for part in layer.parts
    ]


def _layer_name(layer: int | None, mean_layers: Sequence[int]) -> str:
    return str(layer) if layer is not None else f"mean of {', '.join(map(str, mean_layers))}"


def _identity(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], list[str]()
    for model, found in _all(result, TokenIdentity):
        text = [found.definition, found.null]
        layers = [*found.layers, *([found.mean] if found.mean is not None else [])]
        rows = tuple((_layer_name(one.layer, found.mean_layers), one.eta2) for one in layers)
        told = f"; {found.verdict}: {found.reason}" if found.reason is not None else ""
        share = number(found.coverage.value)
        tables.append(
            Table(
                title=f"{model}: {found.ids:,} token ids, {share} of all tokens",
                columns=("layer", "η²"),
                rows=rows,
                caption=f"{found.documents} documents{told}",
            )
        )
    if tables:
        yield Section(
            heading="What the token alone foretells", text=tuple(text), tables=tuple(tables)
        )


def _mined(result: SuiteResult) -> Iterator[Section]:
    tables, text = [], list[str]()
    for model, found in _all(result, ContextSensitivity):
        if found.mined is None or not found.mined.words:
            continue
        text.append(f"{model}: {found.mined.beaten}.")
        tables.append(_mined_table(model, found.mined))
    if tables:
        yield Section(
            heading="Frequent tokens in contexts from the corpus",
            text=(
                "Between: mean over pairs of contexts, one a document. Shuffled: a context and the "
                "same tokens in another order, the token in its place.",
                *text,
            ),
            tables=tuple(tables),
        )


def _mined_table(model: str, found: MinedContexts) -> Table:
    rows: list[tuple[Value, ...]] = [
        (
            f"“{(word.token_text or word.word).strip() or ascii(word.token_text)}”",
            len(word.kept),
            str(layer.layer),
            layer.sets.between,
            layer.sets.shuffled,
            layer.sets.excess,
        )
        for word in found.words
        for layer in word.layers
    ]
    whole = found.sets
    rows.append(("all", None, "all", whole.between, whole.shuffled, whole.excess))
    columns = ("token", "contexts", "layer", "1 − Jaccard between", "shuffled", "excess")
    return Table(title=f"{model}: chosen sets of one token", columns=columns, rows=tuple(rows))
