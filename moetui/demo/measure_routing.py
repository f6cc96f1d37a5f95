"""What the demo model's routers do on the evaluation documents, measured with Transformers.

Every figure is also computed for the untrained network: a figure that both networks share says
nothing about learning, and the model card says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Rows = Mapping[str, Sequence[Sequence[int]]]
Floats = NDArray[np.float64]

PERMUTATIONS: Final = 200
TOKEN_PAIRS: Final = 4_000
ABLATION_DOCUMENTS: Final = 6
COLD: Final = 0.01


@dataclass(frozen=True, slots=True)
class Observation:
    """One document run through the network.

    ``experts``: [tokens, layers, k] selected ids; ``lens``: [layers] share of the tokens for which
    the final norm and head, put on a layer's input, already give the final top token; ``ratio``:
    [layers] mean of ‖Wd‖/(‖We‖ + ‖Wd‖) with W the router, e the embedding and d the rest of the
    residual that enters the layer.
    """

    domain: str
    ids: NDArray[np.int64]
    experts: NDArray[np.int64]
    lens: Floats
    ratio: Floats


@contextmanager
def _recorded(model: Any) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """While open, each forward fills the layers' inputs and the routers' logits."""
    inputs: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    hooks = []
    for layer in model.model.layers:
        hooks.append(
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: inputs.append(args[0] if args else kwargs["hidden_states"]),
                with_kwargs=True,
            )
        )
        hooks.append(
            layer.mlp.gate.register_forward_hook(lambda *event: logits.append(event[2][0]))
        )
    try:
        yield inputs, logits
    finally:
        for hook in hooks:
            hook.remove()


def observe(model: Any, domain: str, ids: Sequence[int]) -> Observation:
    """Run one document and keep what the figures need."""
    k = model.config.num_experts_per_tok
    with _recorded(model) as (inputs, logits), torch.no_grad():
        final = model(torch.tensor([ids])).logits[0].argmax(-1)
        embedding = inputs[0][0]
        lens, ratio = [], []
        for layer, residual in zip(model.model.layers, inputs, strict=True):
            early = model.lm_head(model.model.norm(residual[0])).argmax(-1)
            lens.append(float((early == final).float().mean()))
            rest = ((residual[0] - embedding) @ layer.mlp.gate.weight.T).norm(dim=-1)
            seed = (embedding @ layer.mlp.gate.weight.T).norm(dim=-1)
            ratio.append(float((rest / (rest + seed)).mean()))
        experts = torch.stack([z.topk(k, -1).indices for z in logits], 1)
    return Observation(domain, np.array(ids), experts.numpy(), np.array(lens), np.array(ratio))


def token_shares(seen: Sequence[Observation], experts: int) -> Floats:
    """f_e, the share of tokens that select each expert: [layers, experts], rows sum to k."""
    chosen = np.concatenate([o.experts for o in seen])
    return np.stack(
        [
            np.bincount(chosen[:, layer].ravel(), minlength=experts) / len(chosen)
            for layer in range(chosen.shape[1])
        ]
    )


def domain_information(counts: Floats, labels: NDArray[np.int64], domains: int) -> Floats:
    """Mutual information of domain and selected expert in bits, domains weighted alike: [layers].

    counts: [documents, layers, experts] selections; labels: [documents] domain numbers.
    """
    by_domain = np.stack([counts[labels == d].sum(0) for d in range(domains)])
    joint = by_domain / by_domain.sum(-1, keepdims=True) / domains
    expert = joint.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = joint * np.log2(joint * domains / expert)
    bits: Floats = np.nansum(terms, axis=(0, 2))
    return bits


def _information_figures(seen: Sequence[Observation], experts: int) -> dict[str, list[float]]:
    names = sorted({o.domain for o in seen})
    labels = np.array([names.index(o.domain) for o in seen])
    counts = np.stack([token_shares([o], experts) * len(o.ids) for o in seen])
    rng = np.random.default_rng(0)
    null = np.stack(
        [
            domain_information(counts, rng.permutation(labels), len(names))
            for _ in range(PERMUTATIONS)
        ]
    )
    return {
        "bits": _rounded(domain_information(counts, labels, len(names))),
        "permutation_mean": _rounded(null.mean(0)),
        "permutation_max": _rounded(null.max(0)),
    }


def _load_figures(seen: Sequence[Observation], experts: int) -> dict[str, Any]:
    pooled = token_shares(seen, experts)
    names = sorted({o.domain for o in seen})
    by_domain = {n: token_shares([o for o in seen if o.domain == n], experts) for n in names}
    return {
        "busiest": _rounded(pooled.max(-1)),
        "rarest": _rounded(pooled.min(-1)),
        "cold": (pooled < COLD).sum(-1).tolist(),
        "cold_by_domain": {n: (shares < COLD).sum(-1).tolist() for n, shares in by_domain.items()},
        "most_divided": _most_divided(by_domain),
    }


def _most_divided(by_domain: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """For each layer the expert whose share of the tokens differs most between two domains."""
    shares = np.stack(list(by_domain.values()))
    experts = (shares.max(0) - shares.min(0)).argmax(-1)
    return [
        {
            "layer": layer,
            "expert": int(expert),
            "share": {n: round(float(s[layer, expert]), 4) for n, s in by_domain.items()},
        }
        for layer, expert in enumerate(experts)
    ]


def _context_figures(seen: Sequence[Observation]) -> dict[str, list[float]]:
    """Mean share of selected experts that two places have in common, by layer.

    Once for two occurrences of one token id, once for any two places.  1 - the former is how much
    routing depends on context; the latter is its floor.
    """
    ids = np.concatenate([o.ids for o in seen])
    chosen = np.concatenate([o.experts for o in seen])
    rng = np.random.default_rng(0)
    order = np.argsort(ids, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1)
    common = [group for group in groups if len(group) >= 20]
    same = [
        rng.choice(common[rng.integers(len(common))], 2, replace=False) for _ in range(TOKEN_PAIRS)
    ]
    anything = rng.integers(len(ids), size=(TOKEN_PAIRS, 2))
    return {
        "same_token": _rounded(_overlap(chosen, np.array(same))),
        "any_token": _rounded(_overlap(chosen, anything)),
    }


def _overlap(chosen: NDArray[np.int64], pairs: NDArray[np.int64]) -> Floats:
    """[layers]: mean over pairs of places of the share of selected experts in common."""
    left, right = chosen[pairs[:, 0]], chosen[pairs[:, 1]]
    shared: Floats = (left[..., :, None] == right[..., None, :]).any(-1).mean((0, 2))
    return shared


def _ablation_figures(model: Any, rows: Rows, shares: Floats) -> list[dict[str, float]]:
    """Change of the mean loss when a layer's busiest expert gives nothing, in nats."""
    texts = [ids for found in rows.values() for ids in found[:ABLATION_DOCUMENTS]]
    whole = _mean_loss(model, texts)
    figures = []
    for number, layer in enumerate(model.model.layers):
        expert = int(shares[number].argmax())
        weights = layer.mlp.experts.down_proj.data
        kept = weights[expert].clone()
        weights[expert] = 0
        loss = _mean_loss(model, texts)
        weights[expert] = kept
        figures.append(
            {
                "layer": number,
                "expert": expert,
                "share": round(float(shares[number, expert]), 4),
                "delta_nats": round(loss - whole, 4),
            }
        )
    return figures


def _mean_loss(model: Any, texts: Sequence[Sequence[int]]) -> float:
    total, tokens = 0.0, 0
    with torch.no_grad():
        for ids in texts:
            row = torch.tensor(ids)
            logits = model(row[None]).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum"))
            tokens += len(ids) - 1
    return total / tokens


def _operation_probe(model: Any, encode: Callable[[str], list[int]]) -> list[float]:
    """Accuracy by layer of a linear probe that reads the operation at "=", operands held out."""
    prompts, operations, groups = [], [], []
    for a in range(1, 10):
        for b in range(1, 10):
            for operation in "+-*/":
                left = a * b if operation == "/" else a
                prompts.append(encode(f"{left} {operation} {b} ="))
                operations.append(operation)
                groups.append(10 * a + b)
    with _recorded(model) as (inputs, _), torch.no_grad():
        model(torch.tensor(prompts))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    folds = GroupKFold(3)
    return [
        round(
            float(
                cross_val_score(
                    probe, residual[:, -1].numpy(), operations, groups=groups, cv=folds
                ).mean()
            ),
            3,
        )
        for residual in inputs
    ]


def routing_figures(model: Any, rows: Rows, encode: Callable[[str], list[int]]) -> dict[str, Any]:
    """All routing figures of one network, lists by layer."""
    experts = model.config.num_experts
    seen = [observe(model, domain, ids) for domain, found in rows.items() for ids in found]
    return {
        "domain_information": _information_figures(seen, experts),
        "load": _load_figures(seen, experts),
        "context_overlap": _context_figures(seen),
        "lens_agreement": _rounded(np.mean([o.lens for o in seen], axis=0)),
        "attention_ratio": _rounded(np.mean([o.ratio for o in seen], axis=0)),
        "ablation": _ablation_figures(model, rows, token_shares(seen, experts)),
        "operation_probe": _operation_probe(model, encode),
    }


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]
