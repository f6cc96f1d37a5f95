import numpy as np
import pytest

from moetui.analyses.expert_ranks import multi_hot
from moetui.analyses.token_table import PRIORS, TokenTable


def drawn():
    rng = np.random.default_rng(0)
    tokens, documents = rng.integers(0, 9, 80), np.repeat(np.arange(8), 10)
    experts = rng.integers(0, 5, (80, 1))
    return tokens, multi_hot(experts, 5), documents, experts


def test_a_token_has_what_it_had_and_a_little_of_what_all_have():
    tokens, targets, documents, experts = drawn()
    table = TokenTable(tokens, targets, documents, experts)
    for token in range(9):
        own = targets[tokens == token]
        wanted = (own.sum(axis=0) + table.prior * targets.mean(axis=0)) / (len(own) + table.prior)
        np.testing.assert_allclose(table.scores([token])[0], wanted)


def test_an_unknown_token_is_given_what_is_popular():
    tokens, targets, documents, experts = drawn()
    table = TokenTable(tokens, targets, documents, experts)
    np.testing.assert_allclose(table.scores([-3, 4000]), np.tile(targets.mean(axis=0), (2, 1)))


def test_left_out_is_the_table_of_the_other_documents():
    tokens, targets, documents, experts = drawn()
    table = TokenTable(tokens, targets, documents, experts)
    found = table.left_out()
    for row in (0, 17, 42, 79):
        others = (documents != documents[row]) & (tokens == tokens[row])
        wanted = targets[others].sum(axis=0) + table.prior * table.popularity
        np.testing.assert_allclose(found[row], wanted / (others.sum() + table.prior))


@pytest.mark.parametrize(("share", "prior"), [(1.0, PRIORS[:3]), (0.0, PRIORS[4:])])
def test_where_the_token_says_nothing_the_table_says_what_is_popular(share, prior):
    """share: of tokens whose expert follows from the token; the others' are drawn, 0 above all."""
    rng = np.random.default_rng(1)
    tokens, documents = rng.integers(0, 60, 900), np.repeat(np.arange(30), 30)
    by_chance = rng.choice(5, 900, p=[0.4, 0.15, 0.15, 0.15, 0.15])
    experts = np.where(rng.random(900) < share, tokens % 5, by_chance)[:, None]
    table = TokenTable(tokens, multi_hot(experts, 5), documents, experts)
    assert table.prior in prior
    top = table.scores(np.arange(60)).argmax(axis=1)
    assert (top == (np.arange(60) % 5 if share else 0)).mean() > 0.9
