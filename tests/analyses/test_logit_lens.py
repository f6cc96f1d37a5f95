from dataclasses import replace

import numpy as np
import pytest

from moetui.analyses.logit_lens import logit_lens
from tests.builders import make_trace


def with_ranks(ranks):
    """A trace of one token whose answer has these ranks through the layers."""
    trace = make_trace(T=1, N=len(ranks))
    lens = replace(trace.lens, answer_rank=np.array([ranks], np.int32))
    return replace(trace, lens=lens)


@pytest.mark.parametrize(
    ("ranks", "settled"),
    [([5, 3, 0, 0], 2), ([0, 0, 0, 0], 0), ([0, 2, 0, 0], 2), ([9, 9, 9, 0], 3), ([0, 0, 1, 0], 3)],
)
def test_settled_is_the_first_layer_from_which_the_answer_stays_on_top(ranks, settled):
    assert logit_lens(with_ranks(ranks), 0).settled == settled


def test_probabilities_are_those_of_the_whole_vocabulary():
    trace = make_trace(T=2, N=3)
    found = logit_lens(trace, 1)
    z = trace.logits.astype(float)
    p = np.exp(z) / np.exp(z).sum()
    assert found.top[-1][0].probability == pytest.approx(p.max(), rel=1e-5)
    assert found.top[-1][0].token_id == found.answer.token_id == int(p.argmax())
    assert found.answer.probability == pytest.approx(p.max(), rel=1e-5)
    assert found.answer_rank[-1] == 0


def test_every_guess_has_its_text():
    trace = make_trace()
    for layer in logit_lens(trace, 0).top:
        for guess in layer:
            assert guess.text == trace.lens.text[guess.token_id]


def test_rows_that_were_not_read_have_no_view():
    trace = make_trace(T=4, lens_positions=[3])
    assert logit_lens(trace, 2) is None
    assert logit_lens(trace, 3) is not None
    assert logit_lens(make_trace(with_lens=False), 0) is None


def test_dense_models_have_a_lens():
    assert len(logit_lens(make_trace(N=5, moe_layers=()), 0).layers) == 5
