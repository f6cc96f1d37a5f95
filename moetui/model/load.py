"""Loading: name → checkpoint → a model that has proved on itself what can be read from it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moetui.errors import ModelError
from moetui.model.blas import load_fast_blas
from moetui.model.locate import locate

if TYPE_CHECKING:
    from moetui.model.model import Model

# Called with one short sentence at every step; may raise to stop the load.
Progress = Callable[[str], None]


def load(
    model: str | os.PathLike[str],
    *,
    download: bool = False,
    progress: Progress = lambda step: None,
) -> Model:
    """Load `model`: "demo", "demo-dense", a folder, or a Hugging Face id from the local cache.

    Only with `download` is the network used. On a CPU backend the weights become float32: the
    expert matmuls of mlx know no other type there, and half precision is slower. Nothing of a
    checkpoint is executed. Raises ModelError (message, hint) for anything that cannot be loaded.
    """
    name = os.fspath(model)
    folder = locate(model, download=download)
    progress("importing mlx")
    load_fast_blas()
    # transformers would otherwise advise on standard error to install torch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from moetui.model.checkpoint import check, in_mlx_names
    from moetui.model.model import Model

    renamed = in_mlx_names(check(folder))
    with warnings.catch_warnings():
        # What transformers would change in a checkpoint's configuration is no news to its user,
        # and standard error is where the explorer draws.
        warnings.simplefilter("ignore")
        progress("reading weights")
        network, config, stored = _read_weights(folder, renamed, progress)
        progress("reading the tokenizer")
        tokenizer = _read_tokenizer(folder)
    progress("testing what can be read")
    return Model(name, folder, network, tokenizer, config, stored)


def _read_weights(
    folder: Path, renamed: dict[str, Any], progress: Progress
) -> tuple[Any, dict[str, Any], str]:
    """The network, evaluated, its configuration as mlx-lm understood it, and the type in which
    the checkpoint stores its routers (a dense one: its first matrix)."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model, maybe_set_recommended_wired_limit

    from moetui.model.architecture import examine

    maybe_set_recommended_wired_limit()  # keeps large models in memory on Apple silicon
    try:
        network, config = load_model(folder, lazy=True, model_config=renamed)
        routers = [site.router["weight"] for site in examine(network).sites.values()]
        stored = [*routers, *(array for _, array in tree_flatten(network.parameters()))][0].dtype
        if mx.default_device() == mx.Device(mx.cpu):
            network.set_dtype(mx.float32)
        for number, layer in enumerate(network.layers, 1):  # in steps that a user can stop
            progress(f"reading weights, layer {number} of {len(network.layers)}")
            if layer is not None:
                mx.eval(layer.parameters())
        mx.eval(network.parameters())
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        # mlx-lm reports what does not fit in many ways; all of them mean this checkpoint.
        raise ModelError(
            f"{folder} cannot be loaded: {_sentence(error)}",
            "its weights do not fit its config.json; copy or download the checkpoint again",
        ) from error
    return network, config, str(stored).rpartition(".")[2]


def _read_tokenizer(folder: Path) -> Any:
    from mlx_lm.utils import load_tokenizer

    try:
        return load_tokenizer(folder)
    except Exception as error:  # the tokenizer's parser raises plain Exception
        raise ModelError(
            f"the tokenizer of {folder} cannot be read: {_sentence(error)}",
            "copy or download the checkpoint again",
        ) from error


def _sentence(error: BaseException) -> str:
    """The first line of an error, not endless."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__
