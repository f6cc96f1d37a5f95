"""The committed reference values are what transformers with torch computes today."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).parent
COMMITTED = sorted((HERE / "data").glob("*.npz"))

# float32 sums in another order, on another processor: 1e-5 of the largest value of a field.
RELATIVE = 1e-5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All references made again, in a process of its own: torch and mlx must not share one."""
    out = tmp_path_factory.mktemp("reference")
    made = subprocess.run(
        [sys.executable, str(HERE / "make.py"), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'torch'" in made.stderr:
        pytest.fail("the live reference needs torch: pip install -e '.[reference]'")
    assert made.returncode == 0, made.stderr[-2000:]
    return out


def test_a_committed_reference_exists_for_every_family() -> None:
    families = re.findall(r'^    Family\(\s*"(\w+)"', (HERE / "families.py").read_text(), re.M)
    assert len(families) > 20
    assert {path.stem for path in COMMITTED} == {"demo", *families}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_transformers_still_computes_the_committed_values(path: Path, remade: Path) -> None:
    with np.load(path) as committed, np.load(remade / path.name) as live:
        assert set(committed) == set(live)
        for name in committed:
            _assert_same(name, committed[name], live[name])


def _assert_same(name: str, committed: NDArray[Any], live: NDArray[Any]) -> None:
    if committed.dtype.kind != "f":
        assert np.array_equal(committed, live), name
        return
    assert committed.shape == live.shape, name
    # NaN where a layer has no attention, -inf for experts that are passed over as a group.
    finite = np.isfinite(committed)
    assert np.array_equal(committed[~finite], live[~finite], equal_nan=True), name
    committed, live = committed[finite], live[finite]
    scale = np.abs(committed).max(initial=1.0)
    assert np.abs(committed - live).max(initial=0.0) <= RELATIVE * scale, name
