"""From what a user types to a folder that holds a checkpoint. Imports neither mlx nor network."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path

from moetui.errors import ModelError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# What a checkpoint consists of. Python files are never fetched: nothing of a checkpoint is run.
_FILES = [
    "*.json",
    "*.safetensors",
    "tokenizer.model",
    "*.tiktoken",
    "*.txt",
    "*.jinja",
]


def locate(model: str | os.PathLike[str], *, download: bool = False) -> Path:
    """The folder of `model`: "demo", "demo-dense", a folder, or org/name in the local cache.

    With `download`, a Hugging Face id that is not in the cache is fetched, with a progress bar on
    standard error. Raises ModelError when there is no such model.
    """
    from moetui.demo import NAMES, checkpoint

    name = os.fspath(model)
    if name in NAMES:
        return checkpoint(name)
    path = Path(name).expanduser()
    if path.exists():
        return _folder(path)
    if name.startswith((".", "/", "~")) or not _REPOSITORY.fullmatch(name):
        raise _unknown(name, NAMES)
    return _from_hub(name, download=download)


def _folder(path: Path) -> Path:
    if path.is_file():
        raise ModelError(
            f"{path} is a file, not a model folder",
            "give the folder that holds config.json and the .safetensors files",
        )
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json", "give a model folder in Hugging Face format")
    return path


def _unknown(name: str, names: tuple[str, ...]) -> ModelError:
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "give demo, a model folder, or org/name"
    return ModelError(f"no such model: {name!r} is neither a folder nor org/name", hint)


def _from_hub(name: str, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=_FILES))
    except HFValidationError as error:
        raise ModelError(f"{name!r} is no Hugging Face id", "write it as org/name") from error
    except LocalEntryNotFoundError as error:
        if download:
            raise ModelError(
                f"{name} could not be downloaded: the Hugging Face Hub does not answer",
                "check the network and try again; finished files are kept",
            ) from error
        raise ModelError(
            f"{name} is neither a folder here nor in the local Hugging Face cache",
            f"fetch it with `hf download {name}` or `moetui --download {name}`",
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"{name} could not be downloaded: {_first_line(error)}",
            "check the name, and `hf auth login` for gated models",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
