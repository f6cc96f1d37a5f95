"""Loading: name → checkpoint → a model that has proved on itself what can be read from it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moetui.errors import ModelError
from moetui.model.blas import import_mlx
from moetui.model.checkpoint import Checkpoint, check
from moetui.model.files import first_line
from moetui.model.locate import locate

if TYPE_CHECKING:
    from moetui.model.model import Model
    from moetui.model.reinitialise import Initialisation

# Called with one short sentence at every step; may raise to stop the load.
Progress = Callable[[str], None]


def load(
    model: str | os.PathLike[str],
    *,
    download: bool = False,
    progress: Progress = lambda step: None,
    initialisation: Initialisation | None = None,
) -> Model:
    """Load `model`: "demo", "demo-dense", a folder, or a Hugging Face id from the local cache.

    Only with `download` is the network used. On a CPU backend the weights become float32: the
    expert matmuls of mlx know no other type there, and half precision is slower. Nothing of a
    checkpoint is executed. With `initialisation` the weights are drawn and none is read, see
    `moetui.model.reinitialise.load_random`.

    Raises ModelError (message, hint) for anything that cannot be loaded, before any weight is
    read wherever it can be told by then.
    """
    name = os.fspath(model)
    shape = initialisation.shape(name) if initialisation else None
    folder = locate(model, download=download)
    progress("importing mlx")
    # transformers would otherwise advise on standard error to install torch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    checkpoint = check(folder)
    require_memory(checkpoint, name)
    import_mlx()
    from moetui.model.architecture import embedding_rows
    from moetui.model.draw import Drawing
    from moetui.model.tokenizer import check_vocabulary, read_tokenizer
    from moetui.model.weights import build, read_weights

    drawing = Drawing(initialisation.seed, shape, progress) if initialisation else None
    with warnings.catch_warnings():
        # What transformers would change in a checkpoint's configuration is no news to its user,
        # and standard error is where the explorer draws.
        warnings.simplefilter("ignore")
        progress("building the network")
        network, config, stored = build(checkpoint, float32=_on_cpu(), drawing=drawing)
        progress("reading the tokenizer")
        tokenizer = read_tokenizer(folder, config)
    check_vocabulary(tokenizer, embedding_rows(network), folder)
    read_weights(network, folder, progress)
    progress("testing what can be read")
    return _tested(name, checkpoint, network, tokenizer, config, stored, initialisation)


def require_memory(checkpoint: Checkpoint, name: str, *, freed: int = 0) -> None:
    """ModelError when `checkpoint`, called `name`, does not fit into the memory that is free.

    freed: bytes that will be given back before it is loaded.
    """
    import gc

    import mlx.core as mx

    from moetui.model.budget import LEAST_CONTEXT, available_memory, need, on_device, require

    def left() -> int | None:
        free = on_device(mx.device_info(), available_memory(), mx.get_active_memory())
        return None if free is None else free + freed

    required = need(checkpoint.config, checkpoint.tensors, cpu=_on_cpu(), context=LEAST_CONTEXT)
    available = left()
    if available is not None and available < required.total:
        # A model that failed in its first pass is part of cycles: it waits for the collector.
        gc.collect()
        mx.clear_cache()
        available = left()
    require(required, available, name, packed=checkpoint.packed)


def _tested(
    name: str,
    checkpoint: Checkpoint,
    network: Any,
    tokenizer: Any,
    config: dict[str, Any],
    stored: str,
    initialisation: Initialisation | None,
) -> Model:
    """The model, after its first forward pass has shown that it runs."""
    from moetui.model.model import Model

    try:
        return Model(name, checkpoint.folder, network, tokenizer, config, stored, initialisation)
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}", error.hint) from error
    except Exception as error:  # an architecture's code, given what does not fit, raises anything
        raise ModelError(
            f"{name} is loaded but does not run: {first_line(error)}",
            "config.json may be of another model; copy or download the checkpoint again",
        ) from error


def _on_cpu() -> bool:
    import mlx.core as mx

    return bool(mx.default_device() == mx.Device(mx.cpu))
