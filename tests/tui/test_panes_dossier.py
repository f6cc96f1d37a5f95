from dataclasses import replace

import msgspec
import pytest

from moetui.analyses.expert_dossier import stopped_dossier
from moetui.analyses.trigger_tokens import ExpertTriggers, TriggerToken
from moetui.stats import Statistic
from moetui.trace import Phase
from moetui.tui.layout import ORDER, plan
from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import ExpertDossierPane
from moetui.tui.screens import expert_dossier as keys
from tests.builders import make_model_info, make_recording, make_snapshot
from tests.fake_dossier import make_dossier
from tests.tui.stage import rows, staged
from tests.tui.stage_app import staged as staged_app

SIZES = [(80, 24), (120, 40), (200, 60)]
FOUND = make_dossier(make_model_info())


def moment(found=FOUND, phase=Phase.READY):
    return Moment(make_snapshot(make_recording(), finding=found, phase=phase), Cursor(1, 2, 3))


async def read_through(pane, pilot):
    """All that is on the page, from top to bottom."""
    pane.focus()
    await pilot.press(*["pageup"] * 9)
    seen = []
    for _ in range(20):
        await pilot.pause()
        seen += rows(pane)
        before = pane._top
        await pilot.press("pagedown")
        if pane._top == before:
            return " ".join(seen)
    raise AssertionError("the page has no end")


@pytest.mark.parametrize("size", [(58, 14), *SIZES])
async def test_every_claim_stands_beside_its_null(size):
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(), size=size) as (_, pilot):
        text, found = " ".join((await read_through(pane, pilot)).split()), FOUND.dossier
        assert pane.view is found
        assert f"{found.load.value:.1%}" in text and f"uniform {found.load.null_mean:.1%}" in text
        causal = found.causal
        delta = causal.delta_nll
        assert f"{delta.value:+.4f}" in text and f"p {delta.p:.3f}" in text
        assert f"{delta.null_mean:+.4f} [{delta.null_low:+.4f}, {delta.null_high:+.4f}]" in text
        assert f"{100 * found.partners[0].together.null_mean:.0f}) %" in text
        assert found.writes.tokens[0].text.strip() in text and "halves agree" in text
        assert found.load.caveat in text
        for domain in (*found.domains, *causal.domains):
            assert domain.domain in text
        assert "d dossier of E3 at L2" in text


async def test_what_is_not_in_sight_is_told_and_reached():
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(), size=(58, 14)) as (_, pilot):
        pane.focus()
        total = len(pane._rows(FOUND.dossier))
        assert total > 13 and f"1-13 of {total} rows · PgUp PgDn" in rows(pane)[-1]
        await pilot.press(*["pagedown"] * 5)
        assert f"{total - 12}-{total} of {total} rows" in rows(pane)[-1]
        other = replace(FOUND, dossier=msgspec.structs.replace(FOUND.dossier, expert=1))
        pane.show(moment(other))
        assert "1-13 of" in rows(pane)[-1] and "E1 at L0" in rows(pane)[0]
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(), size=(120, 40)):
        assert rows(pane)[-1].strip() == "d dossier of E3 at L2"


async def test_a_share_without_an_interval_and_a_tiny_probability_say_so():
    dossier = FOUND.dossier
    token = msgspec.structs.replace(dossier.writes.tokens[0], logprob=-0.5, typical=-9.0)
    writes = msgspec.structs.replace(dossier.writes, tokens=(token,))
    bare = msgspec.structs.replace(dossier.partners[0].together, ci_low=None, ci_high=None)
    partner = msgspec.structs.replace(dossier.partners[0], together=bare)
    changed = msgspec.structs.replace(dossier, writes=writes, partners=(partner,))
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(replace(FOUND, dossier=changed)), size=(120, 40)):
        text = " ".join(rows(pane))
        assert ".607 (<.001)" in text and f"{100 * bare.value:.0f} [—] (" in text


async def test_tokens_stand_in_the_order_that_their_head_tells():
    lifts = (3.25, 2.5, 1.75)
    listed = tuple(
        TriggerToken(
            token_id=at, token=f"t{at}", occurrences=12, documents=12, hits=9,
            lift=Statistic(value=lift, n_tokens=9, n_documents=9, null_mean=1.0),
        )
        for at, lift in enumerate(lifts)
    )  # fmt: skip
    experts = (ExpertTriggers(layer=0, expert=0, discovered=3, tokens=listed),)
    triggers = msgspec.structs.replace(FOUND.dossier.triggers, experts=experts)
    dossier = msgspec.structs.replace(FOUND.dossier, triggers=triggers)
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(replace(FOUND, dossier=dossier)), size=(120, 40)):
        told = rows(pane)
        head = next(y for y, row in enumerate(told) if row.startswith("tokens"))
        assert "by lift ↓" in told[head]
        for row, at, lift in zip(told[head + 1 :], range(3), lifts, strict=False):
            assert row.startswith(f"t{at} ") and f"{lift:.1f} [—]" in row


async def test_the_same_controls_are_told_once():
    causal = FOUND.dossier.causal
    other = msgspec.structs.replace(causal.matched, null_mean=causal.matched.null_mean + 1)
    for matched, told in ((causal.delta_nll, 1), (other, 2)):
        changed = msgspec.structs.replace(causal, matched=matched)
        dossier = msgspec.structs.replace(FOUND.dossier, causal=changed)
        pane = ExpertDossierPane()
        async with staged(pane, moment=moment(replace(FOUND, dossier=dossier)), size=(120, 40)):
            assert sum("experts " in row and ", p " in row for row in rows(pane)) == told


async def test_a_dossier_outlives_other_findings_but_not_its_model():
    async with staged_app((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        stage.engine.say(finding=FOUND)
        await stage.settle()
        await stage.press("d")
        stage.engine.run("another prompt", 4)
        await stage.settle()
        pane = stage.pane("dossier")
        assert pane.view is FOUND.dossier and "E0 at L0" in rows(pane)[0]
        stage.engine.load("demo")
        await stage.settle()
        assert pane.view is None


async def test_one_that_was_stopped_says_so_beside_what_it_has_measured():
    found = stopped_dossier(make_dossier(make_model_info(), at=2), seed=0)
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(found), size=(120, 40)):
        text = " ".join(" ".join(rows(pane)).split())
        assert "measuring the loss 2/4 · stopped" in rows(pane)[0]
        assert f"without it {found.dossier.causal.delta_nll.value:+.4f} [—] nats" in text
        assert "stopped after 2 of 4 documents" in text
        assert "2 documents: below a tenth of the minimum size of 200 documents" in text
        assert "within ±0.01 nats: inconclusive" in text


async def test_one_that_a_prompt_has_stopped_is_kept_with_what_it_has_measured():
    """The engine is at the prompt already when the explorer looks at it again."""
    begun = make_dossier(make_model_info(), at=1)
    left = stopped_dossier(make_dossier(make_model_info(), at=3), seed=0)
    async with staged_app((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        stage.engine.say(finding=begun, phase=Phase.STUDYING)
        await stage.settle()
        await stage.press("d")
        stage.engine.say(finding=left, left=left)
        stage.engine.run("another prompt", 4)
        await stage.settle()
        pane = stage.pane("dossier")
        assert pane.view is left.dossier and "3/4 · stopped" in rows(pane)[0]
        stage.engine.say(finding=FOUND)
        await stage.settle()
        stage.engine.run("a third", 4)
        await stage.settle()
        assert pane.view is FOUND.dossier


@pytest.mark.parametrize("size", [(80, 50), (120, 40), (200, 28)])
async def test_it_is_a_page_of_its_own_where_there_are_not_three_columns_and_two_rows(size):
    assert plan(*size, recent=["dossier"]).panes == ("dossier",)
    assert "dossier" not in plan(*size, recent=["map", "dossier"]).panes[:1]
    assert len(plan(200, 60, recent=["dossier"]).panes) == 5


async def test_on_its_way_it_says_how_far_it_is_and_that_esc_stops():
    pane, begun = ExpertDossierPane(), make_dossier(make_model_info(), at=0)
    async with staged(pane, moment=moment(begun, Phase.STUDYING)):
        assert "measuring the loss 0/4 · Esc stops" in rows(pane)[0]
        assert "the loss is not measured yet" in " ".join(rows(pane))
        pane.show(moment(begun))
        assert "measuring the loss 0/4 · stopped" in rows(pane)[0]
        reading = replace(begun, dossier=None, doing="reading documents", done=3)
        pane.show(moment(reading, Phase.STUDYING))
        assert "E0 at L0: reading documents, 3 of 4." in " ".join(" ".join(rows(pane)).split())


async def test_d_goes_there_and_then_makes_it(monkeypatch):
    asked = []
    monkeypatch.setattr(keys, "dossier_study", lambda layer, expert: asked.append((layer, expert)))
    async with staged_app((120, 40), panes=None) as stage:
        await stage.prompted()
        await stage.press("d")
        assert stage.pane("dossier").has_focus and not asked
        await stage.press("d")
        assert stage.toasts[-1].startswith("the engine is busy")
        stage.engine.finish()
        await stage.settle()
        stage.session.put(layer=3, expert=5)
        await stage.press("d")
        assert asked == [(3, 5)] and stage.engine.calls[-1] == ("study",)
        stage.engine.say(finding=FOUND, phase=Phase.STUDYING)
        await stage.settle()
        assert f"{FOUND.done}/{FOUND.of}" in stage.text
        await stage.press("escape")
        assert stage.engine.calls[-1] == ("cancel",)


def test_old_numbers_stay():
    assert ORDER[:9] == (
        "map", "why", "lens", "detail", "cold", "tokens", "compare", "what_if", "suites",
    )  # fmt: skip
    assert ORDER[9:] == ("generation", "dossier")
