"""What a model is, told before it is loaded, is what it turns out to be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

import moetui
from moetui.demo import NAMES, checkpoint
from moetui.errors import ModelError
from moetui.model.checkpoint import check
from moetui.model.identity import computed_dtype, identity
from tests.model import tiny
from tests.model.architectures import ARCHITECTURES, save
from tests.model.editing import WEIGHTS, edit_config
from tests.model.zoo import placed
from tests.reference.values import DATA

READABLE = [name for name in ARCHITECTURES if name != "muse_spark"]


def said(name: str | Path) -> list[str]:
    info = moetui.load(name).info
    return [info.digest, info.dtype, info.backend]


@pytest.mark.parametrize("name", [*NAMES, DATA / "gpt_oss", DATA / "qwen3_next", DATA / "gpt2"])
def test_digest_type_and_backend_are_those_of_the_loaded_model(name: str | Path) -> None:
    told = identity(name)
    assert told.split()[:3] == said(name)
    assert told.endswith(str(mx.device_info()["device_name"]))
    assert "\n" not in told


@pytest.mark.parametrize("mode", tiny.MODES)
def test_also_of_quantised_checkpoints(mode: str, tmp_path: Path) -> None:
    folder = tiny.quantised(tmp_path, "qwen3_moe", mode, dtype=mx.bfloat16)
    assert identity(folder).split()[:3] == said(folder)


@pytest.mark.parametrize("float32", [True, False])
@pytest.mark.parametrize("name", READABLE)
def test_the_type_of_the_graph_is_told_for_every_architecture(
    name: str, float32: bool, tmp_path: Path
) -> None:
    save(name, tmp_path)
    assert computed_dtype(check(tmp_path), float32=float32) == "float32"


@pytest.mark.parametrize("name", [*tiny.DENSE, "olmoe", "gemma4", "deepseek_v3"])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_off_a_cpu_a_model_computes_in_the_type_that_it_is_stored_in(
    name: str, dtype: mx.Dtype, tmp_path: Path
) -> None:
    made, config = tiny.network(name)
    made.set_dtype(dtype)
    tiny.save(made, config, tmp_path)
    stored = str(dtype).rpartition(".")[2]
    assert computed_dtype(check(tmp_path), float32=False) == stored
    assert computed_dtype(check(tmp_path), float32=True) == "float32"


def test_it_is_told_without_the_weights_and_without_mlx_lm() -> None:
    program = (
        "import sys; from moetui.model.identity import identity; identity('demo'); "
        "assert 'mlx_lm' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_another_weight_is_another_identity(tmp_path: Path) -> None:
    folder = placed(tmp_path / "copy")
    assert identity(folder) == identity("demo")
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    assert identity(folder) != identity("demo")


@pytest.mark.parametrize(
    "name", ["", "./none", "dmeo", "nobody/nothing-here", "/etc/passwd", "a..b/c"]
)
def test_a_wrong_name_is_refused_in_the_words_of_load(name: str) -> None:
    with pytest.raises(ModelError) as by_load:
        moetui.load(name)
    with pytest.raises(ModelError) as by_identity:
        identity(name)
    assert by_identity.value.message == by_load.value.message
    assert by_identity.value.hint == by_load.value.hint


def test_a_damaged_checkpoint_is_refused_in_the_words_of_load(tmp_path: Path) -> None:
    short = placed(tmp_path / "short")
    (short / WEIGHTS).write_bytes((checkpoint("demo") / WEIGHTS).read_bytes()[:-5])
    odd = placed(tmp_path / "odd")
    edit_config(odd, model_type="nothing_of_the_kind")
    for folder in (short, odd):
        with pytest.raises(ModelError) as by_load:
            moetui.load(folder)
        with pytest.raises(ModelError) as by_identity:
            identity(folder)
        assert by_identity.value.message == by_load.value.message
