"""Samples of corpora: drawn by a hash of the text, in halves that share none."""

import random
from collections import Counter

import msgspec
import pytest

import moetui.demo
from moetui.suites.corpus import CorpusError, Document, open_corpus, sample

WORDS = [
    "router",
    "expert",
    "token",
    "layer",
    "weight",
    "logit",
    "prompt",
    "attention",
    "embed",
    "norm",
]


def texts(n, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) + f" {i}" for i in range(n)]


def write(path, rows):
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


@pytest.fixture
def corpus_file(tmp_path):
    return write(tmp_path / "c.jsonl", [{"text": text, "domain": "d"} for text in texts(2000)])


def drawn(path, split="evaluation", n=50, seed=0, max_characters=1000):
    return sample(open_corpus(path, split), n, seed=seed, max_characters=max_characters)


def test_a_sample_does_not_depend_on_the_order_of_the_documents(corpus_file, tmp_path):
    rows = corpus_file.read_bytes().splitlines(keepends=True)
    random.Random(1).shuffle(rows)
    (tmp_path / "shuffled.jsonl").write_bytes(b"".join(rows))
    here, there = drawn(corpus_file), drawn(tmp_path / "shuffled.jsonl")
    assert {d.text for d in here.documents} == {d.text for d in there.documents}
    assert here.available == there.available


def test_a_sample_comes_in_the_order_of_the_corpus_and_larger_ones_hold_smaller(corpus_file):
    small, large = drawn(corpus_file), drawn(corpus_file, n=200)
    lines = [int(d.id.partition(":")[2]) for d in large.documents]
    assert len(lines) == 200 and lines == sorted(lines)
    assert {d.id for d in small.documents} < {d.id for d in large.documents}


def test_another_seed_draws_other_documents_and_the_same_seed_the_same(corpus_file):
    first, again, other = drawn(corpus_file), drawn(corpus_file), drawn(corpus_file, seed=1)
    assert first == again
    assert first.digest != other.digest
    # Two independent draws of 50 from about 1,000 share 2.5 on average.
    assert len({d.id for d in first.documents} & {d.id for d in other.documents}) < 15


def test_every_document_is_as_likely_to_be_drawn(tmp_path):
    path = write(tmp_path / "c.jsonl", [{"text": text} for text in texts(60)])
    held = [d.id for d in open_corpus(path, "evaluation")]
    times = Counter(d.id for seed in range(600) for d in drawn(path, n=6, seed=seed).documents)
    expected = 600 * 6 / len(held)
    chi_square = sum((times[key] - expected) ** 2 / expected for key in held)
    # Mean len − 1, standard deviation √(2(len − 1)): five of them off is no accident.
    assert chi_square < len(held) + 5 * (2 * len(held)) ** 0.5


def test_calibration_and_evaluation_share_no_text_and_are_halves(tmp_path):
    rows = [{"text": text, "id": i} for i, text in enumerate(texts(1000) + texts(1000))]
    path = write(tmp_path / "c.jsonl", rows)
    halves = [list(open_corpus(path, split)) for split in ("calibration", "evaluation")]
    assert sum(map(len, halves)) == 2000
    assert not {d.text for d in halves[0]} & {d.text for d in halves[1]}
    # 1,000 fair coins: standard deviation 16 texts, every text twice.
    assert all(abs(len(half) / 2 - 500) < 80 for half in halves)


def test_the_side_of_a_text_does_not_depend_on_its_file_or_margins(tmp_path):
    here = write(tmp_path / "a.jsonl", [{"text": text} for text in texts(40)])
    there = write(tmp_path / "b.jsonl", [{"text": f"\n{text}  "} for text in texts(40)])
    sides = [[d.text.strip() for d in open_corpus(p, "calibration")] for p in (here, there)]
    assert sides[0] == sides[1]


def test_repeated_and_empty_texts_are_left_out_and_said(tmp_path):
    rows = [{"text": text} for text in texts(20) * 3 + ["", " \n", None]]
    found = drawn(write(tmp_path / "c.jsonl", rows))
    different = {d.text for d in found.documents}
    assert len(different) == len(found.documents) == found.available / 3
    assert f"{2 * len(different)} repeats" in found.caveat
    assert "3 documents without text" in found.caveat


def test_texts_that_are_the_same_once_cut_are_drawn_once(tmp_path):
    rows = [{"text": "the same licence " * 10 + str(i)} for i in range(40)]
    found = drawn(write(tmp_path / "c.jsonl", rows), max_characters=100)
    assert [len(d.text) for d in found.documents] == [100]


def test_the_bundled_corpus_keeps_its_own_splits():
    bundled = {d.id for d in moetui.demo.corpus("calibration")}
    found = drawn(None, "calibration", n=30)
    assert found.available == len(bundled) and {d.id for d in found.documents} <= bundled
    assert found == drawn("bundled", "calibration", n=30)
    assert found.name == "moetui demo corpus, calibration split" and found.caveat is None


def test_a_corpus_smaller_than_the_sample_is_drawn_whole(tmp_path):
    path = write(tmp_path / "c.jsonl", [{"text": text} for text in texts(10)])
    found = drawn(path, n=500)
    assert list(found.documents) == list(open_corpus(path, "evaluation"))


def test_an_empty_corpus_and_an_empty_half_are_refused(tmp_path):
    path = write(tmp_path / "c.jsonl", [{"text": " "}])
    with pytest.raises(CorpusError, match="no document with text"):
        drawn(path)
    path = write(tmp_path / "c.jsonl", [{"text": "one"}])
    sides = []
    for split in ("calibration", "evaluation"):
        try:
            sides.append(drawn(path, split).documents)
        except CorpusError as error:
            assert "none of its 1 documents" in error.message
    assert sides == [(Document("c.jsonl:1", "unlabelled", "one"),)]
