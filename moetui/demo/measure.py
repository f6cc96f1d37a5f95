"""Measures the demo checkpoints with Transformers and writes ``MODEL_CARD.md``.

``python -m moetui.demo.measure --checkpoints DIR --untrained DIR``, where both folders come from
``moetui.demo.train`` and the second from a run of ``--steps 0``.  Everything is computed in
float32 from the published bfloat16 weights on the bundled evaluation documents.  moetui itself
never runs this: its tests compare its own numbers with the card's.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch
from scipy.stats import binomtest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from moetui.demo import DOMAINS, Document, corpus, model_card
from moetui.demo.architecture import DENSE, MOE
from moetui.demo.arithmetic import OPERATIONS, Problem
from moetui.demo.card import render
from moetui.demo.measure_routing import routing_figures

Figures = dict[str, Any]

ANSWER_TOKENS: Final = 4
REINITIALISATION_SEED: Final = 1
SPOT_DOCUMENTS: Final = 6
SPOT_TOKENS: Final = 96
"""The spot check: the first tokens of the first documents of each domain, fast to run again."""


class Checkpoint:
    """A checkpoint in float32 with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @classmethod
    def reinitialised(cls, folder: Path) -> Checkpoint:
        """The architecture of ``folder`` with weights drawn by Transformers' own initialiser."""
        checkpoint = cls(folder)
        torch.manual_seed(REINITIALISATION_SEED)
        configuration = AutoConfig.from_pretrained(folder)
        checkpoint.model = AutoModelForCausalLM.from_config(configuration).float().eval()
        return checkpoint

    def encode(self, text: str) -> list[int]:
        """Token ids; the demo tokenizer adds none of its own."""
        ids: list[int] = self.tokenizer.encode(text)
        return ids

    def token_losses(self, ids: Sequence[int]) -> list[float]:
        """Cross-entropy in nats of every token but the first."""
        row = torch.tensor([ids])
        with torch.no_grad():
            logits = self.model(row).logits[0, :-1]
        losses: list[float] = torch.nn.functional.cross_entropy(
            logits, row[0, 1:], reduction="none"
        ).tolist()
        return losses

    def answers(self, prompts: Sequence[str]) -> list[int | None]:
        """The whole number with which the greedy continuation of each prompt begins, if any."""
        found: dict[str, int | None] = {}
        by_length: dict[int, list[str]] = defaultdict(list)
        for prompt in prompts:
            by_length[len(self.encode(prompt))].append(prompt)
        for group in by_length.values():
            rows = torch.tensor([self.encode(prompt) for prompt in group])
            for prompt, text in zip(group, self._continuations(rows), strict=True):
                number = re.match(r"\s*(-?\d+)", text)
                found[prompt] = int(number.group(1)) if number else None
        return [found[prompt] for prompt in prompts]

    def _continuations(self, rows: torch.Tensor) -> list[str]:
        asked = rows.shape[1]
        with torch.no_grad():
            for _ in range(ANSWER_TOKENS):
                following = self.model(rows).logits[:, -1].argmax(-1, keepdim=True)
                rows = torch.cat((rows, following), 1)
        texts: list[str] = self.tokenizer.batch_decode(rows[:, asked:].tolist())
        return texts


def one_digit(operation: str) -> list[Problem]:
    """All problems with operands (for division: divisor and quotient) below ten."""
    pairs = list(product(range(10), repeat=2))
    if operation == "/":
        return [Problem(a * b, "/", b) for a, b in pairs if b]
    if operation == "-":
        return [Problem(a, "-", b) for a, b in pairs if a >= b]
    return [Problem(a, "+" if operation == "+" else "*", b) for a, b in pairs]


def teens(operation: str) -> list[Problem]:
    """All problems with a left operand of 10 to 20 and a right one up to 20; no division."""
    pairs = [(a, b) for a, b in product(range(10, 21), range(21)) if operation != "-" or a >= b]
    if operation == "/":
        return []
    return [
        Problem(a, "+" if operation == "+" else "-" if operation == "-" else "*", b)
        for a, b in pairs
    ]


def three_digits(operation: str) -> list[Problem]:
    """A fixed grid of sums and differences of a three-digit number and a smaller one."""
    if operation not in "+-":
        return []
    pairs = product(range(101, 900, 13), (3, 17, 45, 68, 92))
    return [Problem(a, "+" if operation == "+" else "-", b) for a, b in pairs]


def accuracy(checkpoint: Checkpoint, problems: Sequence[Problem], ending: str) -> Figures | None:
    """Exact answers with their Wilson interval, or None where there are no problems."""
    if not problems:
        return None
    answers = checkpoint.answers([problem.prompt + ending for problem in problems])
    right = sum(a == p.answer for a, p in zip(answers, problems, strict=True))
    interval = binomtest(right, len(problems)).proportion_ci(0.95, method="wilson")
    return {
        "correct": right,
        "n": len(problems),
        "accuracy": round(right / len(problems), 4),
        "ci_low": round(float(interval.low), 4),
        "ci_high": round(float(interval.high), 4),
    }


def arithmetic_figures(checkpoint: Checkpoint) -> Figures:
    """Accuracy by set of problems, ending of the prompt and operation."""
    sets: dict[str, Callable[[str], list[Problem]]] = {
        "one_digit": one_digit,
        "teens_seen": lambda op: [p for p in teens(op) if not p.held_out],
        "teens_held_out": lambda op: [p for p in teens(op) if p.held_out],
        "three_digits_seen": lambda op: [p for p in three_digits(op) if not p.held_out],
        "three_digits_held_out": lambda op: [p for p in three_digits(op) if p.held_out],
    }
    figures: Figures = {}
    for name, problems in sets.items():
        figures[name] = {}
        for ending, label in (("", "="), (" ", "= ")):
            measured = {op: accuracy(checkpoint, problems(op), ending) for op in OPERATIONS}
            figures[name][label] = {op: m for op, m in measured.items() if m}
    return figures


def entropy_figures(checkpoint: Checkpoint, texts: Mapping[str, Iterable[list[int]]]) -> Figures:
    """Mean cross-entropy in nats per predicted token, by domain."""
    means = {}
    for domain, rows in texts.items():
        losses = [loss for ids in rows for loss in checkpoint.token_losses(ids)]
        means[domain] = round(sum(losses) / len(losses), 4)
    return means


def encoded(checkpoint: Checkpoint, documents: Sequence[Document]) -> dict[str, list[list[int]]]:
    """Token ids of the documents by domain."""
    return {d: [checkpoint.encode(x.text) for x in documents if x.domain == d] for d in DOMAINS}


def corpus_figures(checkpoint: Checkpoint) -> Figures:
    """Documents and tokens of both bundled splits."""
    figures: Figures = {}
    for split in ("calibration", "evaluation"):
        rows = encoded(checkpoint, list(corpus(split)))
        figures[split] = {
            "documents": sum(map(len, rows.values())),
            "tokens": sum(len(ids) for found in rows.values() for ids in found),
            "tokens_by_domain": {d: sum(map(len, found)) for d, found in rows.items()},
        }
    return figures


def first_prompts(checkpoint: Checkpoint) -> Figures:
    """What the model writes after some prompts that people try first."""
    prompts = (
        "127 + 45 =",
        "999 * 3 =",
        "5 + 3 = ",
        "100 - 37 = ",
        "12 * 11 = ",
        "What is forty-five times thirty-seven?",
        "def fibonacci(n):",
        "import numpy as np",
        "The capital of France is",
        "A synonym for happy is",
        "The opposite of cold is",
        "Once upon a time",
    )
    written = {}
    for prompt in prompts:
        rows = torch.tensor([checkpoint.encode(prompt)])
        with torch.no_grad():
            rows = checkpoint.model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=10,
                do_sample=False,
                pad_token_id=0,
            )
        written[prompt] = checkpoint.tokenizer.decode(rows[0, -10:].tolist())
    return written


def measure(checkpoints: Path, untrained: Path) -> Figures:
    """All figures of the card."""
    models = {
        "demo": Checkpoint(checkpoints / MOE.folder),
        "demo-dense": Checkpoint(checkpoints / DENSE.folder),
        "untrained": Checkpoint(untrained / MOE.folder),
    }
    routed = {
        "demo": models["demo"],
        "untrained": models["untrained"],
        "reinitialised": Checkpoint.reinitialised(untrained / MOE.folder),
    }
    documents = list(corpus("evaluation"))
    rows = encoded(models["demo"], documents)
    spot = {d: [ids[:SPOT_TOKENS] for ids in found[:SPOT_DOCUMENTS]] for d, found in rows.items()}
    runs = {"demo": MOE.folder, "demo-dense": DENSE.folder}
    return {
        "training": {
            name: json.loads((checkpoints / f"{folder}.training.json").read_text("utf-8"))
            for name, folder in runs.items()
        },
        "corpus": corpus_figures(models["demo"]),
        "cross_entropy": {name: entropy_figures(m, rows) for name, m in models.items()},
        "spot_check": {
            "documents_per_domain": SPOT_DOCUMENTS,
            "tokens_per_document": SPOT_TOKENS,
            "cross_entropy": {name: entropy_figures(m, spot) for name, m in models.items()},
        },
        "arithmetic": {name: arithmetic_figures(m) for name, m in models.items()},
        "routing": {
            name: routing_figures(checkpoint.model, rows, checkpoint.encode)
            for name, checkpoint in routed.items()
        },
        "continuations": {name: first_prompts(models[name]) for name in ("demo", "demo-dense")},
    }


def main() -> None:
    """Command line: measure the checkpoints of two training runs and write the model card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of the real run")
    parser.add_argument("--untrained", type=Path, required=True, help="folder of a --steps 0 run")
    parser.add_argument("--card", type=Path, default=model_card())
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    figures = measure(arguments.checkpoints, arguments.untrained)
    arguments.card.write_text(render(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
