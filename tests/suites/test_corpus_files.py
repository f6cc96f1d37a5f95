"""Readers of corpora: what is a document, what its domain; and what cannot be read."""

import bz2
import gzip
import json
import lzma
import os

import pytest

from moetui.suites import corpus_files
from moetui.suites.corpus import CorpusError, open_corpus
from moetui.suites.corpus_files import Document, documents


def test_blank_lines_separate_the_documents_of_a_text_and_their_kinship_is_a_caveat(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes("\ufeffOne\r\ntwo\r\n\r\n \t\r\n    Three ä\n\n\n".encode())
    assert list(documents(path)) == [
        Document("book.txt:1", "unlabelled", "One\ntwo"),
        Document("book.txt:5", "unlabelled", "    Three ä"),
    ]
    assert "neighbours" in open_corpus(path, "evaluation").caveat


def test_a_folder_is_one_document_a_text_and_its_subfolders_are_domains(tmp_path):
    for name, text in {
        "b.md": "para\n\npara",
        "code/x/z.py": "pass",
        "code/a.py": "",
        ".git/config": "hidden",
        "code/.hidden": "hidden",
        "web/shard.jsonl": '{"text": "t", "domain": "own"}\n{"text": "u"}\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "pipe")
    assert list(documents(tmp_path)) == [
        Document("b.md", "unlabelled", "para\n\npara"),
        Document("code/a.py", "code", ""),
        Document("code/x/z.py", "code", "pass"),
        Document("web/shard.jsonl:1", "own", "t"),
        Document("web/shard.jsonl:2", "web", "u"),
    ]
    assert open_corpus(tmp_path, "evaluation").caveat is None


def test_json_lines_need_a_text_and_may_have_domain_and_id(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(
        '\ufeff{"text": "a", "domain": "x", "id": "first", "more": [1]}\n\n'
        '{"text": "b", "id": 7}\n{"text": null}\n'
    )
    assert list(documents(path)) == [
        Document("first", "x", "a"),
        Document("7", "unlabelled", "b"),
        Document("c.jsonl:4", "unlabelled", ""),
    ]


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]
)
def test_compressed_files_read_as_what_is_in_them(tmp_path, suffix, pack):
    (tmp_path / f"c.jsonl{suffix}").write_bytes(pack(b'{"text": "a"}\n'))
    (tmp_path / f"c.txt{suffix}").write_bytes(pack(b"a\n\nb"))
    assert [d.text for d in documents(tmp_path / f"c.jsonl{suffix}")] == ["a"]
    assert [d.text for d in documents(tmp_path / f"c.txt{suffix}")] == ["a", "b"]


def test_a_giant_line_of_text_is_cut_and_the_next_paragraph_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "MAX_CHARACTERS", 200_000)
    path = tmp_path / "c.txt"
    path.write_text("ä" * 1_000_000 + "\n" + "more\n\nnext\n")
    found = list(documents(path))
    assert found[0].text == "ä" * 200_000
    assert (found[1].id, found[1].text) == ("c.txt:4", "next")


def test_a_line_that_ends_where_a_piece_ends_does_not_end_its_paragraph(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("a" * (1 << 16) + "\nb\n")
    assert [d.text for d in documents(path)] == ["a" * (1 << 16) + "\nb"]


BAD = {
    "no such file": ("gone.jsonl", None, "No such file"),
    "line is not JSON": ("c.jsonl", b'{"text": "a"}\n{"text": \n', "c.jsonl, line 2: "),
    "no text": ("c.jsonl", b'{"text": "a"}\n{"content": "b"}\n', "line 2: Object missing"),
    "text is a number": ("c.jsonl", b'{"text": 3}\n', "line 1: Expected `str | null`, got `int`"),
    "not an object": ("c.jsonl", b"[1]\n", "line 1: Expected `object`"),
    "JSON lines not UTF-8": ("c.jsonl", b'{"text": "a"}\n{"text": "\xe4"}\n', "line 2: not UTF-8"),
    "text not UTF-8": ("c.txt", b"a\n\nb \xe4 c", "c.txt, line 3: not UTF-8 text (byte 0xe4)"),
    "text ends within a character": ("c.txt", b"a\nb \xc3", "line 2: not UTF-8"),
    "UTF-16": ("c.txt", "words".encode("utf-16"), "line 1: not UTF-8"),
    "one JSON value": ("c.json", b'[{"text": "a"}]', "is one value"),
    "damaged gzip": ("c.txt.gz", gzip.compress(b"a" * 999)[:-9], "damaged"),
    "no gzip at all": ("c.txt.gz", b"plain", "damaged"),
    "damaged xz": ("c.jsonl.xz", b"\xfd7zXZ\x00 no", "damaged"),
    "nothing in it": ("c.txt", b"\n\n", "no document with text"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_refused_with_file_and_line(tmp_path, name, content, message):
    from moetui.suites.corpus import sample

    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as refused:
        sample(open_corpus(tmp_path / name, "evaluation"), 5, seed=0, max_characters=99)
    assert message in refused.value.message and refused.value.hint
    assert "\n" not in refused.value.message + refused.value.hint
    assert refused.value.exit_code == 2


def test_a_line_of_json_too_long_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "MAX_LINE", 1 << 20)
    path = tmp_path / "c.jsonl"
    fits = json.dumps({"text": "a" * 1000})
    path.write_text(fits + "\n" + json.dumps({"text": "a" * (1 << 20)}) + "\n")
    with pytest.raises(CorpusError, match="line 2: longer than 1 MiB"):
        list(documents(path))


@pytest.mark.parametrize("name", ["-", "", "/dev/null", "pipe", "a\0b", "x" * 5000, "~nobody/x"])
def test_what_is_neither_file_nor_folder_is_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(CorpusError) as refused:
        open_corpus(name, "evaluation")
    assert refused.value.hint
