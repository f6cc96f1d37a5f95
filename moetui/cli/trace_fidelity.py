"""`moetui trace --fidelity REF`: how a checkpoint routes beside its reference, as JSON or text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moetui.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moetui.analyses.fidelity import Fidelity, LayerFidelity, Sample
    from moetui.analyses.routing_pairs import Routing
    from moetui.model import Model
    from moetui.stats import Statistic
    from moetui.trace import ModelInfo

    Ids = NDArray[np.int32]

# Enough documents for an interval that need not be called approximate.
DOCUMENTS, TOKENS, SEED = 100, 64, 0
_SAME_MODEL = "give two checkpoints of one model, e.g. one quantised and the one it was made from"


def refuse(max_tokens: int, output: Path | None) -> None:
    """Raise UsageError for options that do not go with --fidelity, before anything is loaded."""
    from moetui.trace.file import SUFFIX

    if max_tokens:
        raise UsageError(
            "--max-tokens does not go with --fidelity",
            "both checkpoints read the same text, nothing is generated; leave it out",
        )
    if output is None:
        return
    if output.suffix == SUFFIX:
        raise UsageError(
            f"a comparison is no trace: it does not fit into {output}", "give -o NAME.json"
        )
    if not (output.parent.is_dir() and os.access(output.parent, os.W_OK)):
        raise UsageError(f"cannot write {output}", "choose a folder that exists and is writable")


def compare(model: str, reference: str, prompt: str, *, download: bool) -> Fidelity:
    """Trace the prompt and the sampled documents with `model`, free it, then with `reference`.

    Raises UsageError where the two are no checkpoints of one model.
    """
    from moetui.analyses.fidelity import fidelity, prompt_fidelity
    from moetui.model import load
    from moetui.model.release import free_unused

    texts, sample = _documents()
    loaded = load(model, download=download)
    info = loaded.info
    _look_at(reference, info, download=download)
    ids = _tokenized(loaded, prompt, texts)
    tokens = [loaded.token_text(int(token)) for token in ids[0]]
    ours = _routing(loaded, ids)
    del loaded
    free_unused()
    loaded = load(reference)
    _check_same_model(info, loaded.info)
    _check_same_tokens(
        info.name, reference, [prompt, *texts], ids, _tokenized(loaded, prompt, texts)
    )
    theirs = _routing(loaded, ids)
    pairs = list(zip(ours, theirs, strict=True))
    return fidelity(info, loaded.info, pairs[1:], prompt_fidelity(tokens, pairs[0]), sample)


def _documents() -> tuple[list[str], Sample]:
    """The texts of the sampled documents, and what to say of them."""
    import numpy as np

    from moetui.analyses.fidelity import Sample
    from moetui.demo import corpus
    from moetui.suites.results import digest

    documents = list(corpus("evaluation"))
    size = min(DOCUMENTS, len(documents))
    drawn = np.random.default_rng(SEED).choice(len(documents), size, replace=False)
    chosen = [documents[i] for i in sorted(drawn.tolist())]
    return [document.text for document in chosen], Sample(
        corpus="moetui demo corpus, evaluation split",
        sampled=size,
        available=len(documents),
        max_tokens=TOKENS,
        documents_digest=digest([(document.id, document.text) for document in chosen]),
        seed=SEED,
    )


def _look_at(reference: str, info: ModelInfo, *, download: bool) -> None:
    """Refuse what can be refused before minutes are spent on tracing."""
    from moetui.analyses.fidelity import unrouted
    from moetui.model.checkpoint import check
    from moetui.model.locate import locate

    if why := unrouted(info):
        raise UsageError(why, "--fidelity is for mixture-of-experts models")
    architecture = check(locate(reference, download=download)).config["model_type"]
    if architecture != info.architecture:
        raise _other_model(
            info.name,
            reference,
            f"architecture is {info.architecture} in {info.name} and {architecture} in {reference}",
        )


def _check_same_model(info: ModelInfo, reference: ModelInfo) -> None:
    from moetui.analyses.fidelity import incomparable

    if why := incomparable(info, reference):
        raise _other_model(info.name, reference.name, why)


def _check_same_tokens(
    model: str, reference: str, texts: Sequence[str], ids: list[Ids], others: list[Ids]
) -> None:
    for text, one, other in zip(texts, ids, others, strict=True):
        if one.tolist() != other.tolist():
            why = f"their tokenizers read {text[:20]!r} differently"
            raise _other_model(model, reference, why)


def _other_model(model: str, reference: str, why: str) -> UsageError:
    return UsageError(
        f"{model} and {reference} are not two checkpoints of one model: {why}", _SAME_MODEL
    )


def _tokenized(model: Model, prompt: str, texts: Sequence[str]) -> list[Ids]:
    """The prompt whole, then every document cut."""
    return [model.tokenize(prompt), *(model.tokenize(text)[:TOKENS] for text in texts)]


def _routing(model: Model, ids: Sequence[Ids]) -> list[Routing]:
    from moetui.analyses.routing_pairs import Routing

    with click.progressbar(
        ids, label=model.info.name, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as texts:
        return [Routing.of(model.trace(text, lens=0, residuals=False)) for text in texts]


def summary(result: Fidelity) -> bytes:
    """The comparison as plain text: both models, the shares by layer, then the prompt."""
    sample = result.sample
    lines = [
        f"{_named(result.model)} against {_named(result.reference)}",
        f"{sample.sampled} of {sample.available} documents ({sample.corpus}), {result.tokens:,} "
        f"tokens, at most {sample.max_tokens} each; 95 % intervals over documents; ~ unrelated "
        "routing with the same loads; the same checkpoint: 0 (Jaccard 1)",
        f"{'layer':>5}  {'experts differ':<29}{'first expert differs':<29}{'mean Jaccard':<29}"
        "near ties among the changes (~ among all tokens)",
        *(_row(str(layer.layer), layer) for layer in result.layers),
        _row("all", result.overall),
        f"  any  {_value(result.any_layer)}",
    ]
    statistics = (result.overall.differs, result.any_layer, result.overall.near_ties)
    notes = [statistic.caveat for statistic in statistics if statistic.caveat]
    lines += [
        f"note: {note}" for note in dict.fromkeys([*notes, result.near_ties, *result.caveats])
    ]
    return ("\n".join([*lines, *_prompt(result)]) + "\n").encode()


def _named(info: ModelInfo) -> str:
    kept = f"{info.router_bits}-bit routers" if info.router_bits else "routers of unknown precision"
    return f"{info.name} ({info.quantization or 'not quantised'}, {kept})"


def _row(name: str, layer: LayerFidelity) -> str:
    cells = (layer.differs, layer.top_differs, layer.jaccard, layer.near_ties)
    return f"{name:>5}  " + "".join(f"{_value(cell):<29}" for cell in cells).rstrip()


def _value(found: Statistic) -> str:
    """`0.123 [0.101, 0.145] ~0.98`: value, interval, chance level; what is unknown is left out."""
    if found.value is None:
        return "–"
    parts = [f"{found.value:.3f}"]
    if found.ci_low is not None and found.ci_high is not None:
        parts.append(f"[{found.ci_low:.3f}, {found.ci_high:.3f}]")
    if found.null_mean is not None:
        parts.append(f"~{found.null_mean:.2f}")
    return " ".join(parts)


def _prompt(result: Fidelity) -> list[str]:
    prompt, layers = result.prompt, result.model.moe_layers
    lines = [f"prompt: {prompt.hits} of {prompt.n} choices differ ({prompt.caveat})"]
    for row, (token, differs) in enumerate(zip(prompt.tokens, prompt.differs, strict=True)):
        where = [str(layer) for layer, changed in zip(layers, differs, strict=True) if changed]
        lines.append(
            f"{row} {token!r}  {'layers ' + ', '.join(where) if where else 'same experts'}"
        )
    return lines
