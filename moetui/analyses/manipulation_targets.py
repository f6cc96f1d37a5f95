"""What routing is to be forced to: one expert of a layer, or an expert in each of several.

A context is the beginning of a document: `tokens` tokens, of which the last is the position at
which the routing is looked at, and `after` more, by whose likelihood side effects are judged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.routed import RoutedDocument
from moetui.trace.types import ExpertIds, Floats, Ints

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

RAREST, RANDOM, SEQUENCE = "rarest", "random", "sequence"


class Cell(msgspec.Struct, frozen=True):
    """An expert of a decoder layer."""

    layer: int
    expert: int


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The cells that are all to be chosen at the position. role: why these: the rarest expert of
    its layer on calibration documents, one drawn at random, or the seed's sequence over layers."""

    role: str
    cells: tuple[Cell, ...]

    def __str__(self) -> str:
        """As in the seed: L4-E17 → L8-E3."""
        return " → ".join(f"L{cell.layer}-E{cell.expert}" for cell in self.cells)


class TokenChange(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens put into a context. rows: where, counted from the position: 0 is the position's own
    token, −1 the one before it. tokens: their ids, one for each row."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]

    def applied(self, contexts: Ints, position: int) -> Ints:
        """The contexts [B, T] with these tokens in them."""
        changed = np.array(contexts, np.int32)
        for row, token in zip(self.rows, self.tokens, strict=True):
            changed[:, position + row] = token
        return changed


def expert_loads(documents: Sequence[RoutedDocument], experts: int) -> Numbers:
    """f_e [L, experts]: share of the documents' tokens that chose each expert."""
    chosen = np.concatenate([one.experts for one in documents])
    counts = [
        np.bincount(layer[layer >= 0], minlength=experts) for layer in np.moveaxis(chosen, 1, 0)
    ]
    return np.stack(counts) / max(1, len(chosen))


def choose_targets(
    loads: Numbers,
    there: Flags,
    layers: Sequence[int],
    rows: Sequence[int],
    wanted: int,
    *,
    seed: int,
) -> tuple[Target, ...]:
    """For each of the decoder `layers` (rows of `loads` [L, E]) its rarest expert and `wanted` − 1
    others at random, of those that are `there` (bool [L, E]); fewer where a layer has no more."""
    found = []
    for layer, row in zip(layers, rows, strict=True):
        experts = np.flatnonzero(there[row])
        order = experts[np.argsort(loads[row][experts], kind="stable")].tolist()
        rng = np.random.default_rng([seed, layer])
        others = rng.permutation(order[1:])[: max(0, wanted - 1)].tolist()
        found.append(Target(role=RAREST, cells=(Cell(layer, order[0]),)))
        found += [Target(role=RANDOM, cells=(Cell(layer, int(e)),)) for e in others]
    return tuple(found)


def cut(sequences: Iterable[Ints], length: int) -> Ints:
    """int32 [B, length], the beginnings of those that are long enough."""
    whole = [np.asarray(ids[:length], np.int32) for ids in sequences if len(ids) >= length]
    return np.stack(whole) if whole else np.empty((0, length), np.int32)


def cells_reached(experts: ExpertIds, routing: Sequence[int], target: Target) -> Flags:
    """bool [B, cells]: which cells are chosen; experts: [B, L, k] of the `routing` layers."""
    rows = [list(routing).index(cell.layer) for cell in target.cells]
    return np.stack(
        [
            (experts[:, row] == cell.expert).any(axis=-1)
            for row, cell in zip(rows, target.cells, strict=True)
        ],
        axis=1,
    )


def reached(experts: ExpertIds, routing: Sequence[int], target: Target) -> Flags:
    """bool [B]: success@k, all cells chosen."""
    return np.asarray(cells_reached(experts, routing, target).all(axis=1))


def logit_margins(
    logits: Floats, experts: ExpertIds, routing: Sequence[int], target: Target
) -> Numbers:
    """[B, cells]: how far the logit of each cell's expert is above the highest that was not
    chosen, or, where it was not chosen itself, below (negative) the lowest that was."""
    found = []
    for cell in target.cells:
        row = list(routing).index(cell.layer)
        z = logits[:, row].astype(float)
        edges = boundary_experts(z, experts[:, row], cell.expert)
        found.append(z[:, cell.expert] - z[np.arange(len(z)), edges])
    return np.stack(found, axis=1)


def boundary_experts(z: Numbers, chosen: ExpertIds, expert: int) -> NDArray[np.intp]:
    """[B]: whom `expert` has to beat: the lowest chosen one where it is not chosen, else the
    highest of the others. z: [B, E]; chosen: [B, k]."""
    inside = np.zeros(z.shape, bool)
    for column in chosen.T:
        known = column >= 0
        inside[np.flatnonzero(known), column[known]] = True
    known = np.isfinite(z)
    lowest = np.where(inside & known, z, np.inf).argmin(axis=1)
    highest = np.where(~inside & known, z, -np.inf).argmax(axis=1)
    return np.asarray(np.where(inside[:, expert], highest, lowest))


def generator(seed: int, purpose: int, ids: Ints) -> np.random.Generator:
    """Draws that follow the seed and the tokens, whatever part or order they are read in."""
    return np.random.default_rng([seed, purpose, zlib.crc32(np.ascontiguousarray(ids).tobytes())])
