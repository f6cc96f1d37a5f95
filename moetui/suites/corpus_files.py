"""Readers of a user's corpus: text, JSON lines, Parquet, folders of them; streamed, bounded.

No reader holds more than one document, and no document more than `MAX_CHARACTERS` of its text, so
that memory depends neither on the size of the corpus nor on that of its largest document.
"""

from __future__ import annotations

import codecs
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from itertools import count
from pathlib import Path

import msgspec

from moetui.demo import Document
from moetui.errors import UsageError

# A document's text ends here, far beyond what any analysis reads of it.
MAX_CHARACTERS = 1 << 20
# A line of JSON has to be held whole to be understood.
MAX_LINE = 16 << 20
UNLABELLED = "unlabelled"
"""The domain of documents that name none."""

_PIECE = 1 << 16
_COMPRESSED = (".gz", ".xz", ".bz2")
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = ".parquet"


class CorpusError(UsageError):
    """A corpus that cannot be read, or holds nothing to read."""


class _Record(msgspec.Struct, frozen=True):
    text: str | None
    domain: str | int | None = None
    id: str | int | None = None


def checked(named: str | Path) -> Path:
    """The file or folder `named`, about which everything is checked that needs no reading.

    Raises CorpusError.
    """
    if str(named) == "-":
        raise CorpusError("a corpus is read several times, standard input only once", _TO_A_FILE)
    path = _expanded(Path(named))
    try:
        mode = path.stat().st_mode if str(named) else None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CorpusError(f"cannot read the corpus {named}: {reason}", _WHAT_FITS) from error
    if mode is None:
        raise CorpusError("the name of the corpus is empty", _WHAT_FITS)
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise CorpusError(f"a corpus is read several times, the pipe {named} only once", _TO_A_FILE)
    if stat.S_ISREG(mode):
        _known(path)
    return path


def documents(path: Path) -> Iterator[Document]:
    """Every document of the file or folder, those without text too.

    A folder is walked in sorted order, what is hidden left out; a text file in it is one document,
    and the domain of files that name none is the folder's first subfolder. Raises CorpusError
    naming the file and the line.
    """
    if not path.is_dir():
        yield from _file(path, _readable(path.name), UNLABELLED, whole=False)
        return
    for file in _walk(path):
        inside = file.relative_to(path)
        domain = inside.parts[0] if len(inside.parts) > 1 else UNLABELLED
        yield from _file(file, _readable(inside.as_posix()), _readable(domain), whole=True)


def of_paragraphs(path: Path) -> bool:
    """Whether the documents are the paragraphs of one text."""
    return not path.is_dir() and suffix(path) not in (*_JSON_LINES, _PARQUET)


def suffix(path: Path) -> str:
    """The suffix that tells the format, without that of a compression."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() if last in _COMPRESSED else last


def _known(path: Path) -> None:
    """Raise CorpusError for a format that cannot be read (here)."""
    if suffix(path) == ".json":
        raise CorpusError(
            f"{path}: a .json file is one value, not a row of documents",
            "write one object a line, and call it .jsonl",
        )
    if suffix(path) == _PARQUET:
        from moetui.suites.corpus_parquet import require_extra

        require_extra()


def _file(path: Path, name: str, domain: str, *, whole: bool) -> Iterator[Document]:
    _known(path)
    kind = suffix(path)
    if kind == _PARQUET:
        from moetui.suites.corpus_parquet import rows

        return rows(path, name, domain)
    if kind in _JSON_LINES:
        return _json_lines(path, name, domain)
    return _whole(path, name, domain) if whole else _paragraphs(path, name, domain)


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise CorpusError(
            f"cannot read the folder {error.filename}: {error.strerror}", "check its permissions"
        ) from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _json_lines(path: Path, name: str, domain: str) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(_Record)
    with _opened(path) as handle:
        for number in count(1):
            line = handle.readline(MAX_LINE + 1)
            if not line:
                return
            if len(line) > MAX_LINE:
                raise CorpusError(
                    f"{path}, line {number}: longer than {MAX_LINE >> 20} MiB",
                    "make several documents of it",
                )
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                record = _record(line, decoder, path, number)
                yield document(record.text, record.domain, record.id, f"{name}:{number}", domain)


def document(
    text: str | None, domain: str | int | None, given_id: str | int | None, place: str, folder: str
) -> Document:
    """A record as a document; what it does not name comes from where it stands."""
    return Document(
        id=place if given_id is None else str(given_id),
        domain=folder if domain is None else str(domain),
        text=(text or "")[:MAX_CHARACTERS],
    )


def _record(
    line: bytes, decoder: msgspec.json.Decoder[_Record], path: Path, number: int
) -> _Record:
    try:
        return decoder.decode(line)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        # Releases of msgspec differ in what they say of bytes that are no text.
        try:
            line.decode()
        except UnicodeDecodeError as bad:
            raise not_text(path, f"line {number}", bad) from error
        raise CorpusError(
            f"{path}, line {number}: {error}",
            'every line is an object as {"text": "…", "domain": "…"}; domain and id may be absent',
        ) from error


def _paragraphs(path: Path, name: str, domain: str) -> Iterator[Document]:
    """Documents are what stands between blank lines."""
    text, start, last = _Text(), 0, 0
    for number, piece in _pieces(path):
        blank = number != last and not piece.strip()
        last = number
        if not blank:
            start = start or number
            text.add(piece)
        elif start:
            yield Document(f"{name}:{start}", domain, text.taken())
            start = 0
    if start:
        yield Document(f"{name}:{start}", domain, text.taken())


def _whole(path: Path, name: str, domain: str) -> Iterator[Document]:
    text = _Text()
    for _, piece in _pieces(path):
        text.add(piece)
    yield Document(name, domain, text.taken())


class _Text:
    """The beginning of a text that comes in pieces."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._room = MAX_CHARACTERS

    def add(self, piece: str) -> None:
        """Keep `piece` unless there is enough."""
        if self._room > 0:
            self._pieces.append(piece)
            self._room -= len(piece)

    def taken(self) -> str:
        """What was kept; the next text begins."""
        text = "".join(self._pieces).replace("\r\n", "\n").rstrip()[:MAX_CHARACTERS]
        self._pieces.clear()
        self._room = MAX_CHARACTERS
        return text


def _pieces(path: Path) -> Iterator[tuple[int, str]]:
    """The text in pieces, none longer than its line or 64 KiB, with the numbers of their lines."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number = 1
    with _opened(path) as handle:
        try:
            while piece := handle.readline(_PIECE):
                yield number, decoder.decode(piece)
                number += piece.endswith(b"\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise not_text(path, f"line {number}", error) from error


def not_text(path: Path, place: str, error: UnicodeDecodeError) -> CorpusError:
    """The refusal of bytes that are not UTF-8."""
    return CorpusError(
        f"{path}, {place}: not UTF-8 text (byte {error.object[error.start]:#04x})",
        "convert it, as in `iconv -f latin1 -t utf-8`, or leave it out",
    )


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, unpacked where its name says that it is compressed."""
    import bz2
    import gzip
    import lzma

    unpacked: dict[str, Callable[[Path], BufferedIOBase]] = {
        ".gz": gzip.GzipFile,
        ".xz": lzma.LZMAFile,
        ".bz2": bz2.BZ2File,
    }
    try:
        with unpacked.get(path.suffix.lower(), _plain)(path) as handle:
            yield handle
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CorpusError(f"{path}: damaged ({error})", "download or pack it again") from error
    except OSError as error:
        raise CorpusError(
            f"cannot read {path}: {error.strerror or error}", "check the file and its permissions"
        ) from error


def _plain(path: Path) -> BufferedIOBase:
    return path.open("rb")


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user
        return path


def _readable(name: str) -> str:
    """A file's name as text, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "replace")


_TO_A_FILE = "write it to a file first"
_WHAT_FITS = "give a file (.txt, .jsonl, .parquet), a folder of them, or bundled"
