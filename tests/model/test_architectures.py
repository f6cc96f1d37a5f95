"""Every mixture-of-experts architecture of mlx-lm is read right, or says why not."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx_lm.models
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_tokenizer

import moetui
from moetui.errors import ModelError
from moetui.model.model import Model
from tests.model.architectures import ARCHITECTURES, build, save
from tests.model.matrix import CHECKS, README, cell, written
from tests.model.subject import subject_of
from tests.reference.values import DATA

SEPARATE = "experts as separate modules"
NOT_ONE_SUM = "residual stream is not one sum"
NO_LENS = "the logit lens cannot be read on this architecture"
NOT_TOKENS = "does not attend to the tokens themselves"
METAL = "No Metal back-end"
NOT_ALONE = "mixed with another part, before it is added"
MIXED = "what attention puts out is mixed with something else"
ROUTING = {"sites", "router", "experts", "weights", "shares", "by_expert", "by_head", "decode"}
# What cannot be read, and the words in which the product itself says so. Nothing else may fail.
SAID = {
    **{("dbrx", check): SEPARATE for check in ROUTING},
    **{("muse_spark", check): METAL for check in CHECKS},
    ("deepseek_v41", "router"): NOT_ONE_SUM,
    ("deepseek_v41", "shares"): NOT_ONE_SUM,
    ("deepseek_v41", "lens"): NO_LENS,
    ("deepseek_v41", "attention"): NOT_TOKENS,
    ("deepseek_v41", "by_expert"): NOT_ONE_SUM,
    ("deepseek_v41", "by_head"): NOT_ONE_SUM,
    ("kimi_k3", "by_head"): MIXED,
    ("kimi_k3", "lens"): NO_LENS,
    **{
        (name, "by_expert"): NOT_ALONE
        for name in (
            "bailing_moe",
            "bailing_moe (groups)",
            "gemma4",
            "gemma4_text",
            "granitemoehybrid",
            "kimi_k3",
            "longcat_flash",
            "longcat_flash_ngram",
            "nemotron_h (latent)",
        )
    },
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_read_of_every_architecture(name: str, check: str) -> None:
    reason = cell(name, check).reason
    if (name, check) in SAID:
        assert reason is not None and SAID[name, check] in reason
    else:
        assert reason is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_checkpoint_of_every_architecture_loads_from_disk(name: str, tmp_path: Path) -> None:
    network = save(name, tmp_path)
    subject = subject_of(name)
    if isinstance(subject, str):
        with pytest.raises(ModelError, match=METAL):
            moetui.load(tmp_path)
        return
    model = moetui.load(tmp_path)
    plain = network(mx.array(subject.ids)[None], cache=make_prompt_cache(network))
    assert np.array_equal(model.trace(subject.ids, lens=0).logits, np.array(plain)[0, -1])
    expected = subject.model.info
    assert (model.info.moe_layers, model.info.top_k) == (expected.moe_layers, expected.top_k)


@pytest.mark.parametrize("name", ["longcat_flash", "longcat_flash_ngram"])
def test_attention_that_runs_after_the_router_is_in_the_name_of_its_part(name: str) -> None:
    """A layer of longcat attends twice: once before its router, once after it."""
    names = subject_of(name).model.info.part_names
    assert names == ("embedding", "attention", "experts and attention, combined")


@pytest.mark.parametrize("pattern, dense", [("ME*E", False), ("M-*E", True)])
def test_a_layer_of_nothing_but_attention_is_no_dense_mlp(pattern: str, dense: bool) -> None:
    """nemotron_h has layers of one thing each: Mamba, attention (*), an MLP (-), experts."""
    network = build("nemotron_h", hybrid_override_pattern=list(pattern))
    folder = DATA / "olmoe"
    config = {"model_type": "nemotron_h"}
    model = Model("nemotron", folder, network, load_tokenizer(folder), config, "float32")
    assert ("dense MLP" in model.info.part_names) == dense
    assert model.trace(np.arange(1, 9)).completeness.max() < 1e-5


@pytest.mark.slow
def test_the_readme_shows_the_table_as_it_is_now() -> None:
    text = README.read_text(encoding="utf-8")
    assert written(text) == text, "python -m tests.model.matrix --write"


def test_a_sum_that_is_projected_afterwards_is_not_told_from_the_shared_expert() -> None:
    """As wide as the stream, so that only the block's output without experts can tell."""
    network = build("nemotron_h (latent)", moe_latent_size=64)
    folder = DATA / "olmoe"
    model = Model(
        "wide", folder, network, load_tokenizer(folder), {"model_type": "nemotron_h"}, "float32"
    )
    assert "experts, combined" in model.info.part_names
    assert "shared expert" not in model.info.part_names


def test_the_table_names_every_model_file_with_an_expert_bank() -> None:
    """A new mlx-lm may bring another; it belongs into the table."""
    folder = next(iter(mlx_lm.models.__path__))
    files = {
        path.stem
        for path in Path(folder).glob("*.py")
        if any(word in path.read_text() for word in ("SwitchGLU(", "SwitchMLP("))
    }
    built = set()
    for name in ARCHITECTURES:
        subject = subject_of(name)
        if not isinstance(subject, str):
            modules = {
                type(m).__module__.rpartition(".")[2] for _, m in subject.network.named_modules()
            }
            built |= modules
    assert files - built - {"switch_layers", "muse_spark"} == set()
