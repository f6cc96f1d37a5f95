"""Where models lie on this machine: bundled, in the Hugging Face cache, in the user's folders.

Imports no mlx and asks no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moetui.model.locate import is_repository

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

Source = Literal["bundled", "cache", "folder"]


@dataclass(frozen=True)
class Candidate:
    """A folder that may hold a checkpoint.

    name: what to give to moetui to open it. problem: why it cannot be one, in one sentence, where
    that is known without looking into it.
    """

    name: str
    folder: Path
    source: Source
    problem: str | None = None


def candidates(folders: Iterable[Path]) -> Iterator[Candidate]:
    """Every model there may be, each once: the bundled ones, then the cache and `folders` by name.

    folders: searched one and two levels deep. What cannot be read is passed over.
    """
    seen: set[Path] = set()
    for source in (_bundled(), _cached(), *(_in_folder(folder) for folder in folders)):
        for candidate in source:
            place = candidate.folder.resolve()
            if place not in seen:
                seen.add(place)
                yield candidate


def hub_cache() -> Path:
    """The Hugging Face cache, as HF_HOME and HF_HUB_CACHE have it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def scan_hub_cache() -> HFCacheInfo | None:
    """What the Hugging Face cache holds; None where there is no such folder."""
    from huggingface_hub import scan_cache_dir

    cache = hub_cache()
    return scan_cache_dir(cache) if cache.is_dir() else None


def _bundled() -> Iterator[Candidate]:
    from moetui.demo import NAMES, checkpoint

    for name in NAMES:
        yield Candidate(name, checkpoint(name), "bundled")


def _cached() -> Iterator[Candidate]:
    try:
        cache = scan_hub_cache()
    except OSError:
        return
    if cache is None:
        return
    whole = {repo.repo_path.name: repo for repo in cache.repos if repo.repo_type == "model"}
    for path in _by_name(hub_cache().glob("models--*")):
        repo = whole.get(path.name)
        yield _of_repo(repo) if repo is not None else _of_damaged_repo(path)


def _of_repo(repo: CachedRepoInfo) -> Candidate:
    """The revision that opens under the repository's name, else the newest by its own path."""
    if "main" in repo.refs and is_repository(repo.repo_id):
        return Candidate(repo.repo_id, repo.refs["main"].snapshot_path, "cache")
    if not repo.revisions:
        problem = "nothing of it has been downloaded"
        return Candidate(repo.repo_id, repo.repo_path, "cache", problem)
    newest = max(repo.revisions, key=lambda revision: revision.last_modified)
    return Candidate(str(newest.snapshot_path), newest.snapshot_path, "cache")


def _of_damaged_repo(path: Path) -> Candidate:
    """A repository with a broken revision: that which opens under its name may be whole yet."""
    name = path.name.removeprefix("models--").replace("--", "/")
    try:
        snapshot = path / "snapshots" / (path / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        snapshot = path / "snapshots"
    if snapshot.is_dir() and snapshot.name != "snapshots":
        return Candidate(name, snapshot, "cache")
    return Candidate(name, path, "cache", "its download was never finished")


def _in_folder(folder: Path) -> Iterator[Candidate]:
    for path in _subfolders(folder):
        inner = [path] if _may_be_model(path) else filter(_may_be_model, _subfolders(path))
        for model in inner:
            yield Candidate(_typed(model), model, "folder")


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
    return _by_name(path for path in found if not path.name.startswith("."))


def _by_name(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.name.lower())


def _may_be_model(folder: Path) -> bool:
    """Whether somebody has put a checkpoint here, whole or not."""
    return (folder / "config.json").is_file() or any(folder.glob("model*.safetensors"))


def _typed(path: Path) -> str:
    """`path` as a user would type it."""
    home = Path.home()
    return f"~{os.sep}{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
