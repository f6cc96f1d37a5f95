"""The bundled demo checkpoints and the small held-out corpus that comes with them.

Two folders in genuine Hugging Face format are part of the package: ``demo``, a mixture-of-experts
model with the OLMoE architecture, and ``demo-dense``, a Llama sibling of about the same active
size.  ``MODEL_CARD.md`` in this folder says what they are, what they learned and what they did not.

Importing this module is cheap: nothing but the standard library is loaded.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["DOMAINS", "NAMES", "Document", "Split", "checkpoint", "corpus", "model_card"]

Split = Literal["calibration", "evaluation"]

_HERE: Final = Path(__file__).parent
_FOLDERS: Final = {"demo": "olmoe", "demo-dense": "llama"}

NAMES: Final = tuple(_FOLDERS)
"""The names under which the bundled checkpoints are opened."""

DOMAINS: Final = ("arithmetic", "code", "dictionary", "docs", "facts", "maths", "prose")
"""The seven domains of the bundled corpus, in the order of every table about the demo model."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its name and its kind; in the bundled corpus an excerpt of a document that the
    demo models never saw in training.

    There ``id`` names the whole document (``prose/emma/12``, ``code/asyncio/locks.py``, ...),
    ``domain`` is one of :data:`DOMAINS` and ``text`` is at most 512 demo tokens long.
    """

    id: str
    domain: str
    text: str


def checkpoint(name: str) -> Path:
    """Folder of the bundled checkpoint ``name``, one of :data:`NAMES`.

    Raises ``ValueError`` for any other name.
    """
    try:
        return _HERE / _FOLDERS[name]
    except KeyError:
        raise ValueError(f"no bundled model {name!r}; there are {', '.join(NAMES)}") from None


def model_card() -> Path:
    """The Markdown file with the figures, data sources and limits of both checkpoints."""
    return _HERE / "MODEL_CARD.md"


def corpus(split: Split) -> Iterator[Document]:
    """Documents of one bundled split, ordered by domain and then by id.

    The two splits share no document, and the demo models were trained on neither: fit on
    ``calibration``, score on ``evaluation``.  Raises ``ValueError`` for another split name.
    """
    if split not in ("calibration", "evaluation"):
        raise ValueError(f"no bundled split {split!r}; there are calibration and evaluation")
    return _documents(_HERE / "corpus" / f"{split}.jsonl.xz")


def _documents(path: Path) -> Iterator[Document]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield Document(id=record["id"], domain=record["domain"], text=record["text"])
