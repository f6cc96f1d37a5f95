"""Quantised checkpoints are read as exactly as the others: the same model, its packed weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import moetui
from moetui.model import Model
from moetui.trace import Reweigh, Trace, join
from tests.model import tiny
from tests.model.architectures import ARCHITECTURES
from tests.model.packed import Packed
from tests.model.test_capture import margins, plain_logits, scale, some_ids
from tests.model.test_lens import log_softmax
from tests.reference.values import DATA

PUBLISHED = "gpt_oss (published)"  # the checkpoint on disk, its experts packed as mxfp4
# Experts in a Python list; kernels for Metal alone. Both refuse or fail without packing too.
UNREADABLE = ("dbrx", "muse_spark")
FAMILIES = (*(name for name in ARCHITECTURES if name not in UNREADABLE), PUBLISHED)
# No residual stream that is one sum per token; more after the last layer than norm and head.
NO_PARTS, NO_LENS = ("deepseek_v41",), ("deepseek_v41", "kimi_k3")

# What mlx-lm does with the router of a family: packs it as the rest, in 8 bits whatever the rest
# is, or not at all where it is a bare matrix.
ROUTER_BITS: dict[str, int | None] = {
    "olmoe": None,
    "mixtral": None,
    "qwen2_moe": None,
    "phimoe": None,
    "ernie4_5_moe": None,
    "hunyuan": None,
    "qwen3_moe": 8,
    "lfm2_moe": 8,
    "granitemoe": 8,
    "gpt_oss": 8,
    PUBLISHED: 8,
    "deepseek_v3": 32,
    "glm4_moe": 32,
}
# Those whose block adds nothing but the weighted outputs of the experts.
ROUTED_ONLY = ("olmoe", "mixtral", "phimoe", "qwen3_moe", "lfm2_moe", "granitemoe", PUBLISHED)
# What the router's matrix is called where it is not mlp.gate.
ROUTER = {
    "block_sparse_moe.gate": ("mixtral", "phimoe", "minimax", "minimax_m3_vl"),
    "block_sparse_moe.router.layer": ("granitemoe", "granitemoehybrid"),
    "feed_forward.gate": ("lfm2_moe",),
    "feed_forward.router": ("jamba", "llama4"),
    "mixer.gate": ("nemotron_h", "nemotron_h (latent)"),
    "mlp.gate.gate": ("step3p5",),
    "mlp.gate.gate_proj": ("bailing_hybrid", "bailing_moe", "bailing_moe (groups)",
                           "bailing_moe_linear"),
    "mlp.gate.proj": ("laguna",),
    "mlp.gate.wg": ("hunyuan", "hunyuan (shared keys)"),
    "mlp.router": ("gpt_oss", PUBLISHED),
    "mlp.router.classifier": ("longcat_flash", "longcat_flash_ngram"),
    "mlp.router.gate": ("afmoe",),
    "moe.gate": ("phixtral",),
    "router.proj": ("gemma4", "gemma4_text"),
}  # fmt: skip

# Sums of 64 to 128 products in float32 against float64: 1e-5 of the largest value is a hundred
# roundings. In half precision, in which GPUs compute half-precision checkpoints, a thousand
# times more; the checkpoints here are float32 but for those that say so.
CLOSE = 1e-5


def cases(families: tuple[str, ...]) -> list[Any]:
    """Every family in every mode; the families beyond those of ROUTER_BITS in the slow run."""
    return [
        pytest.param(
            (family, mode),
            marks=() if family in ROUTER_BITS else pytest.mark.slow,
            id=f"{family}-{mode}",
        )
        for family in families
        for mode in tiny.MODES
    ]


class Case:
    """One family in one mode: its file as numpy reads it, the model, and a trace of 26 tokens."""

    def __init__(self, family: str, mode: str, folder: Path) -> None:
        self.family, self.mode = family, mode
        if family == PUBLISHED:
            tiny.requantised(folder, DATA / "gpt_oss", mode)
        else:
            tiny.quantised(folder, family, mode)
        self.packed = Packed(folder)
        self.model: Model = moetui.load(folder)
        self.ids = some_ids(self.model, 26, seed=1)
        self.trace: Trace = self.model.trace(
            self.ids, streams=family not in NO_PARTS, attention=True, expert_outputs=True
        )

    @property
    def routers(self) -> list[str]:
        """Names of the router matrices in the file, by layer."""
        ending = next((end for end, names in ROUTER.items() if self.family in names), "mlp.gate")
        return self.packed.names(f".{ending}")


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[str, str], Case]:
    """Every case, made once for all tests."""
    return {}


@pytest.fixture(params=cases(FAMILIES))
def case(
    request: pytest.FixtureRequest, loaded: dict[tuple[str, str], Case], tmp_path: Path
) -> Case:
    if request.param not in loaded:
        loaded[request.param] = Case(*request.param, tmp_path)
    return loaded[request.param]


def only(*families: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases(families), indirect=True)


@only(*ROUTER_BITS)
def test_the_model_is_named_by_what_is_packed(case: Case) -> None:
    bits = 8 if case.mode == "affine 8-bit" else 4
    queries = case.packed.names("q_proj") or case.packed.names("q_a_proj")
    assert {case.packed.bits(name) for name in queries} == {bits}
    whole = "4-bit mxfp4" if case.family == PUBLISHED or case.mode == "mxfp4" else case.mode
    kind, _, size = whole.partition(" ")
    assert case.model.info.quantization in (whole, f"{size} {kind}")
    assert case.packed.bits(case.routers[0]) == (ROUTER_BITS[case.family] or bits)


def test_router_bits_are_the_routers_own(case: Case) -> None:
    assert len(case.routers) == len(case.trace.layers)
    assert {case.model.info.router_bits} == {case.packed.bits(name) for name in case.routers}


def test_packed_weights_are_counted_as_what_they_stand_for(case: Case) -> None:
    if case.family == PUBLISHED:
        expected = moetui.load(DATA / "gpt_oss").info.parameters
    else:
        arrays = tree_flatten(tiny.network(case.family)[0].parameters())
        expected = sum(array.size for _, array in arrays)
    assert case.model.info.parameters == expected


def test_capturing_everything_leaves_the_logits_bit_for_bit_as_they_are(case: Case) -> None:
    assert np.array_equal(case.trace.logits, plain_logits(case.model, case.ids)[-1])


@only(*(name for name in FAMILIES if name not in NO_PARTS))
def test_router_logits_are_the_unpacked_matrix_times_what_the_router_received(case: Case) -> None:
    assert case.trace.streams is not None
    for column, name in enumerate(case.routers):
        u = case.trace.streams.router_input[:, column].astype(np.float64)
        z = u @ case.packed.matrix(name).T + case.packed.vector(f"{name}.bias")
        ours = case.trace.router_logits[:, column]
        assert np.abs(ours - z).max() <= CLOSE * np.abs(z).max()


@only(*(name for name in FAMILIES if name not in NO_PARTS))
def test_the_parts_of_the_router_logits_are_complete(case: Case) -> None:
    assert case.model.info.decomposition_error is None
    assert case.trace.completeness is not None and case.trace.shares is not None
    assert case.trace.completeness.max() <= CLOSE
    np.testing.assert_allclose(case.trace.shares.values.sum(-1), 1, atol=CLOSE)


@only(*ROUTED_ONLY)
def test_weighted_expert_outputs_add_up_to_what_the_layer_added(case: Case) -> None:
    trace = case.trace
    assert trace.expert_outputs is not None and trace.streams is not None
    routed = (trace.expert_weights[..., None] * trace.expert_outputs).sum(axis=2)
    added = (trace.streams.leaving - trace.streams.at_router)[:, trace.layers]
    # Granite's layers multiply what any block puts out before they add it.
    added = added / ARCHITECTURES.get(case.family, {}).get("residual_multiplier", 1)
    assert np.abs(routed - added).max() <= CLOSE * np.abs(added).max()


@only(*(name for name in FAMILIES if name not in NO_LENS))
def test_the_lens_of_the_last_layer_is_the_models_own_output(case: Case) -> None:
    assert case.model.info.lens_error is None and case.trace.lens is not None
    own = log_softmax(plain_logits(case.model, case.ids))
    lens = case.trace.lens
    expected = np.take_along_axis(own, lens.token_ids[:, -1], -1)
    np.testing.assert_allclose(lens.logprobs[:, -1], expected, atol=1e-4)
    assert (own.argmax(-1) == lens.token_ids[:, -1, 0]).all()


def test_cached_decoding_shows_what_a_full_forward_shows(case: Case) -> None:
    generation = case.model.generate(case.ids[:5], 8)
    stepwise = join([generation.prompt, *generation])
    whole = case.model.trace(stepwise.token_ids)
    clear = margins(whole) > 1e-4 * scale(whole.router_logits)
    assert clear.mean() > 0.9
    assert np.array_equal(stepwise.expert_ids[clear], whole.expert_ids[clear])
    for field in ("router_logits", "logits"):
        one, other = getattr(stepwise, field), getattr(whole, field)
        np.testing.assert_allclose(one, other, atol=1e-4 * scale(other), err_msg=field)
    one, other = stepwise.expert_weights[clear], whole.expert_weights[clear]
    np.testing.assert_allclose(one, other, atol=1e-4 * scale(other))


Predicate = Callable[[str, object], bool | dict[str, int]]


def router_kept(path: str, module: object) -> bool:
    return not path.endswith("mlp.gate")


def router_in(bits: int) -> Predicate:
    def predicate(path: str, module: object) -> bool | dict[str, int]:
        return {"group_size": 64, "bits": bits} if path.endswith("mlp.gate") else True

    return predicate


@pytest.mark.parametrize(
    ("mode", "predicate", "dtype", "bits"),
    [
        ("affine 4-bit", router_kept, mx.float32, 32),
        ("affine 4-bit", router_kept, mx.bfloat16, 16),
        ("affine 4-bit", router_in(8), mx.float32, 8),
        ("affine 4-bit", router_in(6), mx.bfloat16, 6),
        ("affine 8-bit", router_in(4), mx.float32, 4),
        ("mxfp4", router_in(8), mx.float32, 8),
        ("mxfp4", router_kept, mx.float16, 16),
    ],
)
def test_with_mixed_precision_router_bits_are_the_routers_own(
    tmp_path: Path, mode: str, predicate: Predicate, dtype: mx.Dtype, bits: int
) -> None:
    folder = tiny.quantised(tmp_path, "olmoe", mode, dtype=dtype, quant_predicate=predicate)
    model = moetui.load(folder)
    assert model.info.router_bits == bits
    assert model.info.quantization is not None
    assert not model.info.quantization.startswith(f"{bits}-bit")
    ids = some_ids(model, 12)
    trace = model.trace(ids, streams=True)
    assert np.array_equal(trace.logits, plain_logits(model, ids)[-1])
    assert trace.streams is not None
    tolerance = CLOSE if model.info.dtype == "float32" else 1000 * CLOSE
    packed = Packed(folder)
    for column, name in enumerate(packed.names("mlp.gate")):
        z = trace.streams.router_input[:, column].astype(np.float64) @ packed.matrix(name).T
        assert np.abs(trace.router_logits[:, column] - z).max() <= tolerance * np.abs(z).max()


@only("olmoe", "gpt_oss", "mixtral")
def test_experts_that_were_not_chosen_can_be_asked_and_fewer_can_count(case: Case) -> None:
    model, trace = case.model, case.trace
    k, layer = model.info.top_k, model.info.moe_layers[0]
    assert trace.expert_outputs is not None
    every = dict(model.every_expert(case.ids, (layer,)))[layer]
    chosen = np.take_along_axis(every, trace.expert_ids[:, 0, :, None].astype(int), axis=1)
    own = trace.expert_outputs[:, 0]
    assert np.abs(chosen - own).max() <= CLOSE * np.abs(own).max()
    same = Reweigh(keep=k, native=k, match="norm")
    logits = model.trace(case.ids, lens=0, interventions=[same]).logits
    assert np.array_equal(logits, model.trace(case.ids, lens=0).logits)
    fewer = Reweigh(keep=1, native=k, match="sum", layers=(layer,))
    weights = model.trace(case.ids, lens=0, interventions=[fewer]).expert_weights[:, 0]
    np.testing.assert_allclose(weights.sum(-1), trace.expert_weights[:, 0].sum(-1), rtol=1e-5)
    assert ((weights > 0).sum(-1) == 1).all()
