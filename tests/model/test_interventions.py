"""Interventions compose, leave nothing behind, and do nothing where nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import moetui
from moetui.errors import UsageError
from moetui.model import Model
from moetui.model.records import Want
from moetui.trace import (
    AddLogits,
    AddToPart,
    Ban,
    Deselect,
    Drop,
    Force,
    Forward,
    Intervention,
    Merge,
    PatchPart,
    Remap,
    Reweigh,
    ScalePart,
    TopK,
    join,
    trace_document,
)
from tests.model.conftest import FAMILIES
from tests.model.intervened import IDS, ROUTING, changed, often, plain, tiny
from tests.model.test_capture import some_ids, state_of
from tests.model.test_generate import plain_generation

ModelOf = Callable[[str], Model]
CHECKPOINTS = ("demo", *FAMILIES)
NOT_BY_TOP_K = {"phimoe"}
NO_REWEIGHING = {
    "bailing_moe", "bailing_moe (groups)", "llama4", "longcat_flash", "longcat_flash_ngram",
}  # fmt: skip
NO_STREAM = {"deepseek_v41"}
NO_SUM = {"deepseek_v41", "kimi_k3", "phixtral"}


def ineffective(model: Model, name: str, ids: list[int]) -> list[Intervention]:
    """Interventions that change nothing of a pass over `ids`."""
    E, k, H = model.info.num_experts, model.info.top_k, model.info.hidden_size
    chosen = model.trace(ids, lens=0).expert_ids
    nothing: list[Intervention] = [
        TopK(k=k),
        Remap(source=1, target=1),
        AddLogits(delta=(0.0,) * E),
        Drop(experts=()),
        Deselect(experts=()),
        Force(experts=()),
        Ban(experts=()),
        Merge(experts=()),
    ]
    if name not in NO_REWEIGHING:
        nothing.append(Reweigh(keep=k, native=k, match="norm"))
    if name not in NO_STREAM:
        nothing += [
            ScalePart(part="embedding", factor=1),
            ScalePart(part="experts", factor=1),
            AddToPart(part="attention", vector=np.zeros(H, np.float32)),
            PatchPart(part="experts", layer=0, values=np.zeros((0, H), np.float32), rows=()),
        ]
    for column, layer in enumerate(model.info.moe_layers):
        counts = np.bincount(chosen[:, column].ravel(), minlength=E)
        unused, everywhere = np.flatnonzero(counts == 0), np.flatnonzero(counts == len(ids))
        for expert in unused[:1].tolist():
            one, layers = (expert,), (layer,)
            nothing += [
                Drop(experts=one, layers=layers),
                Drop(experts=one, layers=layers, renormalise=True),
                Remap(source=expert, target=0, layers=layers),
            ]
            if name not in NOT_BY_TOP_K:
                nothing.append(Deselect(experts=one, layers=layers))
        if name not in NOT_BY_TOP_K:
            nothing += [Force(experts=(e,), layers=(layer,)) for e in everywhere[:1].tolist()]
    return nothing


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_changes_nothing_leaves_every_logit_bit_for_bit(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 3, seed=2)
    native = plain(model.network, ids)
    nothing = ineffective(model, name, ids)
    assert {type(one) for one in nothing} == {*Intervention.__args__}  # type: ignore[attr-defined]
    for one in nothing:
        assert np.array_equal(changed(model, ids, one), native), one
    assert np.array_equal(changed(model, ids, *nothing), native)


@pytest.mark.parametrize("name", often(ROUTING))
def test_so_it_is_in_every_architecture(name: str) -> None:
    model = tiny(name)
    ids = IDS[:3]
    native = plain(model.network, ids)
    for one in ineffective(model, name, ids):
        assert np.array_equal(changed(model, ids, one), native), one


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_forcing_the_experts_that_are_chosen_anyway_changes_nothing(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    ids = some_ids(model, 1)
    chosen = model.trace(ids).expert_ids[0]
    forced = [
        Force(experts=tuple(int(e) for e in row), layers=(layer,))
        for layer, row in zip(model.info.moe_layers, chosen, strict=True)
    ]
    assert np.array_equal(changed(model, ids, *forced), plain(model.network, ids))


@pytest.mark.parametrize("name", ["demo", "olmoe", "gpt_oss"])
def test_a_generation_in_which_nothing_changes_is_that_of_mlx_lm(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    ids = some_ids(model, 5)
    native = list(model.generate(ids, 8))
    seen = np.concatenate([model.trace(ids).expert_ids, *(s.expert_ids for s in native)])
    E, layer = model.info.num_experts, model.info.moe_layers[0]
    unused = np.setdiff1d(np.arange(E), seen[:, 0]).tolist()[:1]
    assert unused or name == "gpt_oss"
    nothing = [
        *(Deselect(experts=(e,), layers=(layer,)) for e in unused),
        *(Drop(experts=(e,), layers=(layer,)) for e in unused),
        Remap(source=2, target=2),
        AddLogits(delta=(0.0,) * E),
        ScalePart(part="attention", factor=1),
    ]
    steps = list(model.generate(ids, 8, interventions=nothing))
    assert [int(s.token_ids[0]) for s in steps] == plain_generation(model, ids, 8)
    for one, other in zip(steps, native, strict=True):
        assert np.array_equal(one.logits, other.logits)


def everything(model: Model) -> list[Intervention]:
    """One of each, all of them felt."""
    H, E = model.info.hidden_size, model.info.num_experts
    vector = np.random.default_rng(6).normal(size=H).astype(np.float32)
    layer = model.info.moe_layers[0]
    return [
        TopK(k=model.info.top_k - 1),
        Merge(experts=(2, 3)),
        Ban(experts=(0,)),
        AddLogits(delta=tuple(np.linspace(-0.5, 0.5, E).tolist())),
        Deselect(experts=(1,)),
        Force(experts=(4,), layers=(layer,)),
        Remap(source=5, target=6),
        Drop(experts=(6,), renormalise=True),
        Reweigh(keep=1, native=2, match="norm"),
        ScalePart(part="attention", factor=0.7),
        AddToPart(part="experts", vector=0.1 * vector),
        PatchPart(part="embedding", layer=0, values=vector[None], rows=(1,)),
    ]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_generation_is_a_row_of_full_passes_with_the_same_interventions(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    ids = some_ids(model, 6)
    generation = model.generate(ids, 7, interventions=everything(model))
    for step in generation:
        logits = model.trace(ids, lens=0, interventions=everything(model)).logits
        assert int(logits.argmax()) == int(step.token_ids[0])
        ids.append(int(step.token_ids[0]))
    assert ids[6:] != plain_generation(model, ids[:6], 7)


def test_a_generation_keeps_the_interventions_it_was_started_with(demo: Model) -> None:
    with demo.intervene(Drop(experts=(1, 2))):
        inside = [int(s.token_ids[0]) for s in demo.generate(IDS, 6)]
        steps = iter(demo.generate(IDS, 6))
        first = [next(steps), next(steps)]
    with demo.intervene(TopK(k=1)):
        rest = list(steps)
    assert [int(s.token_ids[0]) for s in [*first, *rest]] == inside


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_blocks_add_to_one_another_in_their_order(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    every = everything(model)
    whole = changed(model, IDS, *every)
    with model.intervene(*every[:3]), model.intervene(*every[3:7]):
        assert np.array_equal(changed(model, IDS, *every[7:]), whole)
        assert np.array_equal(model.trace(IDS, interventions=every[7:]).logits, whole[-1])
    assert np.array_equal(model.trace(IDS).logits, plain(model.network, IDS)[-1])


def test_remaps_follow_one_another(model_of: ModelOf) -> None:
    model = model_of("olmoe")
    one, other = Remap(source=1, target=2), Remap(source=2, target=3)
    both = model.trace(IDS, interventions=[one, other]).expert_ids
    assert not np.isin(both, (1, 2)).any()
    reverse = model.trace(IDS, interventions=[other, one]).expert_ids
    assert not (reverse == 1).any() and (reverse == 2).any()


def test_a_dropped_expert_is_dropped_wherever_it_works(model_of: ModelOf) -> None:
    """Ids come before weights: the slot that was remapped to it counts nothing either."""
    model = model_of("olmoe")
    for order in ([Remap(source=1, target=2), Drop(experts=(2,))],
                  [Drop(experts=(2,)), Remap(source=1, target=2)]):  # fmt: skip
        trace = model.trace(IDS, interventions=order)
        assert not trace.expert_weights[trace.expert_ids == 2].any()
        assert np.array_equal(
            changed(model, IDS, *order), changed(model, IDS, Drop(experts=(1, 2)))
        )


def test_the_later_of_deselect_and_force_counts(model_of: ModelOf) -> None:
    model = model_of("mixtral")
    forced = model.trace(IDS, interventions=[Deselect(experts=(3,)), Force(experts=(3,))])
    barred = model.trace(IDS, interventions=[Force(experts=(3,)), Deselect(experts=(3,))])
    assert (forced.expert_ids == 3).any(-1).all()
    assert not (barred.expert_ids == 3).any()


@pytest.mark.parametrize("name", [*CHECKPOINTS, "deepseek_v3", "kimi_linear", "gemma4_text"])
@pytest.mark.parametrize("where", ["inside a layer", "after the pass"])
def test_everything_is_undone_after_an_exception(model_of: ModelOf, name: str, where: str) -> None:
    model = model_of(name) if name in CHECKPOINTS else tiny(name)
    every = everything(model)
    model.trace(IDS, interventions=every)  # what is found out once is found out
    before = state_of(model)
    layer = model.architecture.layers[-1]
    broken = layer.pop("self_attn") if where == "inside a layer" else None

    def on_pass(record: Any) -> None:
        raise KeyError("after the pass")

    try:
        with (
            pytest.raises((KeyError, AttributeError)),
            model.capture.on(Want(True, True, True), on_pass, model.edits(len(IDS), every)),
        ):
            model.network(mx.array([IDS]))
    finally:
        if broken is not None:
            layer["self_attn"] = broken
    after = state_of(model)
    assert sorted(after[0], key=lambda pair: pair[0]) == sorted(before[0], key=lambda p: p[0])
    assert sorted(after[1]) == sorted(before[1]) and after[2:] == before[2:]
    blocks = [site.block for site in model.architecture.sites.values()]
    assert all(model.info.top_k - 1 not in _counts(block) for block in blocks)
    assert np.array_equal(model.trace(IDS).logits, plain(model.network, IDS)[-1])


def _counts(block: Any) -> list[Any]:
    return [value for name, value in vars(block).items() if "top_k" in name or "per_tok" in name]


def test_a_block_that_fails_leaves_no_interventions_behind(demo: Model) -> None:
    with pytest.raises(RuntimeError, match="mine"), demo.intervene(TopK(k=1)):
        raise RuntimeError("mine")
    with pytest.raises(UsageError), demo.intervene(TopK(k=1)), demo.intervene(TopK(k=99)):
        pass
    assert np.array_equal(demo.trace(IDS).logits, plain(demo.network, IDS)[-1])


def test_a_model_is_what_causal_analyses_ask_for(demo: Model) -> None:
    forward: Forward = demo
    assert forward.trace(IDS, interventions=[TopK(k=1)]).expert_ids.shape[-1] == 1
    with demo.intervene(TopK(k=1)):
        trace = demo.trace(IDS)
        inside = demo.lens(trace, -1)
    outside = demo.lens(trace, -1, interventions=[TopK(k=1)])
    assert trace.lens is not None
    assert np.array_equal(inside.token_ids, outside.token_ids)
    np.testing.assert_allclose(inside.logprobs[0], trace.lens.logprobs[-1], atol=1e-4)


NAN = float("nan")
WRONG: list[tuple[str, str, Sequence[Intervention]]] = [
    ("demo-dense", "has no experts", [Drop(experts=(1,))]),
    ("qwen3_moe", "layer 1 does not route", [Drop(experts=(1,), layers=(1,))]),
    ("demo", "layer 8 does not route", [TopK(k=1, layers=(8,))]),
    ("demo", "no layer -1", [ScalePart(part="experts", factor=0, layers=(-1,))]),
    ("demo", "no expert 16", [Drop(experts=(3, 16))]),
    ("demo", "no expert -1", [Deselect(experts=(-1,))]),
    ("demo", "no expert 16", [Remap(source=0, target=16)]),
    ("demo", "numbers in a tuple", [Drop(experts=5)]),  # type: ignore[arg-type]
    ("demo", "numbers in a tuple", [Drop(experts=(1.5,))]),  # type: ignore[arg-type]
    ("demo", "numbers in a tuple", [Drop(experts=(1,), layers=2)]),  # type: ignore[arg-type]
    ("demo", "5 experts in layer 0", [Force(experts=(1, 2, 3, 4, 5))]),
    ("demo", "5 experts in layer 0", [Force(experts=(1, 2, 3)), Force(experts=(4, 5))]),
    ("demo", "2 experts in layer 3", [TopK(k=1, layers=(3,)), Force(experts=(1, 2))]),
    ("demo", "fewer experts than the 4", [Deselect(experts=tuple(range(13)))]),
    ("demo", "no expert", [Ban(experts=tuple(range(16)))]),
    ("demo", "no expert", [Ban(experts=tuple(range(9))), Ban(experts=tuple(range(9, 16)))]),
    ("demo", "17 experts", [TopK(k=17)]),
    ("demo", "0 experts", [TopK(k=0)]),
    ("demo", "15 numbers", [AddLogits(delta=(0.0,) * 15)]),
    ("demo", "not a finite number", [AddLogits(delta=(NAN,) * 16)]),
    ("demo", "not a finite number", [ScalePart(part="experts", factor=NAN)]),
    ("demo", "belongs to no layer", [ScalePart(part="embedding", factor=2, layers=(1,))]),
    ("demo", "no part 'mlp'", [ScalePart(part="mlp", factor=2)]),  # type: ignore[arg-type]
    ("demo", r"\[3\], not \[128\]", [AddToPart(part="experts", vector=np.zeros(3, np.float32))]),
    ("demo", "not a finite number",
     [AddToPart(part="experts", vector=np.full(128, np.inf, np.float32))]),
    ("demo", r"\[1, 128\], not \[2, 128\]",
     [PatchPart(part="experts", layer=0, values=np.zeros((1, 128), np.float32), rows=(1, 2))]),
    ("demo", "row 30 of a prompt of 30",
     [PatchPart(part="experts", layer=0, values=np.zeros((1, 128), np.float32), rows=(30,))]),
    ("demo", "named twice",
     [PatchPart(part="experts", layer=0, values=np.zeros((2, 128), np.float32), rows=(1, 1))]),
    ("demo", "negative",
     [PatchPart(part="experts", layer=0, values=np.zeros((1, 128), np.float32), rows=(-1,))]),
    ("demo", "does not enter at layer 1",
     [PatchPart(part="embedding", layer=1, values=np.zeros((1, 128), np.float32), rows=(0,))]),
    ("demo", "twice", [Merge(experts=(1, 1))]),
    ("demo", "1 frequencies for 2", [Merge(experts=(1, 2), frequencies=(1.0,))]),
    ("demo", "negative or all 0", [Merge(experts=(1, 2), frequencies=(0.0, 0.0))]),
    ("demo", "negative or all 0", [Merge(experts=(1, 2), frequencies=(-1.0, 2.0))]),
    ("demo", "not a finite number", [Merge(experts=(1, 2), frequencies=(NAN, 2.0))]),
    ("demo", "str is not an intervention", ["drop 5"]),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize(("name", "cause", "wrong"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_runs(
    model_of: ModelOf,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    cause: str,
    wrong: Sequence[Intervention],
) -> None:
    model = model_of(name)
    model.trace(IDS[:3], interventions=[ScalePart(part="embedding", factor=2)])
    passes: list[Any] = []
    original = type(model.network).__call__
    monkeypatch.setattr(
        type(model.network), "__call__", lambda *a, **k: passes.append(a) or original(*a, **k)
    )
    for ask in (
        lambda: model.trace(IDS, interventions=wrong),
        lambda: model.generate(IDS, interventions=wrong),
        lambda: model.nll(IDS, wrong),
        lambda: model.kl(IDS, wrong),
    ):
        with pytest.raises(UsageError, match=cause) as refused:
            ask()
        assert refused.value.hint and "\n" not in refused.value.message
    assert passes == []


def test_interventions_can_be_named_without_importing_mlx() -> None:
    import subprocess
    import sys

    code = "import sys, moetui; moetui.Drop(experts=(1,)); assert 'mlx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    names = {"Drop", "Deselect", "Ban", "Force", "TopK", "Remap", "Merge", "AddLogits"}
    names |= {"ScalePart", "AddToPart", "PatchPart"}
    assert names <= set(moetui.__all__)
    assert all(getattr(moetui, name) is getattr(moetui.trace, name) for name in names)


def test_a_trace_says_what_it_was_made_with_and_so_does_its_file(
    demo: Model, tmp_path: Path
) -> None:
    assert demo.trace("127 + 45 =").interventions == ()
    push = AddToPart(part="attention", vector=np.full(demo.info.hidden_size, 0.5, np.float32))
    with demo.intervene(Drop(experts=(3,), layers=(2,))):
        generation = demo.generate("127 + 45 =", 2, interventions=[push])
        whole = join([generation.prompt, *generation])
    norm = f"{0.5 * demo.info.hidden_size**0.5:.6g}"
    assert whole.interventions == (
        "Drop(experts=(3,), layers=(2,), renormalise=False)",
        f"AddToPart(part=attention, vector=[{demo.info.hidden_size}] of norm {norm}, layers=None)",
    )
    whole.save(tmp_path / "changed.moetrace")
    assert moetui.open_trace(tmp_path / "changed.moetrace").interventions == whole.interventions
    assert trace_document(whole).interventions == list(whole.interventions)
