"""The bundled corpus: two disjoint splits of documents that training never saw."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import moetui.demo
from moetui.demo import DOMAINS, corpus
from moetui.demo.arithmetic import Problem
from moetui.stats.minimum import DECOMPOSITION, DOMAIN, LOAD, enough

HERE = Path(moetui.demo.__file__).parent
SPLITS = ("calibration", "evaluation")


@pytest.fixture(scope="module")
def splits():
    return {split: list(corpus(split)) for split in SPLITS}


@pytest.fixture(scope="module")
def listed():
    return json.loads((HERE / "heldout.json").read_text("utf-8"))


def test_the_splits_share_no_document(splits):
    calibration, evaluation = ({d.id for d in splits[split]} for split in SPLITS)
    assert not calibration & evaluation
    assert not {d.text for d in splits["calibration"]} & {d.text for d in splits["evaluation"]}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_reaches_its_minimum_sizes(splits, tokenizer, split):
    documents = splits[split]
    lengths = [len(tokenizer.encode(document.text).ids) for document in documents]
    assert len(documents) >= 200
    assert sum(lengths) >= 60_000
    assert max(lengths) <= 512
    per_domain = Counter(document.domain for document in documents)
    assert set(per_domain) == set(DOMAINS)
    assert min(per_domain.values()) >= 30


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_large_enough_for_what_is_claimed_of_domains_load_and_decomposition(
    splits, tokenizer, split
):
    tokens, documents = Counter(), Counter()
    for document in splits[split]:
        documents[document.domain] += 1
        tokens[document.domain] += len(tokenizer.encode(document.text).ids)
    assert enough(DOMAIN, tokens_per_domain=min(tokens.values())) == "ok"
    assert min(documents.values()) >= LOAD.needs["documents"]
    assert documents.total() >= DECOMPOSITION.needs["documents"]
    assert tokens.total() >= DECOMPOSITION.needs["tokens"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_document_is_listed_as_held_out(splits, listed, split):
    by_domain = {d: sorted(x.id for x in splits[split] if x.domain == d) for d in DOMAINS}
    assert by_domain == {d: sorted(ids) for d, ids in listed[split].items()}
    assert all(x.id.startswith(f"{x.domain}/") for x in splits[split])


def test_at_least_eighty_documents_of_each_domain_are_held_out(listed):
    for domain in DOMAINS:
        assert len({i for split in SPLITS for i in listed[split][domain]}) >= 80


def test_documents_come_by_domain_and_then_by_id(splits):
    for documents in splits.values():
        keys = [(document.domain, document.id) for document in documents]
        assert keys == sorted(keys)


def test_token_counts_agree_with_the_card(splits, tokenizer, card):
    for split, documents in splits.items():
        counts: Counter[str] = Counter()
        for document in documents:
            counts[document.domain] += len(tokenizer.encode(document.text).ids)
        assert card["corpus"][split]["tokens_by_domain"] == dict(counts)


def test_no_sheet_holds_a_problem_that_is_set_aside(splits):
    pattern = re.compile(r"\b(\d+) ([-+*/]) (\d+)\b")
    sheets = [d.text for documents in splits.values() for d in documents if d.domain[0] == "a"]
    found = [
        Problem(int(a), operation, int(b))  # type: ignore[arg-type]
        for sheet in sheets
        for a, operation, b in pattern.findall(re.sub(r"Calculate the sum.*", "", sheet))
    ]
    assert len(found) > 1000
    assert not [problem for problem in found if problem.held_out]


def test_the_compressed_corpus_stays_under_a_megabyte():
    assert sum(path.stat().st_size for path in (HERE / "corpus").iterdir()) <= 1_000_000
