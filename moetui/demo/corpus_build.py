"""Collects all documents, sets the held-out ones aside and writes the bundled corpus.

``python -m moetui.demo.corpus_build --sources DIR`` rewrites ``heldout.json``, the tokenizer and
the two bundled splits.  The committed ``heldout.json`` is what training obeys.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from moetui.demo import DOMAINS, NAMES, Document, Split, arithmetic, checkpoint, facts, sources
from moetui.demo import tokenizer as demo_tokenizer
from moetui.demo.wordnet import relations

CORPUS_SEED: Final = 0
HELD_OUT_PER_DOMAIN: Final = 90
ARITHMETIC_SHEETS: Final = 13_000
FACT_SHEETS: Final = 4_000
EXCERPT_TOKENS: Final = (512, 192, 192, 192)
"""Lengths of the bundled excerpts in demo tokens, taken in turn.

Every fourth one fills the model's context; shorter ones keep the number of documents, which is
what intervals depend on, high for the tokens that have to be run.
"""

_HERE: Final = Path(__file__).parent
HELD_OUT_FILE: Final = _HERE / "heldout.json"
SPLITS: Final[tuple[Split, Split]] = ("calibration", "evaluation")


def documents(folder: Path) -> dict[str, list[Document]]:
    """All documents by domain, held-out ones included, from the sources in ``folder``."""
    entries = sources.synsets(folder)
    known = relations(entries)
    found = {
        "arithmetic": (arithmetic.sheet(CORPUS_SEED, n) for n in range(ARITHMETIC_SHEETS)),
        "code": sources.standard_library(),
        "dictionary": sources.dictionary(entries),
        "docs": sources.python_documentation(folder),
        "facts": (facts.sheet(CORPUS_SEED, n, known) for n in range(FACT_SHEETS)),
        "maths": sources.mathematics(),
        "prose": sources.novels(folder),
    }
    return {domain: list(found[domain]) for domain in DOMAINS}


def choose_held_out(ids: Iterable[str]) -> list[str]:
    """The :data:`HELD_OUT_PER_DOMAIN` ids with the lowest hash, lowest first.

    A hash depends on the id alone, so a document that a source gains or loses moves no other one
    across the line, except where the list has to be filled up.
    """
    return sorted(ids, key=_rank)[:HELD_OUT_PER_DOMAIN]


def _rank(document_id: str) -> str:
    return hashlib.sha256(document_id.encode()).hexdigest()


def held_out() -> dict[Split, dict[str, list[str]]]:
    """The committed held-out ids: split, then domain."""
    listed: dict[Split, dict[str, list[str]]] = json.loads(HELD_OUT_FILE.read_text("utf-8"))
    return listed


def held_out_ids() -> frozenset[str]:
    """All committed held-out ids."""
    return frozenset(i for split in held_out().values() for ids in split.values() for i in ids)


def training_texts(found: Mapping[str, Sequence[Document]]) -> dict[str, list[str]]:
    """Texts by domain of the documents that are not held out."""
    withheld = held_out_ids()
    return {domain: [d.text for d in found[domain] if d.id not in withheld] for domain in DOMAINS}


def tokenizer_sample(texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Training texts from which merges are learned, with a limit on each domain's characters."""
    for domain in DOMAINS:
        # Generated sheets repeat a small vocabulary, which would eat the merges of all other text
        limit = 300_000 if domain in ("arithmetic", "facts") else 1_500_000
        shuffled = random.Random(f"tokenizer {domain}").sample(texts[domain], len(texts[domain]))
        for text in shuffled:
            if limit <= 0:
                break
            limit -= len(text)
            yield text


def excerpt(document: Document, tokenizer: Tokenizer, tokens: int) -> Document:
    """A run of whole lines of the document of at most ``tokens`` tokens, from a seeded place."""
    lines = document.text.splitlines(keepends=True)
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(lines)]
    starts = [i for i in range(len(lines)) if lines[i].strip() and sum(counts[i:]) >= tokens]
    first = random.Random(f"excerpt {document.id}").choice(starts or [0])
    text, room = "", tokens
    for line, count in zip(lines[first:], counts[first:], strict=True):
        if count > room and text:
            break
        text, room = text + line, room - count
    # Lines tokenise apart at their ends, yet one very long line may still be above the limit
    while len(tokenizer.encode(text).ids) > tokens:
        text = text[:-1]
    return Document(document.id, document.domain, text)


def write_corpus(found: Mapping[str, Sequence[Document]], tokenizer: Tokenizer) -> None:
    """Write the two bundled splits as xz-compressed JSON lines."""
    by_id = {document.id: document for domain in DOMAINS for document in found[domain]}
    for split, domains in held_out().items():
        path = _HERE / "corpus" / f"{split}.jsonl.xz"
        path.parent.mkdir(exist_ok=True)
        with lzma.open(path, "wt", encoding="utf-8", preset=9) as output:
            for domain in DOMAINS:
                for number, document_id in enumerate(sorted(domains[domain])):
                    length = EXCERPT_TOKENS[number % len(EXCERPT_TOKENS)]
                    part = excerpt(by_id[document_id], tokenizer, length)
                    record = {"id": part.id, "domain": part.domain, "text": part.text}
                    output.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_held_out(found: Mapping[str, Sequence[Document]]) -> None:
    """Choose the held-out documents and list them, alternately in one split and the other."""
    chosen = {domain: choose_held_out(d.id for d in found[domain]) for domain in DOMAINS}
    listed = {
        split: {domain: sorted(ids[offset::2]) for domain, ids in chosen.items()}
        for offset, split in enumerate(SPLITS)
    }
    HELD_OUT_FILE.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line: rewrite the held-out list, the tokenizer and the bundled splits."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--sources", type=Path, default=Path("demo-sources"), help="unpacked Debian packages"
    )
    arguments = parser.parse_args()
    sources.fetch(arguments.sources)
    found = documents(arguments.sources)
    write_held_out(found)
    tokenizer = demo_tokenizer.train(tokenizer_sample(training_texts(found)))
    for name in NAMES:
        demo_tokenizer.save(tokenizer, checkpoint(name))
    write_corpus(found, tokenizer)


if __name__ == "__main__":
    main()
