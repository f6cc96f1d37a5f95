"""Parquet files as corpora, with the extra `parquet`: one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moetui.demo import Document
from moetui.suites.corpus_files import CorpusError, document, not_text

# Rows turned into Python objects at a time.
_ROWS = 64


def require_extra() -> None:
    """Raise CorpusError where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise CorpusError(
            "Parquet needs pyarrow, which is not installed", "pip install 'moetui[parquet]'"
        )


def rows(path: Path, name: str, domain: str) -> Iterator[Document]:
    """The rows of the columns text, domain and id; the last two may be absent.

    Memory: one row group's pages of these columns. Raises CorpusError.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            columns = _columns(file.schema_arrow, path)
            yield from _documents(file, columns, path, name, domain)
    except UnicodeDecodeError as error:
        raise not_text(path, "column text", error) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(
            f"{path}: not a Parquet file, or damaged ({str(error).splitlines()[0]})",
            "download or write it again",
        ) from error


def _documents(
    file: Any, columns: list[str], path: Path, name: str, domain: str
) -> Iterator[Document]:
    row = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
        for record in batch.to_pylist():
            row += 1
            yield document(
                record["text"], record.get("domain"), record.get("id"), f"{name}:{row}", domain
            )


def _columns(schema: Any, path: Path) -> list[str]:
    """Which of the columns there are; each must be of a type that can be shown as text."""
    if "text" not in schema.names:
        raise CorpusError(
            f"{path}: there is no column text", f"its columns are {', '.join(schema.names)}"
        )
    columns = [name for name in ("text", "domain", "id") if name in schema.names]
    for name in columns:
        kind = schema.field(name).type
        if not _is_text(kind) and (name == "text" or not _is_number(kind)):
            raise CorpusError(
                f"{path}: the column {name} holds {kind}, not text", "convert that column"
            )
    return columns


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    return bool(
        types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
    )


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind))
