"""Quantised checkpoints are read as exactly as the others: the same model, its packed weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import moetui
from moetui.model import Model
from moetui.trace import Trace, join
from tests.model import tiny
from tests.model.packed import Packed
from tests.model.test_capture import EVERYTHING, margins, plain_logits, scale, some_ids
from tests.model.test_lens import log_softmax
from tests.reference.values import DATA

# What the router's matrix is called in each family.
ROUTER = {
    "mixtral": "block_sparse_moe.gate",
    "phimoe": "block_sparse_moe.gate",
    "granitemoe": "block_sparse_moe.router.layer",
    "lfm2_moe": "feed_forward.gate",
    "hunyuan": "mlp.gate.wg",
    "gpt_oss": "mlp.router",
}
# A router that is a bare matrix is never packed; those in EIGHT_BITS are packed so by mlx-lm's
# own choice, whatever the rest is; any other router is packed like the rest.
BARE = ("deepseek_v3", "glm4_moe")
EIGHT_BITS = ("qwen3_moe", "lfm2_moe", "granitemoe", "gpt_oss")
# Beside the routed experts these add something else in the same block.
SHARED = ("qwen2_moe", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "hunyuan")
FAMILIES = (*tiny.ROUTED, "gpt_oss")
CASES = [(family, mode) for family in FAMILIES for mode in tiny.MODES]

# Sums of 64 to 128 products in float32 against float64: 1e-5 of the largest value is a hundred
# roundings. In half precision, in which GPUs compute half-precision checkpoints, a thousand
# times more; the checkpoints here are float32 but for those that say so.
CLOSE = 1e-5


class Case:
    """One family in one mode: folder, file as numpy reads it, model, and a trace of 26 tokens."""

    def __init__(self, family: str, mode: str, folder: Path) -> None:
        self.family, self.mode, self.folder = family, mode, folder
        if family == "gpt_oss":  # on disk its experts are mxfp4 already, as published
            tiny.requantised(folder, DATA / family, mode)
        else:
            tiny.quantised(folder, family, mode)
        self.packed = Packed(folder)
        self.model: Model = moetui.load(folder)
        self.ids = some_ids(self.model, 26, seed=1)
        self.trace: Trace = self.model.trace(self.ids, **EVERYTHING)

    @property
    def routers(self) -> list[str]:
        """Names of the router matrices in the file, by layer."""
        return self.packed.names(ROUTER.get(self.family, "mlp.gate"))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("quantised"))


def test_the_weights_really_are_packed(case: Case) -> None:
    expected = 8 if case.mode == "affine 8-bit" else 4
    experts = case.packed.names("switch_mlp.up_proj") or case.packed.names("experts.up_proj")
    queries = case.packed.names("q_proj") or case.packed.names("q_a_proj")
    # Published mxfp4 experts stay so.
    packed = 4 if case.family == "gpt_oss" else expected
    assert {case.packed.bits(name) for name in experts} == {packed}
    assert {case.packed.bits(name) for name in queries} == {expected}


def test_the_model_is_named_by_what_is_packed_and_counted_by_what_that_stands_for(
    case: Case,
) -> None:
    info = case.model.info
    packed = {"affine 4-bit": "4-bit affine", "affine 8-bit": "8-bit affine"}
    whole = packed.get(case.mode, "4-bit mxfp4")
    assert info.quantization == ("4-bit mxfp4" if case.family == "gpt_oss" else whole)
    if case.family != "gpt_oss":
        unpacked, _ = tiny.network(case.family)
        assert info.parameters == sum(a.size for _, a in tree_flatten(unpacked.parameters()))


def test_router_bits_are_the_routers_own(case: Case) -> None:
    bits = {case.packed.bits(name) for name in case.routers}
    if case.family in BARE:
        assert bits == {32}
    elif case.family in EIGHT_BITS:
        assert bits == {8}
    else:
        assert bits == {8 if case.mode == "affine 8-bit" else 4}
    assert {case.model.info.router_bits} == bits


def test_capturing_everything_leaves_the_logits_bit_for_bit_as_they_are(case: Case) -> None:
    assert np.array_equal(case.trace.logits, plain_logits(case.model, case.ids)[-1])


def test_router_logits_are_the_unpacked_matrix_times_what_the_router_received(case: Case) -> None:
    assert case.trace.streams is not None
    assert len(case.routers) == len(case.trace.layers)
    for column, name in enumerate(case.routers):
        u = case.trace.streams.router_input[:, column].astype(np.float64)
        z = u @ case.packed.matrix(name).T + case.packed.vector(f"{name}.bias")
        ours = case.trace.router_logits[:, column]
        assert np.abs(ours - z).max() <= CLOSE * np.abs(z).max()


def test_the_parts_of_the_router_logits_are_complete(case: Case) -> None:
    assert case.model.info.decomposition_error is None
    assert case.trace.completeness is not None and case.trace.shares is not None
    assert case.trace.completeness.max() <= CLOSE
    np.testing.assert_allclose(case.trace.shares.values.sum(-1), 1, atol=CLOSE)


def test_weighted_expert_outputs_add_up_to_what_the_layer_added(case: Case) -> None:
    trace = case.trace
    assert trace.expert_outputs is not None and trace.streams is not None
    routed = (trace.expert_weights[..., None] * trace.expert_outputs).sum(axis=2)
    added = (trace.streams.leaving - trace.streams.at_router)[:, trace.layers]
    if case.family == "granitemoe":
        added = added / tiny.ROUTED["granitemoe"]["residual_multiplier"]
    whole = np.abs(routed - added).max() <= CLOSE * np.abs(added).max()
    assert whole == (case.family not in SHARED)


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
    for field in ("router_logits", "router_parts", "logits"):
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
