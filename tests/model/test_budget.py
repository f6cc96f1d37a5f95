"""Whether a model fits: figures from headers against what is really loaded, memory that is free."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

import moetui
from moetui.demo import checkpoint
from moetui.errors import ModelError
from moetui.model import Model, budget
from moetui.model.budget import (
    Need,
    available_memory,
    cache_bytes,
    capture_bytes,
    need,
    on_device,
    require,
    weight_bytes,
)
from moetui.model.checkpoint import check
from moetui.model.safetensors import Tensor, read_header
from tests.model.editing import WEIGHTS, edit_config
from tests.reference.values import DATA

GIB = 1 << 30


@pytest.mark.parametrize("name", ["demo", "olmoe", "mixtral", "qwen3_moe", "gpt_oss", "llama"])
def test_the_weights_take_what_the_headers_foretell(
    model_of: Callable[[str], Model], name: str
) -> None:
    folder = checkpoint("demo") if name == "demo" else DATA / name
    model = model_of(name)
    cpu = model.info.backend == "cpu"
    assert weight_bytes(check(folder).tensors, cpu=cpu) == model.info.weight_bytes


def test_packed_weights_stay_packed(tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    shutil.copytree(checkpoint("demo"), folder)
    network = moetui.load("demo").network
    nn.quantize(network, group_size=32, bits=4)
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(folder / WEIGHTS), weights)
    edit_config(folder, quantization={"group_size": 32, "bits": 4})
    loaded = moetui.load(folder)
    assert loaded.info.quantization == "4-bit affine"
    found = check(folder)
    assert found.packed and not check(checkpoint("demo")).packed
    cpu = loaded.info.backend == "cpu"
    assert weight_bytes(found.tensors, cpu=cpu) == loaded.info.weight_bytes
    # 4 bits a weight, and two float32 numbers for every 32 weights: 6 bits in all.
    matrix = network.model.layers[0].self_attn.q_proj
    assert sum(a.nbytes for _, a in tree_flatten(matrix.parameters())) * 8 == 128 * 128 * 6


def test_types_are_counted_as_they_will_be_loaded() -> None:
    tensors = {
        dtype: Tensor(dtype, (10, 10), (0, 0))
        for dtype in ("BF16", "F16", "F32", "U32", "U8", "F8_E4M3")
    }
    sizes = {d: weight_bytes({d: t}, cpu=False) for d, t in tensors.items()}
    assert sizes == {"BF16": 200, "F16": 200, "F32": 400, "U32": 400, "U8": 100, "F8_E4M3": 200}
    on_cpu = {d: weight_bytes({d: t}, cpu=True) for d, t in tensors.items()}
    assert on_cpu == sizes | {"BF16": 400, "F16": 400, "F8_E4M3": 400}


@pytest.mark.parametrize("name", ["demo", "mixtral", "qwen3_moe", "llama"])
def test_the_cache_takes_what_the_configuration_foretells(
    model_of: Callable[[str], Model], name: str
) -> None:
    model = model_of(name)
    cache = make_prompt_cache(model.network)
    tokens = 256  # mlx-lm's caches grow in steps of that many
    mx.eval(model.network(mx.zeros((1, tokens), mx.int32), cache=cache))
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache)
    folder = checkpoint("demo") if name == "demo" else DATA / name
    assert cache_bytes(check(folder).config, tokens, 4) == taken


@pytest.mark.parametrize("name", ["demo", "mixtral", "qwen3_moe", "gpt_oss"])
def test_captures_take_no_more_than_foretold(model_of: Callable[[str], Model], name: str) -> None:
    model = model_of(name)
    trace = model.trace(np.arange(64))
    assert trace.selection_scores is not None
    assert trace.router_parts is not None and trace.seed_parts is not None
    kept = (trace.router_logits, trace.selection_scores, trace.router_parts, trace.seed_parts)
    folder = checkpoint("demo") if name == "demo" else DATA / name
    assert capture_bytes(check(folder).config, 64) >= sum(a.nbytes for a in kept)


def test_loading_takes_no_more_memory_than_foretold(tmp_path: Path) -> None:
    from tests.benchmarks.checkpoints import random_olmoe

    folder = random_olmoe(tmp_path, layers=6, experts=16, hidden=256)
    found = check(folder)
    needed = need(found.config, found.tensors, cpu=True)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    moetui.load(folder)
    assert mx.get_peak_memory() - before <= needed.total


def test_what_does_not_fit_is_refused_with_the_figures_before_a_weight_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "available_memory", lambda: 10**6)
    monkeypatch.setattr(budget, "on_device", lambda info, available, active: available)
    monkeypatch.setattr(mx, "load", lambda path: pytest.fail("a weight file was opened"))
    with pytest.raises(ModelError, match=r"^demo does not fit .* and 0\.0 GB are available$") as e:
        moetui.load("demo")
    assert "quantised version" in e.value.hint and "close other programs" in e.value.hint


def test_the_refusal_names_what_is_needed_for_what() -> None:
    large = Need(weights=90 * 10**9, cache=2 * 10**9, captures=10**9, loading=10**9, context=512)
    assert large.total == 93 * 10**9
    with pytest.raises(ModelError) as caught:
        require(large, 24 * 10**9, "org/name", packed=True)
    assert caught.value.message == (
        "org/name does not fit into memory: it needs 93.0 GB (weights 90.0 GB, 512 tokens of "
        "context 3.0 GB) and 24.0 GB are available"
    )
    assert caught.value.hint == "take a smaller model, or close other programs"
    require(large, 93 * 10**9, "org/name", packed=True)
    require(large, None, "org/name", packed=True)  # a system that does not tell


def system(root: Path, **files: str) -> Path:
    """A tree of system files; `__` in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       16000000 kB\nMemFree: 1000000 kB\nMemAvailable:    8000000 kB\n"


@pytest.mark.skipif("sys.platform != 'linux'", reason="reads the files of Linux")
def test_linux_tells_what_programs_can_take(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    assert available_memory(system(tmp_path, proc__meminfo=MEMINFO)) == 8_000_000 * 1024
    real = available_memory()
    assert real is not None and real > 0


@pytest.mark.skipif("sys.platform != 'linux'", reason="reads the files of Linux")
def test_a_control_group_that_allows_less_counts(tmp_path: Path) -> None:
    root = system(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/a/b\n")
    group = root / "sys/fs/cgroup/a"
    (group / "b").mkdir(parents=True)
    (group / "b/memory.max").write_text("max\n")
    (group / "b/memory.current").write_text("5\n")
    assert available_memory(root) == 8_000_000 * 1024
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group / "memory.current").write_text(f"{3 * GIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {GIB // 2}\n")
    assert available_memory(root) == GIB + GIB // 2  # the page cache can be given back


@pytest.mark.skipif("sys.platform != 'linux'", reason="reads the files of Linux")
def test_the_older_control_groups_count_too(tmp_path: Path) -> None:
    root = system(
        tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="4:memory:/job\n2:cpu:/job\n0::/\n"
    )
    group = root / "sys/fs/cgroup/memory/job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{2 * GIB}")
    (group / "memory.usage_in_bytes").write_text(f"{GIB}")
    assert available_memory(root) == GIB


def test_macos_tells_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    told = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            500000.
Pages inactive:                           20000.
Pages speculative:                         3000.
Pages throttled:                              0.
Pages wired down:                        100000.
Pages purgeable:                            400.
"Translation faults":                 123456789.
"""
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(budget, "_output_of", lambda program: told)
    assert available_memory() == (10_000 + 20_000 + 3_000 + 400) * 16_384
    monkeypatch.setattr(budget, "_output_of", lambda program: "")
    assert available_memory() is None


def test_a_gpu_has_its_own_limit() -> None:
    assert on_device({"device_name": "a CPU"}, 7, active=3) == 7
    metal = {"max_recommended_working_set_size": 100, "memory_size": 128}
    assert on_device(metal, 90, active=30) == 70
    assert on_device(metal, 50, active=30) == 50
    assert on_device(metal, None, active=30) == 70
    assert on_device({"total_memory": 80, "free_memory": 60}, 16, active=3) == 60


def test_a_header_tells_what_is_in_the_file() -> None:
    header = read_header(checkpoint("demo") / WEIGHTS)
    weights = mx.load(str(checkpoint("demo") / WEIGHTS))
    assert {name: tensor.shape for name, tensor in header.items()} == {
        name: tuple(array.shape) for name, array in weights.items()
    }
    assert sum(t.nbytes for t in header.values()) == sum(a.nbytes for a in weights.values())
