"""The seed's look at a few prompts: one expert against all of them, sums, and pairs.

Its text gives no formulas; what is taken for them here is written beside every number. Judged by
what the model says and puts out, never by the length of a text; "native k" is asked for as any
other number is, and must change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import Statistic
from moetui.trace import Forward, Intervention, ModelInfo, TopK, Trace

Numbers = NDArray[np.float64]

AS_PUBLISHED = "seed: no interval, no null"
DEFINITION = (
    "greedy continuation with one expert a token against that with the native number; linearity = "
    "‖c Σ g f − what the layer's experts added‖ / ‖what they added‖ with the best number c, 0 if "
    "outputs are combined linearly; two experts chosen together are compatible if their outputs' "
    "cosine is above 0; last token of every prompt, all layers"
)
# Parts of the stream in which routed experts cannot be told from something else.
_NOT_APART = ("shared expert", "experts, combined")


class SeedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. native, single: what the model writes with the native number of experts and
    with one; same: whether they are one text. no_op: whether the native number, asked for, leaves
    the next-token logits bit for bit. residual, compatible: medians and shares over layers, None
    where that cannot be read."""

    prompt: str
    native: str
    single: str
    same: bool
    no_op: bool
    residual: float | None
    compatible: float | None


class SeedInterference(msgspec.Struct, frozen=True, kw_only=True, tag="seed_interference"):
    """Over the prompts. changed: share whose continuation differs with one expert. no_op: prompts
    that the native number leaves bit for bit. linearity: mean residual, 0 by construction wherever
    a block adds up weights times outputs, trained or not; compatible: share of pairs."""

    definition: str
    prompts: tuple[SeedPrompt, ...]
    written: int
    changed: Statistic
    no_op: int
    linearity: Statistic
    compatible: Statistic


@dataclass(frozen=True, eq=False)
class SeedPrompts:
    """What was read of some prompts."""

    prompts: tuple[SeedPrompt, ...]


def seed_prompt(model: Forward, prompt: str, written: int) -> SeedPrompt:
    """One prompt, and `written` tokens after it, with one expert and with the native number.

    Raises UsageError where the model takes no other number of experts.
    """
    ids = [int(token) for token in model.tokenize(prompt)]
    trace = model.trace(ids, lens=0, streams=True, expert_outputs=True)
    asked = model.trace(ids, lens=0, residuals=False, interventions=(TopK(k=model.info.top_k),))
    native, single = (_continued(model, ids, written, changes) for changes in ((), (TopK(k=1),)))
    return SeedPrompt(
        prompt=prompt,
        native=native,
        single=single,
        same=native == single,
        no_op=bool(np.array_equal(asked.logits, trace.logits)),
        residual=_residual(model.info, trace),
        compatible=_compatible(trace),
    )


def seed_interference(prompts: Sequence[SeedPrompt], *, written: int) -> SeedInterference:
    """Means over the prompts. Raises ValueError for none."""
    if not prompts:
        raise ValueError("the seed reads prompts")
    changed = [float(not one.same) for one in prompts]
    return SeedInterference(
        definition=DEFINITION,
        prompts=tuple(prompts),
        written=written,
        changed=_mean(changed, AS_PUBLISHED),
        no_op=sum(one.no_op for one in prompts),
        linearity=_mean(
            [one.residual for one in prompts],
            "seed: 0 by construction, whatever the experts do; no interval, no null",
        ),
        compatible=_mean([one.compatible for one in prompts], AS_PUBLISHED),
    )


def _continued(
    model: Forward, ids: Sequence[int], written: int, changes: Sequence[Intervention]
) -> str:
    """Greedily, a whole pass for every token."""
    whole = list(ids)
    for _ in range(written):
        trace = model.trace(whole, lens=0, residuals=False, interventions=changes)
        whole.append(int(trace.logits.argmax()))
    return "".join(model.token_text(token) for token in whole[len(ids) :])


def _residual(info: ModelInfo, trace: Trace) -> float | None:
    """Median over layers at the last token; None where routed experts are not apart."""
    if trace.streams is None or trace.expert_outputs is None:
        return None
    if set(_NOT_APART) & set(info.part_names) or not info.part_names:
        return None
    layers = trace.layers
    added = (trace.streams.leaving - trace.streams.at_router)[-1, layers].astype(float)
    mixed = _contributions(info, trace).sum(axis=1)
    if mixed.shape != added.shape:
        return None
    lengths, squares = np.linalg.norm(added, axis=-1), (mixed**2).sum(axis=-1)
    # Some layers multiply whatever a block puts out by one number before they add it.
    c = (mixed * added).sum(axis=-1) / np.where(squares > 0, squares, 1.0)
    errors = np.linalg.norm(c[:, None] * mixed - added, axis=-1)[lengths > 0] / lengths[lengths > 0]
    return float(np.median(errors)) if len(errors) else None


def _compatible(trace: Trace) -> float | None:
    """Share of pairs of the last token's experts, over layers, whose outputs' cosine is above 0."""
    if trace.expert_outputs is None or trace.expert_outputs.shape[2] < 2:
        return None
    outputs = np.nan_to_num(trace.expert_outputs[-1]).astype(float)  # [L, k, H]
    products = np.einsum("lih,ljh->lij", outputs, outputs)
    first, second = np.triu_indices(outputs.shape[1], 1)
    return float((products[:, first, second] > 0).mean())


def _contributions(info: ModelInfo, trace: Trace) -> Numbers:
    """[L, k, H], weight times output at the last token."""
    assert trace.expert_outputs is not None
    outputs: Numbers = np.nan_to_num(trace.expert_outputs[-1]).astype(float)
    if info.weights_scale_input:
        return outputs
    weighted: Numbers = np.nan_to_num(trace.expert_weights[-1, ..., None]) * outputs
    return weighted


def _mean(values: Sequence[float | None], caveat: str) -> Statistic:
    known = [value for value in values if value is not None]
    if not known:
        return Statistic(n_documents=0, caveat="cannot be read in this architecture")
    return Statistic(value=float(np.mean(known)), n_documents=len(known), caveat=caveat)
