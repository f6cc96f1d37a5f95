"""Experts removed in the model's own forward, one at a time, and the control experts beside them.

Which experts are removed is decided on calibration documents, what it costs is measured on
evaluation documents. A document in which no token uses the expert needs no pass: the logits are
those of the untouched model, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import Controls, controls
from moetui.analyses.cold_load import Loads
from moetui.analyses.expert_load import chosen_counts
from moetui.analyses.routed import RoutedDocument
from moetui.trace import Deselect, Drop, Forward, Intervention, ModelInfo

Array = NDArray[np.float64]
Mode = Literal["drop", "renormalise", "deselect"]
Role = Literal["coldest", "hottest", "asked"]

MEANING = {
    "drop": "its slot stays, what it puts out counts nothing",
    "renormalise": "the same, and the token's other weights grow to the same sum",
    "deselect": "it cannot be chosen, the next best expert is routed instead",
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An expert that is removed for its own sake, and its controls."""

    expert: int
    role: Role
    controls: Controls


class LayerAblations(msgspec.Struct, frozen=True, kw_only=True):
    """What is removed in a decoder layer, one expert at a time. row: the layer's place among those
    that route. load: f_e of all its experts on calibration documents. experts: every expert that
    is removed, as target or control, once."""

    layer: int
    row: int
    load: tuple[float, ...]
    targets: tuple[Target, ...]
    experts: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class AblatedDocuments:
    """D evaluation documents without each of J (mode, layer, expert), in the order of `jobs`.

    before: [D], nats of the untouched model; after: [D, J]; tokens: [D] predicted; kl: [D, J],
    Σ KL over tokens, NaN for documents it was not asked for; kl_tokens: [D]; used: [D, J], tokens
    that use the expert. error: why the model refused, None where it did not.
    """

    layers: tuple[LayerAblations, ...]
    modes: tuple[Mode, ...]
    domains: tuple[str, ...]
    before: Array
    after: Array
    tokens: Array
    kl: Array
    kl_tokens: Array
    used: NDArray[np.int64]
    error: str | None = None


def removal(mode: Mode, experts: Sequence[int], layer: int) -> Intervention:
    """Experts of a layer removed, as an intervention."""
    if mode == "deselect":
        return Deselect(experts=tuple(experts), layers=(layer,))
    return Drop(experts=tuple(experts), layers=(layer,), renormalise=mode == "renormalise")


def planned_ablations(
    load: Loads,
    info: ModelInfo,
    layers: Sequence[int],
    *,
    coldest: int,
    hottest: int,
    wanted: int,
    seed: int,
) -> tuple[LayerAblations, ...]:
    """The coldest and hottest experts of `layers` by their load on calibration documents, each
    with `wanted` random and `wanted` frequency-matched controls. The random ones are drawn once
    for a layer, so that its targets share them."""
    return tuple(
        _planned(load, info.moe_layers.index(layer), layer, coldest, hottest, wanted, seed)
        for layer in layers
    )


def jobs(
    modes: Sequence[Mode], layers: Sequence[LayerAblations]
) -> Iterator[tuple[Mode, LayerAblations, int]]:
    """Every (mode, layer, expert) that is measured, in the order of `AblatedDocuments.after`."""
    return ((mode, layer, e) for mode in modes for layer in layers for e in layer.experts)


def ablate(
    model: Forward,
    documents: Sequence[RoutedDocument],
    layers: tuple[LayerAblations, ...],
    modes: tuple[Mode, ...],
    *,
    with_kl: Sequence[bool],
    step: Callable[[], None] = lambda: None,
) -> AblatedDocuments:
    """Every expert removed on every document that uses it. with_kl: [D], where KL is measured too.

    Raises UsageError where the model refuses a mode.
    """
    work = list(jobs(modes, layers))
    shape = (len(documents), len(work))
    after, kl, used = np.zeros(shape), np.full(shape, np.nan), np.zeros(shape, np.int64)
    before = np.array([one.nll.sum(dtype=float) for one in documents])
    for d, one in enumerate(documents):
        counts = chosen_counts(one.experts, model.info.num_experts)
        for j, (mode, layer, expert) in enumerate(work):
            used[d, j] = counts[layer.row, expert]
            after[d, j], kl[d, j] = before[d], 0.0 if with_kl[d] else np.nan
            if not used[d, j]:
                continue
            change = [removal(mode, [expert], layer.layer)]
            if len(one.ids) > 1:
                after[d, j] = model.nll(one.ids, change).sum(dtype=float)
            if with_kl[d]:
                kl[d, j] = model.kl(one.ids, change).sum(dtype=float)
        step()
    return AblatedDocuments(
        layers=layers,
        modes=modes,
        domains=tuple(one.domain for one in documents),
        before=before,
        after=after,
        tokens=np.array([float(len(one.nll)) for one in documents]),
        kl=kl,
        kl_tokens=np.array([float(len(one.ids)) for one in documents]),
        used=used,
    )


def refused(error: str) -> AblatedDocuments:
    """What a model leaves that refuses."""
    none = np.zeros(0)
    return AblatedDocuments(
        layers=(), modes=(), domains=(), before=none, after=np.zeros((0, 0)), tokens=none,
        kl=np.zeros((0, 0)), kl_tokens=none, used=np.zeros((0, 0), np.int64), error=error,
    )  # fmt: skip


def whole(parts: Sequence[AblatedDocuments]) -> AblatedDocuments:
    """The documents of all parts (at least one) together."""
    return AblatedDocuments(
        layers=parts[0].layers,
        modes=parts[0].modes,
        domains=tuple(domain for part in parts for domain in part.domains),
        before=np.concatenate([part.before for part in parts]),
        after=np.concatenate([part.after for part in parts]),
        tokens=np.concatenate([part.tokens for part in parts]),
        kl=np.concatenate([part.kl for part in parts]),
        kl_tokens=np.concatenate([part.kl_tokens for part in parts]),
        used=np.concatenate([part.used for part in parts]),
    )


def _planned(
    load: Loads, row: int, layer: int, coldest: int, hottest: int, wanted: int, seed: int
) -> LayerAblations:
    f = load.share(row)
    order = np.argsort(f, kind="stable").tolist()
    hot = order[::-1][:hottest]
    cold = [e for e in order if e not in hot][:coldest]
    rng = np.random.default_rng([seed, layer])
    drawn = rng.permutation(len(f)).tolist()
    roles: list[tuple[int, Role]] = [(e, "coldest") for e in cold]
    roles += [(e, "hottest") for e in hot]
    targets: list[Target] = []
    for expert, role in roles:
        near = controls(f, expert, wanted=wanted, rng=rng)
        random = sorted([e for e in drawn if e != expert][:wanted])
        kept = msgspec.structs.replace(near, random=tuple(random))
        targets.append(Target(expert=expert, role=role, controls=kept))
    every = {e for t in targets for e in (t.expert, *t.controls.random, *t.controls.matched)}
    return LayerAblations(
        layer=layer,
        row=row,
        load=tuple(f.tolist()),
        targets=tuple(targets),
        experts=tuple(sorted(every)),
    )
