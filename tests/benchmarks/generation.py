"""What capture costs: tokens/s of plain mlx-lm and of traced generation, interleaved in one run.

    python -m tests.benchmarks.generation [--pairs 7] [--tokens 64] [--model demo]

`--model large` makes a random OLMoE of 12 layers with 64 experts (512 wide) in a temporary
folder. Ratios of pairs are reported; absolute speeds are this machine's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step

import moetui
from moetui.model import Model
from tests.benchmarks.checkpoints import random_olmoe

PROMPT = "The capital of France is"


def plain(model: Model, tokens: int) -> None:
    """mlx-lm's own loop."""
    ids = mx.array(model.tokenize(PROMPT))
    for _ in generate_step(ids, model.network, max_tokens=tokens):
        pass


def traced(model: Model, tokens: int, *, lens: int, residuals: bool) -> None:
    """The same with capture, every token's readings fetched to numpy."""
    for _ in model.generate(PROMPT, tokens, lens=lens, residuals=residuals):
        pass


WAYS: dict[str, Callable[[Model, int], None]] = {
    "routing": lambda model, n: traced(model, n, lens=0, residuals=False),
    "routing + shares": lambda model, n: traced(model, n, lens=0, residuals=True),
    "everything shown live": lambda model, n: traced(model, n, lens=5, residuals=True),
}


def seconds(run: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(model: Model, pairs: int, tokens: int) -> None:
    """Print plain tokens/s and, for every way, the median ratio of interleaved pairs."""
    model.tokenizer.eos_token_ids = set()  # every run makes the same number of tokens
    for way in WAYS.values():
        way(model, 4)
    plain(model, 4)
    speeds: list[float] = []
    for name, way in WAYS.items():
        ratios = []
        for _ in range(pairs):
            base = seconds(lambda: plain(model, tokens))
            ratios.append(seconds(lambda way=way: way(model, tokens)) / base)
            speeds.append(tokens / base)
        middle = statistics.median(ratios)
        print(f"{name:24s} time ratio {middle:.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"plain mlx-lm             {statistics.median(speeds):.0f} tokens/s")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = options.model
        if name == "large":
            name = str(random_olmoe(Path(folder), layers=12, experts=64, hidden=512))
        measure(moetui.load(name), options.pairs, options.tokens)


if __name__ == "__main__":
    main()
