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
    if not name:
        raise ModelError("the model's name is empty", "give demo, a model folder, or org/name")
    if (path := _existing(name)) is not None:
        return _folder(path)
    if name.startswith((".", "/", "~")) or not is_repository(name):
        raise _unknown(name, NAMES)
    return _from_hub(name, download=download)


def is_repository(name: str) -> bool:
    """Whether `name` is written as a name in the Hugging Face Hub: org/name."""
    return _REPOSITORY.fullmatch(name) is not None


def _existing(name: str) -> Path | None:
    """The path that `name` is, None when there is nothing."""
    try:
        path = Path(name).expanduser()
        path.stat()
    except FileNotFoundError:
        return None
    except (NotADirectoryError, RuntimeError, ValueError):  # below a file; no such user; a NUL
        return None
    except OSError as error:  # forbidden, too long, a loop of links
        raise ModelError(f"cannot open {name!r}: {error.strerror}", "check the path") from error
    return path


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ModelError(
            f"{path} is a file, not a model folder",
            "give the folder that holds config.json and the .safetensors files",
        )
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise ModelError(f"cannot open {path}: {error.strerror}", "check its rights") from error
    if "config.json" not in names:
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

    fetch = f"fetch it with `hf download {name}` or `moetui --download {name}`"
    try:
        found = snapshot_download(name, local_files_only=not download, allow_patterns=_FILES)
    except HFValidationError as error:
        raise ModelError(f"{name!r} is no Hugging Face id", "write it as org/name") from error
    except LocalEntryNotFoundError as error:
        # Newer versions tell where a snapshot lies of which some files are missing. Another
        # program may have left out only what is not needed: the checks of `load` will tell.
        found = getattr(error, "snapshot_path", "")
        if not found and download:
            raise ModelError(
                f"{name} could not be downloaded: the Hugging Face Hub does not answer",
                "check the network and try again; finished files are kept",
            ) from error
        if not found:
            raise ModelError(
                f"{name} is neither a folder here nor in the local Hugging Face cache", fetch
            ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"{name} could not be downloaded: {_first_line(error)}",
            "check the name, and `hf auth login` for gated models",
        ) from error
    except (OSError, ValueError) as error:  # a cache that is damaged or may not be read
        raise ModelError(
            f"{name} cannot be read from the Hugging Face cache: {_first_line(error)}", fetch
        ) from error
    if not (Path(found) / "config.json").exists():
        raise ModelError(f"{name} is not complete in the local Hugging Face cache", fetch)
    return Path(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
