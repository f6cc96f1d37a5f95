"""What is kept of a run on disk: whole or not at all, under a hash of what it depends on."""

import os
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from moetui.suites.cells import CellStore, cell_key
from moetui.suites.pack import pack, unpack

KEY, OTHER = "0" * 32, "f" * 32


@pytest.fixture
def store(tmp_path):
    return CellStore(tmp_path, reuse=True)


def test_what_was_kept_is_found_again_by_its_key_alone(store, tmp_path):
    store.put(KEY, b"content")
    assert store.get(KEY) == b"content" and store.get(OTHER) is None
    assert CellStore(tmp_path, reuse=False).get(KEY) is None


def test_a_damaged_cell_is_no_cell(store):
    store.put(KEY, b"content" * 100)
    (path,) = store.folder.iterdir()
    whole = path.read_bytes()
    for damage in (b"", whole[:-1], whole[:20], whole + b"x", b"x" + whole[1:], bytes(len(whole))):
        path.write_bytes(damage)
        assert store.get(KEY) is None
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.get(KEY) is None
    path.write_bytes(whole)
    assert store.get(KEY) == b"content" * 100


def test_old_cells_make_room_but_those_in_use_stay(store):
    for age, name in enumerate(("a", "b", "c", "d")):
        store.put(name * 32, b"x" * 1000)
        os.utime(store.folder / f"{name * 32}.cell", (age, age))
    store.get("b" * 32)  # used now: the youngest
    store.prune(["a" * 32], limit=2500)
    assert sorted(p.name[0] for p in store.folder.iterdir()) == ["a", "b"]


def test_the_key_follows_everything_it_is_given():
    first = cell_key(identity="m", inputs={"texts": ["a", "b"]}, seed=0)
    assert first == cell_key(seed=0, inputs={"texts": ["a", "b"]}, identity="m")
    changed = [
        cell_key(identity="n", inputs={"texts": ["a", "b"]}, seed=0),
        cell_key(identity="m", inputs={"texts": ["ab"]}, seed=0),
        cell_key(identity="m", inputs={"texts": ["a", "b"]}, seed=1),
    ]
    assert len({first, *changed}) == 4


@dataclass(frozen=True, eq=False)
class Sums:
    names: tuple[str, ...]
    by_name: dict[str, NDArray[np.int16]]
    values: NDArray[np.float64]
    flags: NDArray[np.bool_] | None


class Pair(msgspec.Struct, frozen=True):
    first: Sums
    rest: tuple[NDArray[np.float32], ...]


@settings(max_examples=60, deadline=None)
@given(
    values=arrays.arrays(np.float64, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    small=arrays.arrays(np.int16, 5),
    name=st.text(),
)
def test_arrays_keep_type_shape_and_every_bit(values, small, name):
    one = Sums((name,), {name: small}, values, np.array([True, False]))
    two = Sums((), {}, values.T, None)
    for whole in (Pair(one, (np.zeros((0, 3), np.float32),)), Pair(two, ())):
        back = unpack(pack(whole), Pair)
        assert back.first.names == whole.first.names and back.first.by_name.keys() == set(
            whole.first.by_name
        )
        assert back.first.values.dtype == values.dtype
        assert back.first.values.shape == whole.first.values.shape
        assert back.first.values.tobytes() == whole.first.values.tobytes()
        assert (back.first.flags is None) == (whole.first.flags is None)
        assert [a.shape for a in back.rest] == [a.shape for a in whole.rest]
        assert pack(back) == pack(whole)


def test_what_is_no_plain_data_cannot_be_kept():
    for thing in (object(), np.array([object()])):
        with pytest.raises(NotImplementedError, match="cannot be kept"):
            pack(thing)
    with pytest.raises(msgspec.MsgspecError):
        unpack(b"\xc1", Sums)
