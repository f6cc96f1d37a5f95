"""Which model a name stands for and what it will be computed in, told before any weight is read."""

from __future__ import annotations

import os

from moetui.model.blas import import_mlx
from moetui.model.checkpoint import Checkpoint, look_at
from moetui.model.digest import digest
from moetui.model.locate import locate


def identity(model: str | os.PathLike[str]) -> str:
    """What numbers of `model` depend on besides versions of software, on one line.

    Digest of the checkpoint and the type that its weights are computed in, as `moetui.load` says
    them in `info`, then backend and processor. Costs one pass over 64 MiB of every weight file;
    off a CPU the network is built as well, as nothing else tells its type. Raises ModelError as
    `moetui.load` does for what is no checkpoint or has damaged settings or headers.
    """
    folder = locate(model)
    checkpoint = look_at(folder)
    import_mlx()
    import mlx.core as mx

    from moetui.model.backend import backend

    where = backend()
    dtype = "float32" if where == "cpu" else computed_dtype(checkpoint, float32=False)
    processor = mx.device_info()["device_name"]
    return f"{digest(folder)} {dtype} {where} {processor}"


def computed_dtype(checkpoint: Checkpoint, *, float32: bool) -> str:
    """The type of the residual stream of a model, from its graph alone: nothing is evaluated.

    float32: as in `moetui.model.weights.build`, whose errors it raises.
    """
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    from moetui.model.architecture import examine
    from moetui.model.capture import Capture
    from moetui.model.edits import NONE
    from moetui.model.records import PassRecord, Want
    from moetui.model.weights import build

    network, _, _ = build(checkpoint, float32=float32)
    records: list[PassRecord] = []
    with Capture(network, examine(network)).on(Want(), records.append, NONE):
        network(mx.array([[0]]), cache=make_prompt_cache(network))
    stream = records[0].layers[-1].leaving
    assert stream is not None
    return str(stream.dtype).rpartition(".")[2]
