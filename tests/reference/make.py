"""Make the reference checkpoints and what transformers with torch computes for them.

    pip install -e '.[reference]'
    python tests/reference/make.py               # rewrites tests/reference/data
    python tests/reference/make.py --out DIR     # elsewhere, as the live comparison does
    python tests/reference/make.py --only demo   # after the demo checkpoint has changed

Every family's folder is a checkpoint; the `.npz` beside it holds `<prompt>.<field>` arrays.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything needed is made here

import numpy as np
import torch
from checkpoints import SPECIAL, save
from families import FAMILIES, VOCABULARY, Family
from record import Arrays, continued, load, record
from transformers import AutoTokenizer
from transformers.utils import logging
from values import CLEAR, margin

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "moetui" / "demo" / "olmoe"

PROMPT_LENGTHS = (1, 7, 12)
# The last prompt goes on with what transformers generates, so that one token at a time can be
# compared too; far more tokens than any sliding window here.
GENERATED = 12
DEMO_TEXTS = ("127 + 45 =", "The capital of France is", "def fibonacci(n):")


def prompts() -> list[list[int]]:
    """Fixed ids: one token, a few, and more than a sliding window holds."""
    ids = np.random.default_rng(20).integers(len(SPECIAL), VOCABULARY, sum(PROMPT_LENGTHS))
    ends = np.cumsum(PROMPT_LENGTHS)[:-1]
    return [part.tolist() for part in np.split(ids, ends)]


def measure(folder: Path, token_ids: list[list[int]], generated: int) -> Arrays:
    """Reference values of all prompts under flat names, and which weights they belong to."""
    model = load(folder)
    flat: Arrays = {}
    for number, prompt in enumerate(token_ids):
        last = number == len(token_ids) - 1
        ids = continued(model, prompt, generated) if last else prompt
        flat |= {f"{number}.{name}": value for name, value in record(model, ids).items()}
        flat[f"{number}.generated"] = np.array(len(ids) - len(prompt))
    flat["prompts"] = np.array(len(token_ids))
    flat["weights_sha256"] = np.array(weights_digest(folder))
    drop_usual_order(flat)
    return flat


def drop_usual_order(flat: Arrays) -> None:
    """Keep `selection_scores` only where some row ranks other experts than its logits do."""
    numbers = [n for n in range(int(flat["prompts"])) if f"{n}.router_logits" in flat]
    if all(_same_order(flat, number) for number in numbers):
        for number in numbers:
            del flat[f"{number}.selection_scores"]


def _same_order(flat: Arrays, number: int) -> bool:
    order = np.argsort(-flat[f"{number}.router_logits"], axis=-1)
    scores = np.take_along_axis(flat[f"{number}.selection_scores"], order, -1)
    return bool((scores[..., 1:] <= scores[..., :-1]).all())


def gap(flat: Arrays) -> float:
    """The least clear decision: of any router at any token, or of the next generated token."""
    gaps = []
    for number in range(int(flat["prompts"])):
        prompt = {
            name.partition(".")[2]: value
            for name, value in flat.items()
            if name.startswith(f"{number}.")
        }
        if "router_logits" in prompt:
            gaps.append(margin(prompt).min())
        if generated := int(prompt["generated"]):
            best = np.sort(prompt["logits"][-generated - 1 :], axis=-1)
            gaps.append((best[:, -1] - best[:, -2]).min())
    return float(min(gaps))


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files, so that stale values are noticed."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def goes_on(flat: Arrays) -> bool:
    """Whether what was generated is neither ended nor one token over and over."""
    last = int(flat["prompts"]) - 1
    tokens = set(flat[f"{last}.token_ids"][-GENERATED:].tolist())
    return len(tokens) >= GENERATED // 4 and SPECIAL.index("<end>") not in tokens


def make_family(family: Family, out: Path) -> str:
    """Write folder and values of the first seed whose routers decide clearly everywhere."""
    folder = out / family.model_type
    for seed in range(200):
        save(family, folder, seed)
        flat = measure(folder, prompts(), GENERATED)
        if gap(flat) > CLEAR and goes_on(flat):
            np.savez_compressed(out / f"{family.model_type}.npz", allow_pickle=False, **flat)
            return f"{family.model_type}: seed {seed}, smallest gap {gap(flat):.1e}"
    raise SystemExit(f"{family.model_type}: no seed gives a clear margin at every row")


def make_demo(out: Path) -> str:
    """Values of the bundled model on a few texts; its margins are what training made them."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    flat = measure(DEMO, [tokenizer(text)["input_ids"] for text in DEMO_TEXTS], generated=0)
    flat["texts"] = np.array(DEMO_TEXTS)
    for number in range(len(DEMO_TEXTS)):
        # The largest field by far, and the tiny families have it.
        del flat[f"{number}.expert_outputs"]
    np.savez_compressed(out / "demo.npz", allow_pickle=False, **flat)
    return f"demo: smallest gap {gap(flat):.1e}"


def main() -> None:
    """Make everything, or the part asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "data")
    parser.add_argument("--only", choices=[f.model_type for f in FAMILIES] + ["demo"])
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    arguments.out.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        if arguments.only in (None, family.model_type):
            print(make_family(family, arguments.out))
    if arguments.only in (None, "demo"):
        print(make_demo(arguments.out))


if __name__ == "__main__":
    main()
