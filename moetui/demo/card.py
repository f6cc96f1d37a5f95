"""Writes the model card: measured figures as YAML front matter, then prose made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import yaml

from moetui.demo import DOMAINS

Figures = Mapping[str, Any]

RECIPE: Final = {
    "initialisation": {
        "embeddings": "N(0, 0.5)",
        "other_matrices": "N(0, 0.02)",
        "attention_and_feed_forward_outputs": "N(0, 0.02 / sqrt(2 * layers))",
        "norm_gains": 1.0,
        "final_norm_gain": 0.1,
    },
    "optimiser": "AdamW, betas 0.9 and 0.95, weight decay 0.1 on matrices, gradient norm <= 1",
    "learning_rate": "3e-3 after 100 warm-up steps, cosine to 2 %",
    "loss": "cross-entropy + 0.001 * load balance + 0.001 * router z^2, means over layers",
    "precision": "bfloat16 with float32 masters; router, softmax and loss in float32",
    "tokens_per_step": 2048,
    "row_lengths": {128: 0.7, 256: 0.2, 512: 0.1},
    "machine": "2-core Linux CPU",
}
_TITLES: Final = {
    "one_digit": "one digit",
    "teens_seen": "10..20, seen",
    "teens_held_out": "10..20, held out",
    "three_digits_seen": "three digits ± fewer, seen",
    "three_digits_held_out": "three digits ± fewer, held out",
}


def render(figures: Figures) -> str:
    """The whole card as Markdown; ``figures`` are those of :func:`moetui.demo.measure.measure`."""
    matter = {
        "license": "apache-2.0",
        "library_name": "mlx",
        "tags": ["mixture-of-experts", "interpretability", "teaching"],
        "recipe": RECIPE,
        **figures,
    }
    front = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{front}---\n\n{_prose(figures)}"


def _prose(figures: Figures) -> str:
    """The text of ``card_template.md`` with the tables put in."""
    template = (resources.files("moetui.demo") / "card_template.md").read_text(encoding="utf-8")
    tables = {
        "sizes": _sizes(figures),
        "entropy": _entropy(figures["cross_entropy"]),
        "arithmetic": _arithmetic(figures["arithmetic"]),
        "routing": _routing(figures["routing"]),
        "ablation": _ablation(figures["routing"]),
        "cold": _cold(figures["routing"]["demo"]["load"]["cold_by_domain"]),
        "divided": _divided(figures["routing"]["demo"]["load"]["most_divided"]),
        "continuations": _continuations(figures["continuations"]),
    }
    for name, table in tables.items():
        template = template.replace(f"{{{{{name}}}}}", table)
    return template


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sizes(figures: Figures) -> str:
    rows = [
        (
            f"`{name}`",
            f"{run['parameters']['total']:,}",
            f"{run['parameters']['active']:,}",
            f"{run['steps']:,}",
            f"{run['tokens']:,}",
            f"{run['seconds']:,}",
        )
        for name, run in figures["training"].items()
    ]
    header = ("checkpoint", "parameters", "used per token", "steps", "training tokens", "seconds")
    return _table(header, rows)


def _entropy(entropy: Figures) -> str:
    rows = [(name, *(f"{means[d]:.3f}" for d in DOMAINS)) for name, means in entropy.items()]
    return _table(("nats per token", *DOMAINS), rows)


def _arithmetic(arithmetic: Figures) -> str:
    rows = []
    for name, sets in arithmetic.items():
        for problems, title in _TITLES.items():
            for ending, operations in sets[problems].items():
                cells = [_accuracy(operations.get(operation)) for operation in "+-*/"]
                rows.append((name, title, f"`{ending}`", *cells))
    return _table(("model", "problems", "prompt ends in", "+", "−", "×", "÷"), rows)


def _accuracy(measured: Figures | None) -> str:
    if measured is None:
        return ""
    return (
        f"{measured['accuracy']:.2f} ({measured['ci_low']:.2f}-{measured['ci_high']:.2f}, "
        f"n = {measured['n']})"
    )


def _routing(routing: Figures) -> str:
    """One row by layer for each figure and network; the trained network comes first."""
    figures: tuple[tuple[str, Callable[[Figures], Sequence[float]]], ...] = (
        ("domain-expert information, bits", lambda r: r["domain_information"]["bits"]),
        ("the same, domains shuffled", lambda r: r["domain_information"]["permutation_mean"]),
        ("busiest expert, share of tokens", lambda r: r["load"]["busiest"]),
        ("rarest expert, share of tokens", lambda r: r["load"]["rarest"]),
        ("experts in common, same token twice", lambda r: r["context_overlap"]["same_token"]),
        ("experts in common, any two tokens", lambda r: r["context_overlap"]["any_token"]),
        ("lens gives the final top token", lambda r: r["lens_agreement"]),
        ("attention ratio, uncorrected", lambda r: r["attention_ratio"]),
        ("probe for the operation, accuracy", lambda r: r["operation_probe"]),
    )
    rows = [
        (title, name, *(f"{value:.3f}" for value in read(measured)))
        for title, read in figures
        for name, measured in routing.items()
    ]
    layers = len(routing["demo"]["lens_agreement"])
    return _table(("figure", "network", *map(str, range(layers))), rows)


def _ablation(routing: Figures) -> str:
    rows = []
    for layers in zip(*(measured["ablation"] for measured in routing.values()), strict=True):
        trained = layers[0]
        changes = [f"{layer['delta_nats']:+.3f}" for layer in layers]
        expert, share = str(trained["expert"]), f"{trained['share']:.3f}"
        rows.append((str(trained["layer"]), expert, share, *changes))
    header = ("layer", "busiest expert", "share of tokens", *(f"Δ nats, {n}" for n in routing))
    return _table(header, rows)


def _cold(by_domain: Figures) -> str:
    layers = len(next(iter(by_domain.values())))
    rows = [(domain, *map(str, counts)) for domain, counts in by_domain.items()]
    return _table(("experts under 1 %, layer", *(str(n) for n in range(layers))), rows)


def _divided(experts: Sequence[Figures]) -> str:
    rows = [
        (str(e["layer"]), str(e["expert"]), *(f"{e['share'][d]:.3f}" for d in DOMAINS))
        for e in experts
    ]
    return _table(("layer", "expert", *DOMAINS), rows)


def _continuations(written: Figures) -> str:
    rows = [
        (f"`{prompt}`", *(_inline(written[name][prompt]) for name in written))
        for prompt in next(iter(written.values()))
    ]
    return _table(("prompt", *written), rows)


def _inline(text: str) -> str:
    shown = text.replace("\n", "↵").replace("|", "\\|").replace("`", "'")
    return f"`{shown}`"
