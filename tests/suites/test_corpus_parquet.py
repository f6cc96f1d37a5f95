"""Parquet corpora; pyarrow comes with the extra `parquet`, which the extra `test` holds."""

import subprocess
import sys

import pytest

from moetui.suites import corpus_parquet
from moetui.suites.corpus import CorpusError, open_corpus
from moetui.suites.corpus_files import Document, documents


def write(path, columns, **options):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_rows_are_documents_across_row_groups(tmp_path):
    columns = {
        "text": [f"t{i}" for i in range(300)],
        "more": list(range(300)),
        "domain": ["x", None] * 150,
    }
    path = write(tmp_path / "c.parquet", columns, row_group_size=70)
    found = list(documents(path))
    assert [d.text for d in found] == columns["text"]
    assert found[:2] == [
        Document("c.parquet:1", "x", "t0"),
        Document("c.parquet:2", "unlabelled", "t1"),
    ]
    assert open_corpus(path, "evaluation").caveat is None


def test_texts_may_be_dictionaries_or_absent_and_ids_numbers(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    text = pyarrow.array(["a", None, "a"]).dictionary_encode()
    path = write(tmp_path / "c.parquet", {"text": text, "id": [5, 6, 7]})
    assert [(d.id, d.text) for d in documents(path)] == [("5", "a"), ("6", ""), ("7", "a")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"content": ["a"], "n": [1]}, "no column text"),
        ({"text": [1, 2]}, "the column text holds int64"),
        ({"text": ["a"], "domain": [1.5]}, "the column domain holds double"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, columns, message):
    path = write(tmp_path / "c.parquet", columns)
    with pytest.raises(CorpusError, match=message):
        list(documents(path))


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    broken = pyarrow.array([b"ok", b"\xe4"], pyarrow.binary()).view(pyarrow.string())
    path = write(tmp_path / "c.parquet", {"text": broken})
    with pytest.raises(CorpusError, match="not UTF-8 text"):
        list(documents(path))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_damaged_files_are_refused_in_one_line(tmp_path, content):
    pytest.importorskip("pyarrow")
    (tmp_path / "c.parquet").write_bytes(content)
    with pytest.raises(CorpusError) as refused:
        list(documents(tmp_path / "c.parquet"))
    assert "c.parquet" in refused.value.message and "\n" not in refused.value.message


def test_without_the_extra_a_parquet_corpus_is_refused_when_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_parquet, "find_spec", lambda name: None)
    (tmp_path / "c.parquet").write_bytes(b"")
    with pytest.raises(CorpusError) as refused:
        open_corpus(tmp_path / "c.parquet", "evaluation")
    assert refused.value.hint == "pip install 'moetui[parquet]'" and refused.value.exit_code == 2


def test_other_corpora_do_not_import_pyarrow(tmp_path):
    (tmp_path / "c.txt").write_text("a\n\nb\n\nc\n\nd\n\ne\n\nf")
    program = (
        "import sys; from moetui.suites.corpus import open_corpus, sample\n"
        f"sample(open_corpus({str(tmp_path / 'c.txt')!r}, 'evaluation'), 3, seed=0,"
        " max_characters=9)\n"
        "print('pyarrow' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout == "False\n"
