"""Headline numbers of `circuits`, and its two verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.causal_edges import CausalEdge, CausalEdges
from moetui.analyses.expert_edges import Edge, ExpertEdges
from moetui.analyses.seed_circuits import COVERAGE, SeedCircuits
from moetui.stats import Statistic
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts
from moetui.suites.wording import number, probability

SEED_CONSISTENCY = "consistency of matched experts"
SEED_PIPELINES = "pipelines through the layers"
BEYOND_TOGETHER = "edges beyond token and document together"
BEYOND_BOTH = "edges beyond token and document, each by itself"
EFFECT = "effect of silencing a source over controls, mean of edges"
INCONCLUSIVE = "inconclusive"

SEED_RULE = (
    "the seed states no threshold; it calls 15 pipelines with 87.5 % consistency strong "
    "structure. Read as: strong structure where there is a pipeline and consistency is above "
    "0.5, some structure where there is a pipeline, else none"
)
CORRECTED_RULE = (
    "by the edges of each model: circuits where some beat all three shuffles in both halves of the "
    "documents, two or more of them make a path, and of them at least half of those put to the "
    "test are causal; causal edges where some are, but fewer or without a path; correlated where "
    "none is (or none could be tested); "
    "token and document where edges beat the shuffles within documents and among equal tokens, "
    "but none also that among equal tokens of a document; token identity where edges beat the "
    "shuffle within documents, but none also that among equal tokens; none where no edge does. "
    "Inconclusive below a tenth of 20,000 tokens or with data missing. Models that differ: mixed"
)
WORDS = {
    "circuits": "experts form paths of edges that token and document together do not explain, and "
    "silencing sources lowers the choice of their targets",
    "causal edges": "some edges beyond token and document together are causal, but most of those "
    "tested are not, or they form no path",
    "correlated": "experts of different layers go together beyond what token and document together "
    "explain, but none of these edges was shown to be causal",
    "token and document": "experts of different layers go together beyond what token or document "
    "alone explains, but were not shown to do so beyond what both explain together",
    "token identity": "experts of different layers go together, but were not shown to do so beyond "
    "what equal tokens explain",
    "none": "experts of different layers do not go together beyond what their documents prefer",
    "mixed": "the models differ",
}


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model, from all its results; a number that is missing is left out."""
    return tuple(measure for cell in cells for measure in _of(model, cell))


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    seed = [(c.model, c.result) for c in cells if isinstance(c.result, SeedCircuits)]
    edges = [(c.model, c.result) for c in cells if isinstance(c.result, ExpertEdges)]
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    return Verdicts(
        seed=_seed_verdict(seed, cells),
        corrected=_corrected_verdict(models, cells),
        why_they_differ=_why(seed, edges),
    )


def outcome(edges: ExpertEdges, causes: CausalEdges | None) -> str:
    """The corrected rule for one model, of data that are enough."""
    if not edges.beyond_both.value:
        return "token identity" if edges.only_documents else "none"
    if not edges.beyond_together.value:
        return "token and document"
    tested = _beyond_together(edges, _tested(causes))
    causal = _causal(tested)
    if not causal:
        return "correlated"
    return "circuits" if 2 * causal >= len(tested) and edges.paths.paths else "causal edges"


def _tested(causes: CausalEdges | None) -> list[CausalEdge]:
    """Edges put to the test, with an answer."""
    return [e for e in causes.edges if e.verdict != INCONCLUSIVE] if causes else []


def _beyond_together(edges: ExpertEdges, tested: Sequence[CausalEdge]) -> list[CausalEdge]:
    """Those of them that beat all three shuffles: where these are few, others are tested too."""
    strong = {_key(edge) for edge in edges.edges if edge.beaten == "all three"}
    return [edge for edge in tested if _key(edge) in strong]


def _key(edge: Edge | CausalEdge) -> tuple[int, int, int, int]:
    return edge.source_layer, edge.source, edge.target_layer, edge.target


def _causal(tested: Sequence[CausalEdge]) -> int:
    return sum(edge.verdict == "causal" for edge in tested)


def _of(model: str, cell: CellResult) -> Iterator[Measure]:
    match cell.result:
        case SeedCircuits() as found:
            for name, statistic in (
                (SEED_CONSISTENCY, found.consistency),
                (SEED_PIPELINES, found.pipelines),
            ):
                yield Measure(model=model, label="seed", name=name, statistic=statistic)
        case ExpertEdges() as found:
            for name, statistic in _edge_numbers(found):
                yield Measure(model=model, label="corrected", name=name, statistic=statistic)
        case CausalEdges() as found if found.mean.value is not None:
            yield Measure(model=model, label="corrected", name=EFFECT, statistic=found.mean)


def _edge_numbers(found: ExpertEdges) -> Iterator[tuple[str, Statistic]]:
    yield BEYOND_TOGETHER, found.beyond_together
    yield BEYOND_BOTH, found.beyond_both
    what = "nats that experts of two layers share, held out"
    yield what, found.information.held_out
    yield f"{what}, beyond documents", found.information.beyond_documents
    yield f"{what}, beyond equal tokens", found.information.beyond_tokens
    yield "longest path, edges", found.paths.longest


def _seed_verdict(
    found: Sequence[tuple[str, SeedCircuits]], cells: Sequence[CellResult]
) -> Verdict:
    evidence = tuple(
        measure
        for model, _ in found
        for measure in measures(model, [c for c in cells if c.model == model])
        if measure.label == "seed"
    )
    if not found:
        said = _reasons(cells) or "the seed's prompts were not read"
        return _verdict("seed rule", INCONCLUSIVE, f"inconclusive: {said}", SEED_RULE, ())
    least = min(found, key=lambda one: one[1].consistency.value or 0.0)
    outcomes = {_seed_outcome(one) for _, one in found}
    told = "; ".join(
        f"{model}: {one.pipelines.value:.0f} pipelines through at least {COVERAGE:.0%} of the "
        f"layers, consistency {number(one.consistency.value)} over "
        f"{one.consistency.n_tokens} positions"
        for model, one in found
    )
    said = _seed_outcome(least[1]) if len(outcomes) == 1 else "mixed"
    return _verdict("seed rule", said, f"{said}: {told}", SEED_RULE, evidence)


def _seed_outcome(found: SeedCircuits) -> str:
    if not found.pipelines.value:
        return "none"
    return "strong structure" if (found.consistency.value or 0.0) > 0.5 else "some structure"


def _corrected_verdict(models: Sequence[str], cells: Sequence[CellResult]) -> Verdict:
    outcomes, told, evidence = [], [], []
    for model in models:
        own = [cell for cell in cells if cell.model == model]
        edges = next((c.result for c in own if isinstance(c.result, ExpertEdges)), None)
        causes = next((c.result for c in own if isinstance(c.result, CausalEdges)), None)
        evidence += [one for one in measures(model, own) if one.label == "corrected"]
        if edges is None or edges.reason is not None:
            reason = edges.reason if edges is not None else _reasons(own)
            outcomes.append(INCONCLUSIVE)
            told.append(f"{model}: inconclusive: {reason or 'edges were not measured'}")
        else:
            outcomes.append(outcome(edges, causes))
            told.append(f"{model}: {WORDS[outcomes[-1]]} ({_numbers(edges, causes)})")
    said = _together(outcomes)
    return _verdict("corrected", said, "; ".join(told), CORRECTED_RULE, tuple(evidence))


def _together(outcomes: Sequence[str]) -> str:
    if not outcomes or INCONCLUSIVE in outcomes:
        return INCONCLUSIVE
    return outcomes[0] if len(set(outcomes)) == 1 else "mixed"


def _numbers(edges: ExpertEdges, causes: CausalEdges | None) -> str:
    """What a verdict rests on, in figures."""
    told = [
        f"{edges.beyond_together.value:.0f} of {edges.cells:,} pairs of experts beyond token and "
        f"document together (shown on the {edges.movable_together:.0%} of tokens that a document "
        f"has twice), {edges.beyond_both.value:.0f} beyond each of the two by itself, "
        f"{edges.only_documents:,} more beyond documents only"
    ]
    lifts = sorted(e.evaluation.over_tokens for e in edges.edges if e.beaten == "all three")
    if lifts:
        told.append(
            f"{number(lifts[len(lifts) // 2])} times as often as among equal tokens (median of "
            "those picked)"
        )
    longest = edges.paths.longest
    if longest.value:
        chance = "" if longest.p is None else f", p {probability(longest.p)} against random edges"
        told.append(f"longest path {longest.value:.0f} edges{chance}")
    tested = _tested(causes)
    strong = _beyond_together(edges, tested)
    if tested:
        told.append(f"{_causal(tested)} of {len(tested)} tested are causal")
        if len(strong) < len(tested):
            told.append(f"{_causal(strong)} of {len(strong)} of those beyond token and document")
    else:
        told.append(f"cause not tested: {causes.reason if causes else 'no passes were made'}")
    return ", ".join(told)


def _verdict(
    label: str, said: str, statement: str, rule: str, evidence: tuple[Measure, ...]
) -> Verdict:
    return Verdict(label=label, outcome=said, statement=statement, rule=rule, evidence=evidence)


def _reasons(cells: Sequence[CellResult]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))


def _why(
    found: Sequence[tuple[str, SeedCircuits]], edges: Sequence[tuple[str, ExpertEdges]]
) -> str:
    chance = "; ".join(
        f"{model}: consistency {number(one.consistency.value)}, with every layer's positions "
        f"shuffled {number(one.consistency.null_mean)}"
        for model, one in found
    )
    explained = "; ".join(
        f"{model}: {one.only_documents:,} pairs of experts go together within documents, but no "
        "more than among equal tokens"
        for model, one in edges
        if one.only_documents
    )
    return (
        "The seed correlates weights over the few positions of six short prompts and keeps only "
        "the best matches, which unrelated layers have too"
        f"{f' ({chance})' if chance else ''}; the corrected rule asks all pairs at once, over "
        "documents and in two halves, to beat shuffles within documents, among equal tokens and "
        "among equal tokens of a document"
        f"{f' ({explained})' if explained else ''}, and a cause to be shown by silencing the "
        "source."
    )
