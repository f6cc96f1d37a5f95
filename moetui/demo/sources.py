"""Reads the freely licensed texts that the demo models were trained on.

A document is the unit that a reader would call one piece: a chapter of a novel, a module of the
standard library, a page of the Python documentation, a page of a dictionary.  Documents are never
cut between training and held-out text; ``NOTICES.md`` holds the licences.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
import struct
import subprocess
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from moetui.demo import Document
from moetui.demo.wordnet import Synset, familiar, read_synsets

PACKAGES: Final = ("python3.11-doc", "r-cran-janeaustenr", "wordnet-base")
"""Debian packages that hold the documentation, the novels and the dictionary."""

MATHS_MODULES: Final = ("mpmath", "numpy", "scipy", "sklearn", "sympy")
"""Installed packages whose docstrings with formulas make up the domain ``maths``."""

ENTRIES_PER_PAGE: Final = 25
_SHORTEST: Final = 400  # characters: anything shorter is a stub, not a document
_NOVELS: Final = {
    "EMMA": "emma",
    "MANSFIELD PARK": "mansfield-park",
    "NORTHANGER ABBEY": "northanger-abbey",
    "PERSUASION": "persuasion",
    "PRIDE AND PREJUDICE": "pride-and-prejudice",
    "SENSE AND SENSIBILITY": "sense-and-sensibility",
}
_CHAPTER: Final = re.compile(r"(?i)^chapter ([ivxl]+|\d+)\.?$")
_VOLUME: Final = re.compile(r"^VOLUME [IVX]+\.?$")
_NOT_OUR_CODE: Final = re.compile(
    r"(^|/)(site-packages|test|tests|idlelib|encodings|lib2to3|turtledemo|__pycache__"
    r"|pydoc_data|config-[^/]*)(/|$)"
)
_NOT_OUR_DOCS: Final = re.compile(r"^(whatsnew|c-api|distutils)/|changelog")
_DOCSTRING: Final = re.compile(r'[rR]?"""(.*?)"""', flags=re.DOTALL)
_FORMULA: Final = re.compile(r"math::|\$|:math:|\\frac")


class SourcesMissingError(Exception):
    """A source text is neither there nor obtainable; the message says what to fetch."""


def fetch(folder: Path) -> None:
    """Download and unpack :data:`PACKAGES` into ``folder``, skipping those already there.

    Needs a Debian system; raises :class:`SourcesMissingError` with one line of advice elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if (folder / package).is_dir():
            continue
        try:
            subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
            archive = next(folder.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg-deb", "-x", archive, folder / package], check=True)
        except (OSError, subprocess.CalledProcessError, StopIteration):
            raise SourcesMissingError(
                f"unpack the Debian packages {', '.join(PACKAGES)} into {folder}/<package>/ "
                f"(dpkg-deb -x) and pass --sources {folder}"
            ) from None


def tidy(text: str) -> str:
    """The text with plain line ends, no runs of blank lines and one newline at its end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def novels(folder: Path) -> Iterator[Document]:
    """Chapters of Jane Austen's six novels."""
    database = folder / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    if not database.is_file():
        raise SourcesMissingError(f"{database} is missing: unpack r-cran-janeaustenr there")
    for lines in _r_character_vectors(database.read_bytes()):
        title = _NOVELS[lines[0].upper()]
        for number, chapter in enumerate(_chapters(lines), start=1):
            yield Document(f"prose/{title}/{number}", "prose", chapter)


def _r_character_vectors(database: bytes) -> Iterator[list[str]]:
    """The character vectors of an R lazy-load database: zlib blobs, each after its length."""
    position = 0
    while position < len(database):
        stream = zlib.decompressobj()
        blob = stream.decompress(database[position + 4 :])
        position = len(database) - len(stream.unused_data)
        yield _r_strings(blob)


def _r_strings(blob: bytes) -> list[str]:
    """The strings of one serialised character vector, found by R's element header."""
    strings = []
    for header in re.finditer(rb"\x00\x04\x00\x09(....)", blob, flags=re.DOTALL):
        (length,) = struct.unpack(">i", header.group(1))
        strings.append(blob[header.end() : header.end() + max(length, 0)].decode("utf-8"))
    return strings


def _chapters(lines: list[str]) -> Iterator[str]:
    """The chapters between the headings; whatever stands before the first one is dropped."""
    chapter: list[str] | None = None
    for line in lines:
        if _CHAPTER.match(line.strip()):
            if chapter is not None:
                yield tidy("\n".join(chapter))
            chapter = []
        elif chapter is not None and not _VOLUME.match(line.strip()):
            chapter.append(line)
    if chapter is not None:
        yield tidy("\n".join(chapter))


def standard_library() -> Iterator[Document]:
    """Modules of the running Python's standard library, without tests and generated tables."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if _NOT_OUR_CODE.search(name):
            continue
        text = tidy(path.read_text(encoding="utf-8", errors="ignore"))
        if len(text) > _SHORTEST:
            yield Document(f"code/{name}", "code", text)


def python_documentation(folder: Path) -> Iterator[Document]:
    """Pages of the Python documentation as reStructuredText."""
    root = folder / "python3.11-doc/usr/share/doc/python3.11/html/_sources"
    pages = sorted([*root.rglob("*.rst.txt"), *root.rglob("*.rst.txt.gz")])
    if not pages:
        raise SourcesMissingError(f"{root} holds no pages: unpack python3.11-doc there")
    for path in pages:
        name = path.relative_to(root).as_posix().removesuffix(".gz").removesuffix(".rst.txt")
        if _NOT_OUR_DOCS.search(name):
            continue
        raw = path.read_bytes()
        text = tidy((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8"))
        if len(text) > _SHORTEST:
            yield Document(f"docs/{name}", "docs", text)


def synsets(folder: Path) -> list[Synset]:
    """All entries of WordNet 3.0, in file order."""
    root = folder / "wordnet-base/usr/share/wordnet"
    if not (root / "data.noun").is_file():
        raise SourcesMissingError(f"{root} holds no dictionary: unpack wordnet-base there")
    return read_synsets(root)


def dictionary(entries: list[Synset]) -> Iterator[Document]:
    """Pages of a dictionary in alphabetical order, one line for each meaning of a known word."""
    lines = sorted(
        {f"{entry.words[0]}: {entry.gloss}" for entry in entries if familiar(entry, at_least=1)},
        key=lambda line: (line.lower(), line),
    )
    for start in range(0, len(lines) - ENTRIES_PER_PAGE + 1, ENTRIES_PER_PAGE):
        page = start // ENTRIES_PER_PAGE + 1
        text = "\n".join(lines[start : start + ENTRIES_PER_PAGE]) + "\n"
        yield Document(f"dictionary/{page}", "dictionary", text)


def mathematics() -> Iterator[Document]:
    """The docstrings with formulas of one module after the other of :data:`MATHS_MODULES`."""
    seen: set[str] = set()
    for package in MATHS_MODULES:
        specification = importlib.util.find_spec(package)
        if specification is None or specification.origin is None:
            raise SourcesMissingError(
                f"install {package}: its docstrings are part of the training text"
            )
        root = Path(specification.origin).parent
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root.parent).as_posix()
            if "/tests/" in name:
                continue
            # Classes repeat the docstrings of their bases: keep each one once, where it comes first
            pages = [text for text in _formula_docstrings(path) if text not in seen]
            seen.update(pages)
            if pages:
                yield Document(f"maths/{name}", "maths", "\n".join(pages))


def _formula_docstrings(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8", errors="ignore")
    for match in _DOCSTRING.finditer(source):
        text = match.group(1)
        marked_up = text.count("\\") > 5 or text.count("`") > 12
        if len(text) > _SHORTEST and marked_up and _FORMULA.search(text):
            yield tidy(re.sub(r"\n {4,8}", "\n", text))
