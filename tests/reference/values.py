"""The committed reference: checkpoints, prompts, and what transformers computes for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "data"
DEMO = Path(__file__).parents[2] / "moetui" / "demo" / "olmoe"

Array = NDArray[Any]

# Two programs that round differently agree to about 1e-5. Where the decisions of a router are
# further apart than this, both must name the same experts in the same order.
CLEAR = 1e-3


def margin(arrays: dict[str, Array]) -> Array:
    """[T, L]: the smallest distance between neighbours among the k + 1 best of a row.

    Of the logits; of the scores, relative to the best of the row, where these rank otherwise.
    """
    k = arrays["expert_ids"].shape[-1]
    ranked = arrays.get("selection_scores", arrays["router_logits"])
    best = -np.sort(-ranked, axis=-1)[..., : k + 1]
    gaps: Array = (-np.diff(best, axis=-1)).min(-1)
    return gaps / best[..., 0] if "selection_scores" in arrays else gaps


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt's reference arrays; `README.md` in this folder names them."""

    arrays: dict[str, Array]

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self["token_ids"])

    @property
    def ids(self) -> list[int]:
        """All rows as plain token ids."""
        return [int(token) for token in self["token_ids"]]

    @property
    def generated(self) -> int:
        """How many of the last rows were generated greedily from those before them."""
        return int(self["generated"])

    @property
    def clear_cut(self) -> Array:
        """bool [T, L]: where the choice of experts and their order leave no doubt."""
        clear: Array = margin(self.arrays) > CLEAR
        return clear


@dataclass(frozen=True, eq=False)
class Reference:
    """One checkpoint with its prompts; `texts` where they were tokenized, not drawn as ids."""

    name: str
    folder: Path
    prompts: list[Prompt]
    weights_sha256: str
    texts: list[str]

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes."""
        return bool(len(self.prompts[0]["layers"]))

    def belongs_to_weights(self) -> bool:
        """Whether the weight files are those that the values were computed from."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.glob("*.safetensors")):
            digest.update(file.read_bytes())
        return digest.hexdigest() == self.weights_sha256


def names() -> list[str]:
    """Every checkpoint that has a committed reference."""
    return sorted(path.stem for path in DATA.glob("*.npz"))


def reference(name: str) -> Reference:
    """The reference of one family, or of the bundled `demo` model."""
    prompts: dict[int, dict[str, Array]] = {}
    with np.load(DATA / f"{name}.npz") as flat:
        for key in flat:
            number, dot, field = key.partition(".")
            if dot:
                prompts.setdefault(int(number), {})[field] = flat[key]
        digest = str(flat["weights_sha256"])
        texts = [str(text) for text in flat["texts"]] if "texts" in flat else []
    folder = DEMO if name == "demo" else DATA / name
    return Reference(name, folder, [Prompt(prompts[n]) for n in sorted(prompts)], digest, texts)
