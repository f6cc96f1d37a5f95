import numpy as np
import pytest

from moetui.stats import cold_experts, cold_thresholds, rate
from moetui.stats.cold import Threshold


def draw(rng, rates, tokens, spread=None):
    """Counts [D, E] of experts whose documents' own rates are the same (or beta-distributed)."""
    rates = np.broadcast_to(rates, (len(tokens), np.shape(rates)[-1]))
    if spread is not None:
        rates = rng.beta(rates * spread, (1 - rates) * spread)
    return rng.binomial(np.asarray(tokens)[:, None], rates)


def kinds(found, threshold):
    return [expert.coldness[threshold] for expert in found.experts]


def test_the_thresholds_are_parts_of_uniform_and_one_percent():
    found = cold_thresholds(8, 64)
    assert [t.share for t in found] == pytest.approx([0.0125, 0.03125, 0.0625, 0.01])
    assert [t.name for t in found] == ["0.1×", "0.25×", "0.5×", "1%"]


def test_the_classes_follow_the_limits():
    rng = np.random.default_rng(1)
    tokens = np.full(120, 60)  # uniform is 0.25
    counts = draw(rng, [0.4, 0.002, 0.0, 0.0625], tokens)
    found = cold_experts(counts, tokens, 1, seed=0)
    levels = cold_thresholds(1, 4)
    for expert in found.experts:
        low, high = expert.share.ci_low, expert.share.ci_high
        for kind, level in zip(expert.coldness, levels, strict=True):
            expected = "cold" if high < level.share else "not cold" if low >= level.share else None
            assert kind == (expected or "undecided")
    assert kinds(found, 0) == ["not cold", "cold", "cold", "not cold"]
    assert kinds(found, 1)[3] == "undecided"  # its rate is the threshold, 0.25 × uniform
    assert [expert.dead for expert in found.experts] == [False, False, True, False]
    assert found.count("cold", 0) == 2 and found.reason is None


def test_limits_and_effective_tokens_are_those_of_a_single_rate():
    rng = np.random.default_rng(2)
    tokens = rng.integers(20, 90, 110)
    counts = draw(rng, [0.2, 0.05, 0.1], tokens, spread=10)
    found = cold_experts(counts, tokens, 1, seed=4)
    for expert in found.experts:
        alone = rate(counts[:, expert.expert], tokens, seed=4)
        assert expert.share.value == pytest.approx(alone.value)
        limits = (expert.share.ci_low, expert.share.ci_high, expert.share.n_effective)
        assert limits == pytest.approx((alone.ci_low, alone.ci_high, alone.n_effective))
        assert expert.share.null_mean == pytest.approx(1 / 3)


def test_an_expert_that_one_domain_uses_is_conditional():
    rng = np.random.default_rng(3)
    tokens, domains = np.full(240, 50), ["a"] * 200 + ["b"] * 40
    rates = np.zeros((240, 8))
    rates[:, 0] = 0.004  # cold wherever one looks
    rates[200:, 1] = 0.2  # 0.033 of all tokens, above uniform (0.125) in b
    rates[200:, 2] = 0.02  # rare in b, absent from a
    rates[:, 3:] = 0.15
    counts = draw(rng, rates, tokens)
    found = cold_experts(counts, tokens, 1, seed=0, domains=domains)
    assert kinds(found, 2)[:3] == ["cold", "conditional", "cold"]
    assert found.domains == ("a", "b")
    in_a, in_b = found.experts[1].by_domain
    assert (in_a.value, in_b.n_documents) == (0.0, 40)
    assert in_b.value == pytest.approx(counts[200:, 1].sum() / 2000)
    assert kinds(cold_experts(counts, tokens, 1, seed=0), 2)[1] == "cold"


def test_too_few_documents_of_a_domain_make_nothing_conditional():
    rng = np.random.default_rng(4)
    tokens, domains = np.full(200, 50), ["a"] * 190 + ["b"] * 10
    rates = np.full((200, 4), 0.2)
    rates[:190, 0] = 0.0
    rates[190:, 0] = 0.5
    found = cold_experts(draw(rng, rates, tokens), tokens, 1, seed=0, domains=domains)
    assert kinds(found, 2)[0] == "cold"
    assert found.experts[0].by_domain[1].value > 0.25
    assert found.experts[0].by_domain[1].ci_low is None


def by_domain(rng, rates, documents=40, size=50, spread=None):
    """Documents of as many domains as rates [H, E] has rows."""
    tokens, domains = np.full(len(rates) * documents, size), []
    for name in range(len(rates)):
        domains += [str(name)] * documents
    counts = draw(rng, np.repeat(rates, documents, axis=0), tokens, spread=spread)
    return counts, tokens, domains


def test_the_mix_of_domains_is_given_where_each_has_documents_enough():
    rng = np.random.default_rng(10)
    rates = np.array([[0.3, 0.1], [0.01, 0.1], [0.02, 0.1]])
    counts, tokens, domains = by_domain(rng, rates, documents=200)
    whole = cold_experts(counts, tokens, 1, seed=0, domains=domains)
    found, plain = whole.experts, cold_experts(counts, tokens, 1, seed=0).experts
    assert whole.mix_given
    # Tokens of a domain are independent here: no fewer of them count than there are, nearly.
    assert found[0].share.n_effective > 0.8 * tokens.sum() > 4 * plain[0].share.n_effective
    for with_mix, without in zip(found, plain, strict=True):
        assert with_mix.share.value == pytest.approx(without.share.value)
    # Its spread is that of three binomial shares, each a third of the tokens.
    p = counts.reshape(3, -1, 2).sum(axis=1)[:, 0] / 10_000
    half = 1.96 * np.sqrt((p * (1 - p) / 10_000).sum()) / 3
    assert found[0].share.ci_high - found[0].share.ci_low == pytest.approx(2 * half, rel=0.15)
    some = slice(0, 410)  # ten documents of the last domain are too few
    alike = cold_experts(counts[some], tokens[some], 1, seed=0).experts
    few = cold_experts(counts[some], tokens[some], 1, seed=0, domains=domains[some])
    assert few.experts[0].share == alike[0].share and not few.mix_given


def test_limits_within_domains_cover_the_share_of_the_mix():
    rng, covered = np.random.default_rng(11), 0
    rates = np.repeat([[0.25], [0.01], [0.06]], 60, axis=1)
    for run in range(5):
        counts, tokens, domains = by_domain(rng, rates, spread=8)
        found = cold_experts(counts, tokens, 1, seed=run, domains=domains)
        covered += sum(
            e.share.ci_low <= rates[:, 0].mean() <= e.share.ci_high for e in found.experts
        )
    assert 0.91 <= covered / 300 <= 0.98


def test_a_conditional_expert_at_the_threshold_is_rarely_called_cold():
    rng, called = np.random.default_rng(12), 0
    rates = np.repeat([[0.002], [0.002], [0.026]], 100, axis=1)  # 0.01 of the mix
    level = [Threshold(name="t", share=0.01, times_uniform=None)]
    for run in range(6):
        counts, tokens, domains = by_domain(rng, rates, documents=60, spread=4)
        found = cold_experts(counts, tokens, 50, level, seed=run, domains=domains)
        called += sum(kind != "undecided" for kind in kinds(found, 0) if kind != "not cold")
    assert called / 600 <= 0.05


def test_dead_needs_enough_tokens_for_the_lowest_threshold():
    rng = np.random.default_rng(5)
    levels = [Threshold(name="t", share=0.002, times_uniform=None)]  # 1,500 effective tokens
    for documents, dead in ((30, False), (60, True)):
        tokens = np.full(documents, 40)
        counts = draw(rng, [0.0, 0.3, 0.3], tokens)
        found = cold_experts(counts, tokens, 1, levels, seed=0).experts[0]
        assert (found.share.n_effective >= 1500) == dead == found.dead
        assert found.share.ci_high == pytest.approx(3 / found.share.n_effective)


def test_small_samples_give_no_verdict_and_a_reason():
    rng = np.random.default_rng(6)
    few = cold_experts(draw(rng, [0.5, 0.5], np.full(19, 900)), np.full(19, 900), 1, seed=0)
    assert few.experts[0].coldness is few.experts[0].dead is few.count("cold", 0) is None
    assert "19 documents" in few.reason
    short = cold_experts(draw(rng, [0.5, 0.5], np.full(40, 7)), np.full(40, 7), 1, seed=0)
    assert short.experts[0].coldness is None and "a tenth" in short.reason
    warned = cold_experts(draw(rng, [0.5, 0.5], np.full(40, 30)), np.full(40, 30), 1, seed=0)
    assert warned.experts[0].coldness is not None and "below the minimum" in warned.caveat


@pytest.mark.parametrize(
    ("documents", "size", "share", "spread"),
    [(150, 40, 0.02, 30), (60, 64, 0.01, 5), (200, 64, 0.01, 2)],
)
def test_experts_at_the_threshold_are_rarely_called_cold(documents, size, share, spread):
    # Intervals of sparse clustered rates are too narrow: alone they err in 4 to 9 % of these.
    rng = np.random.default_rng(7)
    tokens = np.full(documents, size)
    level = [Threshold(name="t", share=share, times_uniform=None)]
    called = [
        kinds(
            cold_experts(
                draw(rng, [share] * 100, tokens, spread=spread), tokens, 2, level, seed=run
            ),
            0,
        ).count("cold")
        for run in range(10)
    ]
    assert sum(called) / 1000 <= 0.05


def test_experts_well_under_the_threshold_are_cold_where_there_is_enough_to_tell():
    rng = np.random.default_rng(9)
    tokens = np.full(200, 64)
    level = [Threshold(name="t", share=0.02, times_uniform=None)]
    counts = draw(rng, [0.005] * 30 + [0.1] * 30, tokens, spread=30)
    found = kinds(cold_experts(counts, tokens, 2, level, seed=0), 0)
    assert found[:30].count("cold") == 30


@pytest.mark.parametrize(
    ("counts", "tokens", "domains"),
    [
        ([[5, 1]], [4], None),
        ([[-1, 1]], [4], None),
        ([[1, 1]], [4, 4], None),
        ([[0, 0]], [0], None),
        ([[1, 1]], [4], ["a", "b"]),
    ],
)
def test_impossible_counts_are_refused(counts, tokens, domains):
    with pytest.raises(ValueError, match="document"):
        cold_experts(counts, tokens, 1, seed=0, domains=domains)
