from dataclasses import replace

import pytest

from moetui.trace import Phase
from moetui.tui.layout import ORDER
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


@pytest.mark.parametrize("size", SIZES)
async def test_every_claim_stands_beside_its_null(size):
    pane = ExpertDossierPane()
    async with staged(pane, moment=moment(), size=size):
        text, found = " ".join(" ".join(rows(pane)).split()), FOUND.dossier
        assert pane.view is found
        assert f"{found.load.value:.1%}" in text and f"uniform {found.load.null_mean:.1%}" in text
        delta = found.causal.delta_nll
        assert f"{delta.value:+.4f}" in text and f"p {delta.p:.3f}" in text
        assert f"{delta.null_mean:+.4f} [{delta.null_low:+.4f}, {delta.null_high:+.4f}]" in text
        assert f"{100 * found.partners[0].together.null_mean:.0f}) %" in text
        assert found.writes.tokens[0].text.strip() in text and "halves agree" in text
        assert "d dossier of E3 at L2" in text


async def test_on_its_way_it_says_how_far_it_is_and_that_esc_stops():
    pane, begun = ExpertDossierPane(), make_dossier(make_model_info(), finished=False)
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
