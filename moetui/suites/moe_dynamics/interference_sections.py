"""What `interference` shows of its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from moetui.analyses.better_with_fewer import FewerExperts
from moetui.analyses.expert_interference import ExpertInterference, LayerInterference
from moetui.analyses.pair_additivity import PairAdditivity
from moetui.analyses.seed_interference import SeedInterference
from moetui.suites.results import SuiteResult, results_of
from moetui.suites.tables import Section, Table, Value

R = TypeVar("R")

# Kinds of input that a table lists.
_LISTED = 20


def sections(result: SuiteResult) -> tuple[Section, ...]:
    """All of them, as far as they were measured."""
    return (*_seed(result), *_geometry(result), *_numbers(result), *_pairs(result))


def _seed(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, SeedInterference)
    if not each:
        return
    checks = [
        f"{model}: the native number of experts, asked for, leaves the logits of {found.no_op} of "
        f"{len(found.prompts)} prompts bit for bit as they were."
        for model, found in each
    ]
    tables = tuple(
        Table(
            title=f"{model}: what it writes",
            columns=("prompt", "native experts", "one expert", "residual", "compatible pairs"),
            rows=tuple(
                (p.prompt, p.native, p.single, p.residual, p.compatible) for p in found.prompts
            ),
        )
        for model, found in each
    )
    yield Section(
        heading="One expert, as the seed asks", text=(f"{each[0][1].definition}.", *checks),
        tables=tables,
    )  # fmt: skip


def _geometry(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, ExpertInterference)
    if not each:
        return
    notes = [
        f"{model}: experts were not dealt out anew: {found.not_substituted}."
        for model, found in each
        if found.not_substituted is not None
    ]
    columns = (
        "layer", "I", "most it could be", "beyond other experts", "cosine of two contributions",
        "cosine of the first with the mixture", "if at right angles",
    )  # fmt: skip
    tables = tuple(
        Table(
            title=f"{model}: lengths and angles of what a token's experts put out",
            columns=columns,
            rows=(
                *(_layer_row(str(layer.layer), layer) for layer in found.layers),
                _layer_row(f"mean of {_mean_of(found)}", found.mean),
            ),
            caption=f"{found.documents} documents; null of I: {found.substitutions} draws at the "
            f"layers {', '.join(map(str, found.substituted_layers)) or 'none'}",
        )
        for model, found in each
    )
    yield Section(
        heading="Do outputs add up, or cancel?",
        text=(f"{each[0][1].definition}.", *notes),
        tables=tables,
    )


def _mean_of(found: ExpertInterference) -> str:
    return ", ".join(map(str, found.substituted_layers)) or "all of them"


def _layer_row(layer: str, found: LayerInterference) -> tuple[Value, ...]:
    return (
        layer, found.index, found.greatest, found.excess, found.share, found.top_cosine,
        found.top_cosine_at_right_angles,
    )  # fmt: skip


def _numbers(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, FewerExperts)
    if not each:
        return
    told = [
        f"{model}: {found.native} experts a token natively; asked for, they leave the loss of "
        f"{found.unchanged} of {found.checked} documents bit for bit as it was."
        + (f" Not everything could be tried: {found.incomplete}." if found.incomplete else "")
        for model, found in each
    ]
    yield Section(
        heading="Other numbers of experts",
        text=(
            "Change of the loss in nats a token on evaluation documents, and KL from the unchanged "
            "model, with the number of experts changed in every layer.",
            *told,
        ),
        tables=tuple(_curve(model, found) for model, found in each),
    )
    better = [found.better for _, found in each]
    yield Section(
        heading="Inputs that fewer experts serve better",
        text=(
            f"Corrected: {better[0].definition}.",
            *(said for model, found in each for said in _better(model, found)),
        ),
        tables=tuple(table for model, found in each for table in _picked(model, found)),
    )


def _curve(model: str, found: FewerExperts) -> Table:
    return Table(
        title=f"{model}: loss by number of experts",
        columns=("experts", "kept", "own rule", "loss, nats a token", "KL, nats a token"),
        rows=tuple(
            (point.experts, point.match, "yes" if point.own else "", point.nll, point.kl)
            for point in found.points
        ),
    )


def _better(model: str, found: FewerExperts) -> Iterator[str]:
    better = found.better
    if better.documents_better is not None:
        yield (
            f"{model}, seed: {better.documents_better} of {better.documents} documents have a "
            "lower loss with one expert, as picked and not asked again."
        )
    if better.change is None or better.picked_by is None:
        yield f"{model}: none of {better.candidates} was picked."
        return
    yield (
        f"{model}: of {better.candidates} kinds of input and numbers of experts "
        f"{len(better.picked)} were picked, {len(better.confirmed)} confirmed. Together they "
        f"changed the loss by {better.picked_by:+.4f} nats a token where they were picked, and by "
        f"{better.change.value:+.4f} on new text."
    )


def _picked(model: str, found: FewerExperts) -> Iterator[Table]:
    picked = sorted(found.better.picked, key=lambda one: (one.change.q or 1.0, one.picked_by))
    if not picked:
        return
    caption = None
    if len(picked) > _LISTED:
        caption = f"the {_LISTED} of {len(picked)} with the lowest q"
    yield Table(
        title=f"{model}: kinds of input that were picked",
        columns=("kind", "which", "experts", "where picked", "on new text", "confirmed"),
        rows=tuple(
            (
                one.kind, one.name, one.experts, one.picked_by, one.change,
                "yes" if one.confirmed else "no",
            )
            for one in picked[:_LISTED]
        ),
        caption=caption,
    )  # fmt: skip


def _pairs(result: SuiteResult) -> Iterator[Section]:
    each = _each(result, PairAdditivity)
    if not each:
        return
    yield Section(
        heading="Pairs of experts",
        text=(f"{each[0][1].definition}.",),
        tables=tuple(table for model, found in each for table in _pair_tables(model, found)),
    )


def _pair_tables(model: str, found: PairAdditivity) -> Iterator[Table]:
    yield Table(
        title=f"{model}: loss beyond the sum, layer {found.layer}",
        columns=("pairs", "mean"),
        rows=(
            ("chosen together most often", found.mean_together),
            ("random", found.mean_random),
            ("difference", found.difference),
        ),
    )
    yield Table(
        title=f"{model}: pairs of layer {found.layer}, nats a token",
        columns=(
            "pair", "kind", "tokens with both", "first alone", "second alone", "both", "beyond",
        ),
        rows=tuple(
            (
                f"E{p.first} E{p.second}", p.kind, f"{p.together:.1%}", p.first_alone,
                p.second_alone, p.both, p.beyond,
            )
            for p in found.pairs
        ),
        caption=f"{found.documents} documents",
    )  # fmt: skip


def _each(result: SuiteResult, kind: type[R]) -> Sequence[tuple[str, R]]:
    return [
        (record.name, one)
        for record in result.models
        for one in results_of(result, record.name, kind)
    ]
