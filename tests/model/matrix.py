"""What is read of every architecture, checked one by one: the table of families × checks.

Each check compares a trace with something that is not made by the capture: the plain forward,
spies on mlx-lm's own classes, or numpy. `python -m tests.model.matrix` prints the table,
`--write` puts it into README.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchGLU, SwitchMLP

from moetui.trace import Trace
from tests.model.architectures import ARCHITECTURES
from tests.model.silenced import RouterReader, attention_output
from tests.model.subject import (
    TOKENS,
    Array,
    Subject,
    banks_do,
    each_alone,
    error,
    replaced,
    state_of,
    subject_of,
)

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"
# Relative to the largest value. Sums in another order differ by about 1e-6 in float32.
CLOSE = 1e-5


def sites(subject: Subject) -> None:
    """Every layer that holds a bank is read, and no other."""
    holding = [
        index
        for index, layer in enumerate(subject.network.layers)
        if any(isinstance(m, SwitchGLU | SwitchMLP) for _, m in layer.named_modules())
    ]
    assert holding and list(subject.model.info.moe_layers) == holding
    z = subject.trace.router_logits
    assert np.isfinite(z).all()
    for one, other in zip(range(z.shape[1]), range(1, z.shape[1]), strict=False):
        assert not np.array_equal(z[:, one], z[:, other])


def unchanged(subject: Subject) -> None:
    """Logits are bit for bit those of the plain forward."""
    assert np.array_equal(subject.trace.logits, subject.plain[-1])


def router(subject: Subject) -> None:
    """Router logits are W·(router input) + bias, in float64 numpy."""
    streams = subject.trace.streams
    assert streams is not None
    for column, site in enumerate(subject.model.architecture.sites.values()):
        W = np.array(site.router["weight"]).astype(np.float64)
        z = streams.router_input[:, column].astype(np.float64) @ W.T
        z = z + (np.array(site.bias) if site.bias is not None else 0)
        assert error(subject.trace.router_logits[:, column], z.astype(np.float32)) < CLOSE


def experts(subject: Subject) -> None:
    """The ids are those that the banks received, best selection score first."""
    received: dict[int, Array] = {}

    def spy(number: int, output: mx.array, indices: mx.array) -> mx.array:
        received[number] = np.array(indices).reshape(TOKENS, -1)
        return output

    with banks_do(subject, spy):
        subject.run(subject.ids)
    trace, scores = subject.trace, subject.trace.selection_scores
    assert scores is not None
    for number, site in enumerate(subject.model.architecture.sites.values()):
        ids = trace.expert_ids[:, number]
        in_bank = np.where(ids >= site.bank_experts, 0, ids)  # identity experts have no place there
        assert np.array_equal(np.sort(in_bank, -1), np.sort(received[number], -1))
        best = np.argsort(-scores[:, number], axis=-1, kind="stable")[:, : ids.shape[-1]]
        assert np.array_equal(ids, best)


def weights(subject: Subject) -> None:
    """Σ weight · output is what the block puts out more than without its experts."""
    trace = subject.trace
    assert trace.expert_outputs is not None
    outputs, factors = trace.expert_outputs, trace.expert_weights[..., None]
    if subject.model.info.weights_scale_input:
        factors = np.ones_like(factors)
    whole, without = subject.blocks
    pairs = enumerate(subject.model.architecture.sites.values())
    for number, site in pairs:
        held = trace.expert_ids[:, number, :, None] < site.bank_experts
        terms = (factors * outputs)[:, number]
        routed = np.where(held, terms, 0).sum(1)
        if routed.shape == whole[number].shape:
            assert error(routed, whole[number] - without[number]) < CLOSE
        if not held.all():
            identity = np.where(held, 0, terms).sum(1)
            assert error(identity, without[number]) < CLOSE
    _same_with_all_in_one_slot(subject, whole)


def _same_with_all_in_one_slot(subject: Subject, whole: list[Array]) -> None:
    """The block puts out the same when one slot's output carries the whole weighted sum: so the
    weights are right among themselves also where the sum is projected or normed afterwards."""
    trace = subject.trace
    if subject.model.info.weights_scale_input:
        return  # one expert a token: there is nothing among which to be right

    def gathered(number: int, output: mx.array, indices: mx.array) -> mx.array:
        site = list(subject.model.architecture.sites.values())[number]
        ids, w = trace.expert_ids[:, number], trace.expert_weights[:, number]
        table = np.zeros((TOKENS, site.num_experts), np.float32)
        np.put_along_axis(table, ids.astype(np.int64), w, -1)
        flat = output.reshape(TOKENS, -1, output.shape[-1])
        slots = indices.reshape(TOKENS, -1)
        mine = mx.take_along_axis(mx.array(table), slots, -1)
        if site.num_experts > site.bank_experts:
            return output  # slots of identity experts share id 0 with its own: not to be told apart
        total = (flat * mine[..., None]).sum(1, keepdims=True) / mine[:, :1, None]
        moved = mx.concatenate([total, mx.zeros_like(flat[:, 1:])], axis=1)
        return moved.reshape(output.shape)

    for number, output in enumerate(each_alone(subject, gathered)):
        assert error(output, whole[number]) < 10 * CLOSE


def shares(subject: Subject) -> None:
    """The parts add up to the router's logits, and the shares to 1."""
    trace = subject.trace
    assert trace.router_parts is not None and trace.shares is not None
    z = trace.router_parts.astype(np.float64).sum(2).astype(np.float32)
    assert error(z, trace.router_logits) < CLOSE
    np.testing.assert_allclose(trace.shares.values.sum(-1), 1, atol=1e-4)
    if "shared expert" in trace.part_names:
        _routed_apart_from_shared(subject)


def _routed_apart_from_shared(subject: Subject) -> None:
    """At the second router: what the first block's experts added, from the block without them."""
    trace, sites = subject.trace, list(subject.model.architecture.sites.values())
    assert trace.streams is not None and trace.router_parts is not None
    first, second = sites[0], sites[1]
    whole, without = (outputs[0].astype(np.float64) for outputs in subject.blocks)
    added = (trace.streams.leaving - trace.streams.at_router)[:, first.layer]
    scale = np.full_like(whole, (added * whole).sum() / (whole * whole).sum())
    if error(scale * whole, added) > 1e-3:  # a norm on the way multiplies elementwise
        scale = added / whole
    routed = scale * (whole - without)
    gain = trace.streams.router_input[:, 1] / trace.streams.at_router[:, second.layer]
    z = (routed * gain) @ np.array(second.router["weight"]).astype(np.float64).T
    ours = trace.router_parts[:, 1, trace.part_names.index("routed experts")]
    assert error(ours, z.astype(np.float32)) < 10 * CLOSE


def by_expert(subject: Subject) -> None:
    """What single experts add to the last router's logits makes up each layer's routed part."""
    model, trace = subject.model, subject.trace
    last = model.info.moe_layers[-1]
    found = model.expert_sources(subject.ids, last)
    sources = model.trace(subject.ids, lens=0, sources=(last,)).sources
    assert sources is not None
    rows = [trace.layers.tolist().index(layer) for layer in found.layers]
    assert rows == list(range(len(rows))) and found.completeness.max() < CLOSE
    assert np.array_equal(np.sort(found.expert_ids), np.sort(trace.expert_ids[:, rows]))
    for row, layer in enumerate(found.layers.tolist()):
        added = sources.logits[:, 0, sources.names.index(("routed experts", layer))]
        assert error(found.logits[:, row].sum(axis=1), added) < CLOSE


def by_head(subject: Subject) -> None:
    """What single heads add to the last router's logits makes up each layer's attention, and is
    what attention lacks where the kernel puts out zeros for that head."""
    model = subject.model
    last = model.info.moe_layers[-1]
    found = model.head_sources(subject.ids, last)
    trace = model.trace(subject.ids, lens=0, streams=True, sources=(last,))
    assert trace.sources is not None and found.completeness.max() < CLOSE
    for row, layer in enumerate(found.layers.tolist()):
        added = trace.sources.logits[:, 0, trace.sources.names.index(("attention", layer))]
        assert error(found.logits[:, row].sum(axis=1), added) < CLOSE
    row = int(np.argmax(found.heads > 0))
    layer, heads = int(found.layers[row]), int(found.heads[row])
    reader = RouterReader(subject.network.layers[last], model.architecture.sites[last].router)
    whole = attention_output(subject.network, subject.ids, layer)
    for head in range(heads):
        lacking = whole - attention_output(subject.network, subject.ids, layer, without=head)
        expected = reader.logits(subject.trace.streams, layer, last, whole, lacking)
        assert error(found.logits[:, row, 1 + head], expected) < 10 * CLOSE
    assert not found.logits[:, row, 1 + heads :].any()


def lens(subject: Subject) -> None:
    """The lens of the last layer is the model's own output."""
    lens = subject.trace.lens
    assert lens is not None
    logits = subject.plain.astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    own = np.take_along_axis(logprobs, lens.token_ids[:, -1].astype(np.int64), -1)
    assert error(lens.logprobs[:, -1], own.astype(np.float32)) < CLOSE
    assert np.array_equal(lens.answer_ids, subject.plain.argmax(-1))


def decode(subject: Subject) -> None:
    """Token by token with a cache: bit for bit mlx-lm's own, and the routing of the whole pass."""
    prompt, rest = subject.ids[:9], 12
    generation = subject.model.generate(prompt, rest)
    steps = list(generation)
    memory = make_prompt_cache(subject.network)
    logits = subject.run(prompt, memory)
    assert np.array_equal(generation.prompt.logits, logits[-1])
    for step in steps:
        assert int(step.token_ids[0]) == int(logits[-1].argmax())
        logits = subject.run(step.token_ids.tolist(), memory)
        assert np.array_equal(step.logits, logits[-1])
    ids = [*prompt, *(int(step.token_ids[0]) for step in steps)]
    whole, full = subject.model.trace(ids), subject.run(ids)
    # Where mlx-lm's own decode computes something else than its full pass (sparse attention
    # that selects among other keys), routing follows it.
    same = [
        (row, step)
        for row, step in enumerate(steps, len(prompt))
        if error(step.logits, full[row]) < 1e-5
    ]
    assert len(same) > 2
    for row, step in same:
        assert error(step.router_logits[0], whole.router_logits[row]) < 1e-4
        clear = _margin(whole, row) > 1e-4
        assert np.array_equal(step.expert_ids[0][clear], whole.expert_ids[row][clear])


def _margin(trace: Trace, row: int) -> Array:
    """By layer, the smallest distance between neighbours among the k + 1 best scores."""
    assert trace.selection_scores is not None
    best = -np.sort(-trace.selection_scores[row], axis=-1)[:, : trace.expert_ids.shape[-1] + 1]
    gaps: Array = (-np.diff(best, axis=-1)).min(-1) / np.abs(best).max(-1)
    return gaps


def attention(subject: Subject) -> None:
    """The probabilities, applied to the values, give what the fused kernel put out."""
    seen: list[tuple[int, mx.array, mx.array]] = []
    kernel, layers = mx.fast.scaled_dot_product_attention, list(subject.network.layers)
    current = [0]

    def spy(q: mx.array, k: mx.array, v: mx.array, **kwargs: Any) -> mx.array:
        output = kernel(q, k, v, **kwargs)
        seen.append((current[0], v, output))
        return output

    def forward(original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        current[0] = next(i for i, layer in enumerate(layers) if layer is module)
        return original(module, *args, **kwargs)

    mx.fast.scaled_dot_product_attention = spy
    try:
        with replaced(type(layers[0]), forward):
            subject.run(subject.ids)
    finally:
        mx.fast.scaled_dot_product_attention = kernel
    _compare_attention(subject, seen)


def _compare_attention(subject: Subject, seen: list[tuple[int, mx.array, mx.array]]) -> None:
    probabilities = subject.trace.attention
    over_tokens = [(i, v[0], o[0]) for i, v, o in seen if v.shape[2] == TOKENS]
    assert probabilities is not None and over_tokens
    used = dict.fromkeys(range(len(probabilities)), 0)
    for layer, values, output in over_tokens:
        heads = output.shape[0]
        own = probabilities[layer, used[layer] : used[layer] + heads]
        used[layer] += heads
        v = np.repeat(np.array(values), heads // values.shape[0], axis=0)
        assert error(own @ v, np.array(output)) < CLOSE
        assert np.array_equal(own, np.tril(own))
    for layer, heads in used.items():
        assert np.isnan(probabilities[layer, heads:]).all()


def restored(subject: Subject) -> None:
    """Classes, parameters and functions are what they were."""
    assert state_of(subject.network) == subject.before


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        sites, unchanged, router, experts, weights, shares, by_expert, by_head, lens, decode,
        attention, restored,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Passed (reason None), or what the product itself says of why this cannot be read."""

    reason: str | None = None


def cell(name: str, check: str) -> Cell:
    """Run one check; AssertionError where it fails."""
    subject = subject_of(name)
    if isinstance(subject, str):
        return Cell(subject)
    info = subject.model.info
    needs = {
        "lens": info.lens_error,
        "shares": info.decomposition_error,
        "router": info.decomposition_error,
        "by_expert": subject.model.expert_sources_error,
        "by_head": subject.model.head_sources_error,
        "attention": info.attention_error,
    }
    routing = check not in {"unchanged", "lens", "attention", "restored"}
    if routing and info.routing_error is not None:
        return Cell(info.routing_error)
    if needs.get(check) is not None:
        return Cell(needs[check])
    CHECKS[check](subject)
    return Cell()


def table() -> str:
    """The table in Markdown: ✓, or the number of a reason below."""
    reasons: list[str] = []
    lines = [f"| | {' | '.join(CHECKS)} |", f"|---|{'---|' * len(CHECKS)}"]
    for name in ARCHITECTURES:
        marks = []
        for check in CHECKS:
            reason = cell(name, check).reason
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            marks.append("✓" if reason is None else f"[{reasons.index(reason) + 1}]")
        lines.append(f"| {name} | {' | '.join(marks)} |")
    notes = [f"[{number}] {reason}  " for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def written(text: str) -> str:
    """README with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    print(table())
    if "--write" in sys.argv:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
