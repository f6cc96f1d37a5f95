"""A dossier against what is known of a model made by hand."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from moetui.analyses.expert_dossier import expert_dossier, stopped_dossier
from moetui.stats import equivalent
from moetui.trace import Drop
from tests.fake_dossier import WritingForward, request
from tests.fake_forward import log_probabilities

E, K, EXPERT = 8, 2, 1
PUSH = [[0.0, 3.0, 0, 0, 0, 0, 0, 0.5], [0.0] * E]


@pytest.fixture(scope="module")
def found():
    forward = WritingForward(layers=2, experts=E, k=K, vocabulary=32, push=PUSH)
    return forward, list(expert_dossier(forward, request(0, EXPERT)))


@pytest.fixture(scope="module")
def dossier(found):
    return found[1][-1].dossier


def ids_of(asked):
    return [np.array([int(w) for w in text.text.split()]) for text in asked]


def users(ids):
    """Token i of layer 0 chooses experts i and i + 1."""
    return (ids % E == EXPERT) | ((ids + 1) % E == EXPERT)


def test_the_load_is_counted_on_evaluation_documents(dossier):
    ids = np.concatenate(ids_of(request().evaluation))
    assert dossier.load.value == pytest.approx(users(ids).mean())
    assert dossier.load.null_mean == K / E and dossier.load.ci_low < dossier.load.value
    assert "the minimum size of 3,000 effective tokens" in dossier.load.caveat
    for one in dossier.domains:
        own = [i for i, t in zip(ids_of(request().evaluation), request().evaluation, strict=True)
               if t.domain == one.domain]  # fmt: skip
        assert one.share.value == pytest.approx(users(np.concatenate(own)).mean())
    assert len(dossier.domains) == 2


def test_triggers_are_the_tokens_that_choose_it(dossier):
    (triggers,) = dossier.triggers.experts
    assert {t.token_id for t in triggers.tokens} <= {0, 1, 8, 9}
    assert triggers.discovered >= 1 and dossier.triggers.held_out


def test_it_writes_what_its_output_reads_as(dossier):
    top = dossier.writes.tokens[0]
    logits = np.zeros(32)
    logits[EXPERT] = 2.0
    assert top.token_id == EXPERT and top.text == f" w{EXPERT}"
    assert top.logprob == pytest.approx(log_probabilities(logits)[EXPERT], abs=1e-5)
    ids = np.concatenate(ids_of(request().evaluation))
    share = np.bincount(np.concatenate([ids % E, (ids + 1) % E]), minlength=E) / (2 * len(ids))
    typical = np.zeros(32)
    typical[:E] = 2 * share
    assert top.typical == pytest.approx(log_probabilities(typical)[EXPERT], abs=1e-5)
    assert dossier.writes.n_tokens == users(ids).sum()
    assert dossier.writes.agreement.null_mean == pytest.approx(8 / 32)


def test_partners_are_its_neighbours_and_nobody_else(dossier):
    ids = np.concatenate(ids_of(request().evaluation))
    together = {p.expert: p.together for p in dossier.partners}
    for partner, other in ((0, 0), (2, 1)):
        share = (ids % E == other).sum() / users(ids).sum()
        assert together[partner].value == pytest.approx(share)
        assert together[partner].ci_low > together[partner].null_mean
    assert all(together[e].value == 0 for e in together if e not in (0, 2))
    assert [p.expert for p in dossier.partners][:2] in ([0, 2], [2, 0])
    # Of random sets, the chances to meet any other one add up to k − 1.
    assert sum(p.together.null_mean for p in dossier.partners) == pytest.approx(K - 1, abs=1e-2)


def test_the_loss_is_that_of_dropping_it_beside_the_other_experts(found, dossier):
    forward, _ = found
    before, after, tokens = 0.0, 0.0, 0
    for ids in ids_of(request().evaluation):
        before += forward.nll(ids).sum(dtype=float)
        after += forward.nll(ids, [Drop(experts=(EXPERT,), layers=(0,))]).sum(dtype=float)
        tokens += len(ids) - 1
    causal = dossier.causal
    assert causal.delta_nll.value == pytest.approx((after - before) / tokens)
    assert {c.expert for c in causal.random_controls} == set(range(E)) - {EXPERT}
    idle = [c.delta_nll.value for c in causal.random_controls if c.expert not in (1, 7)]
    assert idle == [0.0] * 6
    assert "7 control experts of each kind instead of 20" in causal.delta_nll.caveat
    assert causal.equivalence.outcome == equivalent(causal.delta_nll, 0.01).outcome


def test_it_is_told_document_by_document_and_complete_before_the_loss(found):
    _, states = found
    assert [s.doing for s in states[:2]] == ["reading calibration documents"] * 2
    first = next(s for s in states if s.dossier is not None)
    assert first.dossier.causal is None and first.dossier.partners and not first.finished
    assert states[-1].finished
    assert len(states) == 24 + 24 + 24 + 1


def test_one_that_was_stopped_keeps_the_loss_of_the_documents_measured(found):
    forward, states = found
    before, after, tokens = np.zeros((3, 24))
    for at, ids in enumerate(ids_of(request().evaluation)):
        before[at] = forward.nll(ids).sum(dtype=float)
        after[at] = forward.nll(ids, [Drop(experts=(EXPERT,), layers=(0,))]).sum(dtype=float)
        tokens[at] = len(ids) - 1
    last = states[-2]
    kept = stopped_dossier(last, seed=0)
    delta = kept.dossier.causal.delta_nll
    change = after - before
    without_one = (change.sum() - change) / (tokens.sum() - tokens)
    assert np.isclose(delta.value, without_one, rtol=1e-12).any()
    assert delta.n_documents == last.done == 23 and delta.ci_low is not None
    assert delta.caveat.startswith("stopped after 23 of 24 documents")
    assert kept.stopped and not kept.finished and states[-1].finished
    # All the rest stays.
    assert msgspec.structs.replace(kept.dossier, causal=None) == last.dossier


def test_of_one_stopped_early_nothing_is_judged(found):
    _, states = found
    early = next(s for s in states if len(s.measured) == 8)
    causal = stopped_dossier(early, seed=0).dossier.causal
    assert causal.delta_nll.n_documents == 8 and causal.delta_nll.ci_low is None
    assert "8 documents: below a tenth of the minimum size of 200" in causal.delta_nll.caveat
    assert causal.equivalence.outcome == "inconclusive"
    assert stopped_dossier(next(s for s in states if s.dossier is not None), seed=0) is None
    assert stopped_dossier(states[0], seed=0) is None


def test_documents_are_measured_in_an_order_that_does_not_follow_their_domains():
    asked = request(0, EXPERT, documents=24)
    by_domain = sorted(asked.evaluation, key=lambda text: text.domain)
    forward = WritingForward(layers=2, experts=E, k=K, vocabulary=32, push=PUSH)
    states = list(expert_dossier(forward, replace(asked, evaluation=by_domain)))
    early = next(s for s in states if len(s.measured) == 12)
    causal = stopped_dossier(early, seed=0).dossier.causal
    assert [one.domain for one in causal.domains] != ["code"] and len(causal.domains) == 2


def test_an_expert_that_nobody_uses_has_reasons_in_place_of_numbers():
    forward = WritingForward(layers=1, experts=24, k=1, vocabulary=32)
    *_, last = expert_dossier(forward, request(0, 20, documents=4))
    found = last.dossier
    assert found.load.value == 0 and found.writes is None and found.partners is None
    assert "too few tokens" in found.writes_reason and "no token" in found.partners_reason
    assert found.causal.delta_nll.value == 0
