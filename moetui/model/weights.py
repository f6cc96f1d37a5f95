"""From a checked checkpoint to a network in memory: built lazily, compared, then read by layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, load_model, maybe_set_recommended_wired_limit

from moetui.errors import ModelError
from moetui.model.architecture import examine
from moetui.model.checkpoint import Checkpoint, in_mlx_names
from moetui.model.draw import Drawing
from moetui.model.files import AGAIN, first_line
from moetui.model.quiet import quiet

_UNFIT = "weights and config.json do not belong together; copy or download the checkpoint again"
# Norms square their input: beyond this, float32 overflows wherever the weight is used.
_MAX_WEIGHT = 1e18
_Named = list[tuple[str, mx.array]]


def build(
    checkpoint: Checkpoint, *, float32: bool, drawing: Drawing | None = None
) -> tuple[nn.Module, dict[str, Any], str]:
    """The network, of whose weights nothing is read yet, its configuration as mlx-lm understood
    it, and the type in which the checkpoint stores its routers (a dense one: its first matrix).

    Every parameter has the shape that the files hold. float32: let the weights become so.
    drawing: draws all weights, and those of the files are dropped unread. Raises ModelError where
    configuration, architecture and weights do not fit each other.
    """
    maybe_set_recommended_wired_limit()  # keeps large models in memory on Apple silicon
    folder = checkpoint.folder
    try:
        with quiet(), drawing.seeded() if drawing else nullcontext():
            network, config = load_model(
                folder,
                lazy=True,
                model_config=in_mlx_names(checkpoint.config),
                get_model_classes=drawing.classes if drawing else _get_classes,
            )
        routers = [site.router["weight"] for site in examine(network).sites.values()]
        stored = [*routers, *(array for _, array in tree_flatten(network.parameters()))][0].dtype
    except Exception as error:  # an architecture's code, given what does not fit, raises anything
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}", _UNFIT) from error
    _check_types(network, folder)
    if drawing is not None:
        drawing.fill(network, folder)
    if float32:
        network.set_dtype(mx.float32)
    return network, config, str(stored).rpartition(".")[2]


def read_weights(network: nn.Module, folder: Path, progress: Callable[[str], None]) -> None:
    """Read all weights, layer by layer, in steps that a user can stop.

    Raises ModelError naming the first tensor that holds NaN, infinite or absurdly large values.
    """
    left = {id(array): (name, array) for name, array in tree_flatten(network.parameters())}
    for number, layer in enumerate(network.layers, 1):
        progress(f"reading weights, layer {number} of {len(network.layers)}")
        if layer is not None:
            mine = [id(array) for _, array in tree_flatten(layer.parameters())]
            # Layers may share weights: what was read before is not read again.
            _read([left.pop(key) for key in mine if key in left], folder)
    _read(list(left.values()), folder)


def _read(arrays: _Named, folder: Path) -> None:
    real = [(name, a) for name, a in arrays if mx.issubdtype(a.dtype, mx.floating)]
    # One such weight shows in the sum of them all, which needs no second copy of the weights.
    sums = [array.sum().astype(mx.float32) for _, array in real]
    try:
        mx.eval([array for _, array in arrays], sums)
    except RuntimeError as error:
        raise ModelError(f"{folder} cannot be read: {first_line(error)}", AGAIN) from error
    for (name, array), total in zip(real, sums, strict=True):
        if not np.abs(np.array(total)) < _MAX_WEIGHT:
            _check_sizes(name, array, folder)


def _check_sizes(name: str, array: mx.array, folder: Path) -> None:
    """The exact check, for what a sum made suspicious: in 16 bits it may overflow by itself."""
    sound = mx.abs(array.astype(mx.float32)) < _MAX_WEIGHT
    wrong = array.size - int(np.array(sound.sum()))
    if wrong:
        raise ModelError(
            f"{folder} is damaged: {name} holds {wrong:,} values that are NaN, infinite or beyond "
            f"{_MAX_WEIGHT:.0e} (of {array.size:,})",
            AGAIN,
        )


def _check_types(network: nn.Module, folder: Path) -> None:
    """Integers are weights only where scales say what they stand for."""
    for path, module in network.named_modules():
        if _has_scales(module):
            continue
        for name in ("weight", "bias"):
            array = module.get(name)
            if isinstance(array, mx.array) and not mx.issubdtype(array.dtype, mx.floating):
                kind = str(array.dtype).rpartition(".")[2]
                raise ModelError(
                    f"{folder} stores {path}.{name} as {kind}, which is no type of weights",
                    "convert the weights to BF16, F16 or F32, or use another checkpoint",
                )


def _has_scales(module: nn.Module) -> bool:
    names: Sequence[str] = list(module)
    return any("scale" in name for name in names)
