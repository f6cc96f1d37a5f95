"""`moetui trace`: one prompt, everything that was read of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moetui.trace import ModelInfo, Trace


@click.command()
@click.option("-m", "--model", default="demo", show_default=True, help="demo, a folder, org/name.")
@click.option("-p", "--prompt", required=True, help="The text to trace.")
@click.option(
    "--max-tokens",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Tokens to generate after the prompt.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="Whole trace as JSON, or a readable summary.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here; NAME.moetrace writes the binary form that Python opens.",
)
@click.option(
    "--fidelity",
    "reference",
    metavar="REF",
    help="Instead of the trace, compare MODEL's experts with those of REF, the same model in "
    "higher precision.",
)
@click.option("--download", is_flag=True, help="Fetch the model from the Hugging Face Hub first.")
def trace(
    model: str,
    prompt: str,
    max_tokens: int,
    form: str,
    output: Path | None,
    reference: str | None,
    download: bool,
) -> None:
    """Trace one prompt: what every layer's router saw, chose and why, and what the lens reads.

    The JSON goes to standard output, or to the file named with -o; both have the same bytes.

    With --fidelity the result is a comparison of two checkpoints: the share of tokens whose
    experts differ, by layer, with intervals over 100 documents of the bundled corpus (64 tokens
    each), and where the prompt's own experts differ. Both run one after the other.
    """
    from moetui.model import load
    from moetui.trace import join, to_json, trace_document
    from moetui.trace.file import SUFFIX

    if reference is not None:
        from moetui.cli.trace_fidelity import compare, refuse, summary

        refuse(max_tokens, output)
        found = compare(model, reference, prompt, download=download)
        _deliver(summary(found) if form == "text" else to_json(found), output)
        return
    loaded = load(model, download=download)
    generation = loaded.generate(prompt, max_tokens)
    result = join([generation.prompt, *generation])
    if output is not None and output.suffix == SUFFIX:
        result.save(output)
        return
    _deliver(_summary(result) if form == "text" else to_json(trace_document(result)), output)


def _deliver(data: bytes, output: Path | None) -> None:
    """To the file, whole or not at all, or else to standard output."""
    from moetui.trace.file import write_atomically

    if output is not None:
        write_atomically(output, data)
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _summary(result: Trace) -> bytes:
    """Plain text: for every token the experts of the routing layers with their weights, and what
    the lens reads there; of a model without routing, what it reads at every layer. What the
    self-test found unreadable is said first."""
    info = result.model
    lines = [f"{info.name}: {info.architecture}, {info.num_layers} layers, {_experts(info)}"]
    lines += [f"note: {error}" for error in (info.decomposition_error, info.lens_error) if error]
    layers = result.layers if info.is_moe else result.lens_layers
    for row, token in enumerate(result.tokens):
        origin = "prompt" if row < result.prompt_tokens else "generated"
        lines.append(f"{row} {origin} {token!r}")
        for column, layer in enumerate(layers):
            chosen = _chosen(result, row, column) if info.is_moe else ""
            if said := (chosen + _answer(result, row, int(layer))).rstrip():
                lines.append(f"  layer {layer:>2}  {said}")
    return ("\n".join(lines) + "\n").encode()


def _experts(info: ModelInfo) -> str:
    """What there is of experts, or why there is nothing."""
    if info.routing_error is not None:
        return info.routing_error
    if not info.is_moe:
        return "dense (no routers)"
    return f"{info.num_experts} experts, top-{info.top_k}"


def _chosen(result: Trace, row: int, column: int) -> str:
    pairs = zip(result.expert_ids[row, column], result.expert_weights[row, column], strict=True)
    return "  ".join(f"{expert}:{weight:.3f}" for expert, weight in pairs if expert >= 0) + "   "


def _answer(result: Trace, row: int, layer: int) -> str:
    """What the lens reads at one row and layer."""
    index = result.lens.at(row) if result.lens is not None else None
    if index is None or result.lens is None:
        return ""
    token = int(result.lens.token_ids[index, layer, 0])
    return f"lens {result.lens.text[token]!r}"
