"""Peak memory of drawing a sample: the same whatever the corpus weighs."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

SIZES = (1, 10, 100)
_MIB = 1 << 20

# Run by a shell that stays its parent: a child's peak starts with its parent's size at the fork,
# and pytest is large.
_PROGRAM = """
import resource, sys
from moetui.suites.corpus import open_corpus, sample
drawn = sample(open_corpus(sys.argv[1], "evaluation"), 100, seed=0, max_characters=8192)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(drawn.documents), drawn.available, peak * (1 if sys.platform == "darwin" else 1024))
"""


def text(rng):
    return " ".join(str(rng.getrandbits(60)) for _ in range(220))


def written(path, mebibytes):
    """A corpus of about that size, none of whose documents are the same."""
    rng, as_json, size = random.Random(mebibytes), path.suffix == ".jsonl", 0
    with path.open("w") as handle:
        while size < mebibytes * _MIB:
            document = text(rng)
            size += handle.write(
                json.dumps({"text": document, "domain": "d"}) + "\n"
                if as_json
                else document + "\n\n"
            )
    return path


def measured(path):
    """Documents drawn, documents available, peak in bytes."""
    shell = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _PROGRAM, str(path)]
    out = subprocess.run(
        shell, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    ).stdout
    return tuple(map(int, out.split()))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_memory_does_not_grow_with_the_corpus(tmp_path, suffix):
    peaks = []
    for size in SIZES:
        path = written(tmp_path / f"c{size}{suffix}", size)
        drawn, available, peak = measured(path)
        path.unlink()
        # Documents are about 4 KiB, and half of them are of this half.
        assert drawn == 100 and available > size * 256 * 0.3
        peaks.append(peak)
    print(suffix, [f"{peak / _MIB:.1f} MiB" for peak in peaks])
    # Whoever held the largest corpus would need 100 MiB more than for the smallest.
    assert max(peaks) - min(peaks) < 16 * _MIB


@pytest.mark.slow
def test_memory_does_not_grow_with_the_row_groups_of_a_parquet_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    peaks = []
    for size in SIZES:
        path, rng = tmp_path / f"c{size}.parquet", random.Random(size)
        with parquet.ParquetWriter(path, pyarrow.schema([("text", pyarrow.string())])) as writer:
            for _ in range(size):
                rows = [text(rng) for _ in range(256)]
                writer.write_table(pyarrow.table({"text": rows}))
        drawn, _, peak = measured(path)
        assert drawn == 100
        peaks.append(peak)
        path.unlink()
    print(".parquet", [f"{peak / _MIB:.1f} MiB" for peak in peaks])
    assert max(peaks) - min(peaks) < 32 * _MIB


def test_one_line_of_a_hundred_mebibytes_is_read_in_little_memory(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("".join(f"short {i}\n\n" for i in range(40)))
    few = measured(path)[2]
    with path.open("ab") as handle:
        for _ in range(100):
            handle.write(b"words" * (_MIB // 5))
    assert measured(path)[2] - few < 24 * _MIB
