"""What is shown of causes, identity, sources and checks: the numbers of the result."""

import pytest

from moetui.suites.attention_router_evidence import checks, sections
from moetui.suites.sections import sections as whole_document
from tests.suites.fake import FakeModel
from tests.suites.test_attention_router import cell, run


@pytest.fixture(scope="module")
def result():
    return run(FakeModel(), corpus_documents=30, mined_contexts=20)


def section(result, heading):
    return next(one for one in sections(result) if one.heading == heading)


def test_every_effect_of_every_layer_is_shown(result):
    found = cell(result, "causal_check").result
    (table,) = section(result, "Causal check").tables
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    assert len(rows) == 3 * (len(found.layers) + 1)
    for layer in found.layers:
        for part in layer.parts:
            one = part.resample
            assert rows[str(layer.layer), part.part] == (one.change, one.excess, one.length)
    assert rows["mean of 2, 3", "attention"][0] == found.mean.parts[1].resample.change
    assert found.verdict in table.caption


def test_identity_and_sources_are_shown(result):
    identity = cell(result, "token_identity").result
    (table,) = section(result, "What the token alone foretells").tables
    assert [row[1] for row in table.rows] == [
        *(one.eta2 for one in identity.layers),
        identity.mean.eta2,
    ]
    assert "needed" in table.caption  # too few token ids
    corpus = cell(result, "corpus_decomposition").result
    tables = section(result, "Shares by the layer that added them").tables
    assert [len(table.rows) for table in tables] == [len(one.sources) for one in corpus.sources]


def test_contexts_of_the_corpus_are_shown_with_the_null_that_was_beaten(result):
    mined = cell(result, "context_sensitivity").result.mined
    found = section(result, "Frequent tokens in contexts from the corpus")
    assert mined.beaten in found.text[1]
    assert found.tables[0].rows[-1][3:] == (
        mined.sets.between,
        mined.sets.shuffled,
        mined.sets.excess,
    )


def test_checks_say_what_passed(result):
    rows = dict(checks(result, "fake"))
    assert rows["logits with capture are those without, bit for bit"] == "yes: 9 of 9 texts"
    own = "top-k reproduced by the model's own norm, router and selection"
    assert rows[own] == "yes: 100.00% of tokens at the worst layer"
    assert rows["checks that failed"] == "none"
    assert checks(result, "another") == ()


def test_all_of_it_is_part_of_the_document(result):
    headings = [one.heading for one in whole_document(result)]
    for one in sections(result):
        assert one.heading in headings
