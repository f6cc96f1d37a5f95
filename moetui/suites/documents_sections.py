"""The documents that the studies of a suite share, as a section."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.analyses.routed import RoutingRead
from moetui.suites.results import SuiteResult
from moetui.suites.tables import Section, Table, Value


def sections(result: SuiteResult) -> Iterator[Section]:
    """Which documents were read, and how well the untouched model predicts them."""
    rows: list[tuple[Value, ...]] = []
    told: dict[str, None] = {}
    for cell in result.cells:
        found = cell.result
        if not isinstance(found, RoutingRead):
            continue
        corpus = "given texts" if found.corpus is None else found.corpus.corpus
        rows.append((cell.model, corpus, found.n_documents, found.n_tokens, found.nll))
        if found.corpus is not None:
            told[_sampled(found)] = None
    if rows:
        columns = ("model", "documents of", "documents", "tokens", "NLL, nats a token")
        table = Table(title="What the studies read", columns=columns, rows=tuple(rows))
        yield Section(heading="Documents", text=tuple(told), tables=(table,))


def _sampled(found: RoutingRead) -> str:
    used = found.corpus
    assert used is not None
    told = f"{used.corpus}: {used.sampled} of {used.available:,} documents, each cut to "
    told += f"{found.max_tokens} tokens ({used.digest[:12]})"
    return f"{told}; {used.caveat}" if used.caveat else f"{told}."
