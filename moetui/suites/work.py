"""One analysis of one model: its parts, each from the store or from the model, then what they say.

Every partial goes through its bytes, also when it has just been made: so a run that was cut off
and taken up again, or shared by several processes, reduces the very same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import msgspec

from moetui.errors import LostRankError, MoetuiError, RunFailedError
from moetui.suites.cells import cell_key
from moetui.suites.models import LazyModel
from moetui.suites.pack import pack, unpack
from moetui.suites.plan import Analysis, Outcome, Part
from moetui.suites.progress import Progress
from moetui.suites.ranks import Ranks, shared
from moetui.suites.results import Cell, CellResult
from moetui.trace import ModelInfo

# The last cell of every analysis: intervals and tests, no forward passes.
STATISTICS = "statistics"


class Store(Protocol):
    """Where finished cells are kept; see `moetui.suites.cells`."""

    def get(self, key: str) -> bytes | None:
        """The content kept under `key`."""

    def put(self, key: str, content: bytes) -> None:
        """Keep `content`."""

    def prune(self, keep: Sequence[str]) -> None:
        """Make room, sparing the keys of `keep`."""


class _Kept(msgspec.Struct, frozen=True):
    """Content of a cell: what it left, packed, and how long it took (s)."""

    content: bytes
    seconds: float


@dataclass(kw_only=True)
class Run:
    """What all cells of a run have in common. `keys`: of every cell that was used."""

    seed: int
    progress: Progress
    store: Store
    ranks: Ranks
    keys: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Left:
    """What an analysis leaves for those that need it."""

    partials: tuple[Any, ...] = ()
    keys: tuple[str, ...] = ()
    failed: bool = False


def model_info(run: Run, model: LazyModel) -> ModelInfo:
    """What the model is, from the store where it is known, so that nothing need be loaded."""
    if model.known is None:
        key = cell_key(identity=model.identity, model=model.ref)
        stored = run.store.get(key)
        if stored is not None:
            model.known = unpack(stored, ModelInfo)
        else:
            run.store.put(key, pack(model.info))
        run.keys.append(key)
    return model.info


def analyse(
    run: Run, model: LazyModel, analysis: Analysis, left: dict[str, Left]
) -> tuple[CellResult, Exception | None]:
    """Run `analysis`; what it leaves goes into `left` under its name. The failure, if it failed,
    comes along for whoever wants its traceback."""
    label = model.ref.label
    try:
        outcome, seconds = _outcome(run, model, analysis, left)
    except LostRankError:
        raise
    except Exception as error:  # one analysis's defect must not cost the others' results
        left.setdefault(analysis.name, Left(failed=True))
        return failed(label, analysis.name, error), error
    return (
        CellResult(
            model=label,
            analysis=analysis.name,
            status="done" if outcome.reason is None else "inconclusive",
            reason=outcome.reason,
            seconds=round(seconds, 3),
            result=outcome.result,
        ),
        None,
    )


def failed(label: str, analysis: str, error: Exception) -> CellResult:
    """The result of an analysis that ended with `error`."""
    return CellResult(
        model=label,
        analysis=analysis,
        status="failed",
        reason=reason(error),
        seconds=0.0,
        result=None,
    )


def reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, MoetuiError):
        return f"{error.message} ({error.hint})"
    return f"{type(error).__name__}: {error}"


def _outcome(
    run: Run, model: LazyModel, analysis: Analysis, left: dict[str, Left]
) -> tuple[Outcome, float]:
    info = model_info(run, model)
    why_not = analysis.unfit(info)
    if why_not is not None:
        left[analysis.name] = Left()
        return Outcome(None, why_not), 0.0
    for needed in analysis.needs:
        if left[needed].failed:
            raise RunFailedError(f"{needed} failed, which this needs", "see its reason")
    parts = analysis.parts(seed=run.seed)
    keys = tuple(_part_key(run, model, analysis, part, left) for part in parts)
    kept = _parts(run, model, analysis, parts, keys, left)
    partials = tuple(unpack(one.content, analysis.partial_type) for one in kept)
    own = Left(partials=partials, keys=keys)
    # Before the statistics: these fail on rank 0 alone, and all must agree on what comes next.
    left[analysis.name] = own
    if run.ranks.rank:
        return Outcome(None, "rank 0 has the result"), 0.0
    outcome, took = _statistics(run, model, analysis, own, info)
    return outcome, took + sum(one.seconds for one in kept)


def _part_key(
    run: Run, model: LazyModel, analysis: Analysis, part: Part, left: dict[str, Left]
) -> str:
    return cell_key(
        identity=model.identity,
        analysis=_code(analysis),
        part=part.name,
        inputs=part.inputs,
        needs=[left[name].keys for name in analysis.needs],
        seed=run.seed,
    )


def _code(analysis: Analysis) -> str:
    kind = type(analysis)
    return f"{kind.__module__}.{kind.__qualname__}"


def _parts(
    run: Run,
    model: LazyModel,
    analysis: Analysis,
    parts: Sequence[Part],
    keys: Sequence[str],
    left: dict[str, Left],
) -> list[_Kept]:
    """Every part in order; each rank makes its own ones and is given the others'."""
    needs = {name: left[name].partials for name in analysis.needs}

    def read(part: Part) -> bytes:
        found = analysis.read(model.forward(), part, needs, seed=run.seed, step=run.progress.step)
        return pack(found)

    def own() -> bytes:
        made: dict[int, _Kept] = {}
        for index, (part, key) in enumerate(zip(parts, keys, strict=True)):
            if index % run.ranks.size == run.ranks.rank:
                cell = Cell(
                    model=model.ref.label,
                    analysis=analysis.name,
                    part=part.name,
                    tokens=part.tokens,
                )
                made[index] = _cell(run, cell, key, partial(read, part))
        return msgspec.msgpack.encode(made)

    whole: dict[int, _Kept] = {}
    for payload in shared(run.ranks, own):
        whole |= msgspec.msgpack.decode(payload, type=dict[int, _Kept])
    return [whole[index] for index in range(len(parts))]


def _statistics(
    run: Run, model: LazyModel, analysis: Analysis, own: Left, info: ModelInfo
) -> tuple[Outcome, float]:
    key = cell_key(
        identity=model.identity,
        # What stands in the result of the model besides what its parts left.
        model=info,
        analysis=_code(analysis),
        settings=analysis.settings(seed=run.seed),
        parts=own.keys,
        seed=run.seed,
    )
    cell = Cell(model=model.ref.label, analysis=analysis.name, part=STATISTICS, tokens=0)
    kept = _cell(run, cell, key, lambda: pack(analysis.reduce(info, own.partials, seed=run.seed)))
    return unpack(kept.content, Outcome), kept.seconds


def _cell(run: Run, cell: Cell, key: str, make: Callable[[], bytes]) -> _Kept:
    """The cell kept under `key`, else made and kept."""
    run.progress.start(cell)
    run.keys.append(key)
    stored = run.store.get(key)
    if stored is not None:
        run.progress.finish(cell, reused=True)
        return msgspec.msgpack.decode(stored, type=_Kept)
    begun = time.monotonic()
    content = make()
    kept = _Kept(content, time.monotonic() - begun)
    run.store.put(key, msgspec.msgpack.encode(kept))
    run.progress.finish(cell, reused=False)
    return kept
