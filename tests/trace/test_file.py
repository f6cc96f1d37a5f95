"""A `.moetrace` file gives back what was saved, and nothing else can pass for one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from moetui.errors import EXIT_USAGE, TraceFileError
from moetui.trace import LensReadout, Streams, Trace, open_trace
from tests.builders import make_trace


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "one.moetrace"
    make_trace(T=5, moe_layers=(1, 3)).save(path)
    return path


def assert_equal(one: object, other: object) -> None:
    assert type(one) is type(other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    elif isinstance(one, Trace | LensReadout | Streams):
        for name in one.__dataclass_fields__:
            assert_equal(getattr(one, name), getattr(other, name))
    else:
        assert one == other


@pytest.mark.parametrize("moe_layers", [(0, 1, 2, 3), (1, 3), ()])
def test_a_trace_comes_back_as_it_was(tmp_path: Path, moe_layers: tuple[int, ...]) -> None:
    trace = make_trace(T=7, moe_layers=moe_layers)
    path = tmp_path / "a.moetrace"
    trace.save(path)
    assert_equal(open_trace(path), trace)


def test_readings_that_are_absent_stay_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.moetrace"
    make_trace(with_lens=False, with_parts=False).save(path)
    back = open_trace(path)
    assert back.lens is None and back.router_parts is None and back.shares is None


def refused(path: Path) -> TraceFileError:
    with pytest.raises(TraceFileError) as caught:
        open_trace(path)
    assert caught.value.exit_code == EXIT_USAGE and caught.value.hint
    return caught.value


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    assert "no such trace file" in refused(tmp_path / "none.moetrace").message


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.moetrace"
    save_file({"w": np.zeros(3, np.float32)}, path)
    assert "no trace description" in refused(path).message


def rewrite(path: Path, **changes: np.ndarray | None) -> None:
    """The same file with some tensors replaced, added or (None) left out."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = {**load_file(path), **changes}
    save_file({n: a for n, a in tensors.items() if a is not None}, path, metadata=metadata)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"token_ids": None}, "token_ids"),
        ({"lens.logprobs": None}, "lens.logprobs"),
        ({"unheard_of": np.zeros(2, np.float32)}, "unheard_of"),
        ({"token_ids": np.zeros(4, np.int32)}, "token_ids"),
        ({"token_ids": np.zeros(5, np.int64)}, "type"),
        ({"expert_ids": np.zeros((5, 2), np.int16)}, "axes"),
        ({"expert_weights": np.zeros((5, 2, 3), np.float32)}, "does not fit"),
        ({"router_logits": np.zeros((5, 3, 16), np.float32)}, "does not fit"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(
    saved: Path, changes: dict[str, np.ndarray | None], says: str
) -> None:
    rewrite(saved, **changes)
    assert says in refused(saved).message


def test_a_newer_format_is_named(saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data.replace(b'schema_version\\":1', b'schema_version\\":9'))
    assert "trace format 9" in refused(saved).message


def test_a_header_that_claims_more_than_the_file_holds_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["logits"]["shape"] = [1 << 40]
    header["logits"]["data_offsets"][1] = header["logits"]["data_offsets"][0] + (1 << 42)
    raw = json.dumps(header).encode()
    saved.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
    refused(saved)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "f.moetrace"
    make_trace(T=2, N=2).save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(bytes(raw[:cut]) if data.draw(st.booleans()) else bytes(raw))
    try:
        trace = open_trace(path)
    except TraceFileError:
        return
    assert len(trace) == 2


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError, match="cannot write"):
        make_trace().save(tmp_path / "none" / "a.moetrace")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "a.moetrace"
    target.mkdir()
    with pytest.raises(TraceFileError, match="cannot write"):
        make_trace().save(target)
    assert list(tmp_path.iterdir()) == [target]
