"""Whether mlx-lm knows an architecture, read from its files without importing it (or mlx)."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_MODEL = re.compile(r"^(?:class Model\(|from \S+ import .*\bModel\b)", re.MULTILINE)
_REMAPPING = re.compile(r"^MODEL_REMAPPING = (\{.*?^\})", re.MULTILINE | re.DOTALL)


@lru_cache(maxsize=512)
def is_supported(model_type: str) -> bool:
    """Whether mlx-lm has a file that builds `model_type`, under this name or the one that it maps
    it to. False when mlx-lm is not installed."""
    package = _package()
    if package is None:
        return False
    path = package / "models" / f"{_remapping().get(model_type, model_type)}.py"
    # Some files beside the models hold nothing but layers.
    return path.is_file() and _MODEL.search(path.read_text("utf-8")) is not None


def _package() -> Path | None:
    spec = find_spec("mlx_lm")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


@lru_cache(maxsize=1)
def _remapping() -> dict[str, str]:
    """mlx-lm's own table of names, as it stands in its source."""
    package = _package()
    found = _REMAPPING.search((package / "utils.py").read_text("utf-8")) if package else None
    mapping: dict[str, str] = ast.literal_eval(found[1]) if found else {}
    return mapping
