"""What holds for every pane."""

import asyncio
import time
import unicodedata
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.geometry import Region

from moetui.analyses.alignment import Context
from moetui.trace import Snapshot
from moetui.tui.moment import Cursor, Mode, Moment, OpenedResult
from moetui.tui.palette import Depth
from moetui.tui.panes import (
    PANES,
    ExpertDossierPane,
    LensPane,
    RoutingMapPane,
    SuitesPane,
    WhyPane,
)
from moetui.tui.panes import pane as pane_module
from moetui.tui.themes import THEMES
from tests.builders import make_model_info, make_recording, make_runs, make_snapshot
from tests.fake_dossier import make_dossier
from tests.fake_forward import make_what_if
from tests.suites.sample import make_result
from tests.tui.stage import rows, staged
from tests.tui.test_panes_text import FORBIDDEN, HOSTILE

SIZES = [(1, 1), (20, 5), (60, 16), (80, 24), (120, 40), (200, 60)]
LINKED = (RoutingMapPane, WhyPane, LensPane)
# The suites are about a result that was opened, a dossier about a corpus: neither about a run.
OF_ROUTERS = [pane for pane in PANES if pane is not SuitesPane]
OF_A_RUN = [pane for pane in OF_ROUTERS if pane is not ExpertDossierPane]
RESULT = OpenedResult("result.json", make_result())
DOSSIER = make_dossier(make_model_info())


def moment(cursor=(2, 1, 0), mode=Mode.TOKEN, runs=2, **trace):
    recording = make_recording(**trace)
    model = recording.prompt.model
    finding = make_what_if(model) if model.is_moe else None
    snapshot = make_snapshot(recording, finding=finding)
    return Moment(snapshot, Cursor(*cursor), mode, make_runs(runs, **trace), result=RESULT)


def of_pane(shown, pane_type):
    """The same with a finding of that pane's kind."""
    model = shown.snapshot.model
    if pane_type is not ExpertDossierPane or model is None or not model.is_moe:
        return shown
    return replace(shown, snapshot=replace(shown.snapshot, finding=DOSSIER))


def against(row=3, **options):
    """The same in Δ mode, with row `row` of another run kept as A."""
    shape = {k: v for k, v in options.items() if k not in ("cursor", "runs")}
    kept = Context(make_recording(seed=9, **shape), 10, row)
    return replace(moment(mode=Mode.DIFFERENCE, **options), kept=kept)


def assert_fits(pane):
    """Every row is exactly the pane's width and holds nothing that could move the cursor."""
    for y in range(pane.size.height):
        strip = pane.render_line(y)
        assert strip.cell_length == sum(cell_len(s.text) for s in strip) == pane.size.width
        assert all(segment.style is not None for segment in strip)
        assert not {c for c in strip.text if unicodedata.category(c) in FORBIDDEN}


MOMENTS = {
    "moe": moment(),
    "session": moment(mode=Mode.SESSION),
    "deep and wide": moment(cursor=(1, 60, 511), N=61, E=512, k=8, runs=1),
    "padded": moment(N=4, E=16, k=4, moe_layers=(1, 2, 3), layer_experts={2: 3}),
    "dense": moment(moe_layers=()),
    "against A": against(),
    "against A, deep and wide": against(cursor=(1, 60, 511), N=61, E=512, k=8, runs=1),
    "against A, padded": against(N=4, E=16, k=4, moe_layers=(1, 2, 3), layer_experts={2: 3}),
    "against A, dense": against(moe_layers=()),
    "against A, without parts or lens": against(with_parts=False, with_lens=False),
    "without parts or lens": moment(with_parts=False, with_lens=False),
    "one expert": moment(E=1, k=1),
    "nothing": Moment(),
    "model only": Moment(Snapshot(model=make_model_info())),
}
COMMON = {"moe", "session", "padded", "dense", "against A", "nothing"}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", [n if n in COMMON else pytest.param(n, marks=SLOW) for n in MOMENTS]
)
@pytest.mark.parametrize("pane_type", PANES)
async def test_rows_fill_the_pane_exactly_at_every_size(pane_type, name):
    pane = pane_type()
    async with staged(pane, moment=of_pane(MOMENTS[name], pane_type), size=SIZES[0]) as (_, pilot):
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert_fits(pane)


@pytest.mark.parametrize("pane_type", PANES)
@pytest.mark.parametrize("depth", [Depth.NONE, Depth.SIXTEEN])
async def test_few_colours_are_enough(pane_type, depth, monkeypatch):
    if depth is Depth.NONE:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.setattr(pane_module, "depth_of", lambda app: depth)
    for name in ("moe", "session", "deep and wide", "against A"):
        pane = pane_type()
        async with staged(pane, moment=of_pane(MOMENTS[name], pane_type)) as (app, _):
            assert pane.paint.depth is depth
            assert_fits(pane)
            app.export_screenshot()


@pytest.mark.parametrize("pane_type", PANES)
async def test_terminals_with_their_own_colours_are_fine(pane_type):
    pane = pane_type()
    async with staged(pane, moment=of_pane(MOMENTS["moe"], pane_type)) as (app, pilot):
        app.theme = "ansi-dark" if "ansi-dark" in app.available_themes else "textual-ansi"
        await pilot.pause()
        assert_fits(pane)
        app.export_screenshot()


@pytest.mark.parametrize("pane_type", PANES)
@given(tokens=st.lists(HOSTILE, min_size=6, max_size=6), cursor=st.integers(0, 5))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_hostile_tokens_neither_style_nor_move_nor_crash(pane_type, tokens, cursor):
    async def look():
        recording = make_recording(4, 2, tokens=tokens, kinds=["text", "special", "bytes"] * 2)
        lens = recording.prompt.lens
        for number, token_id in enumerate(lens.text):
            lens.text[token_id] = tokens[number % len(tokens)]
        finding = make_what_if(recording.prompt.model)
        named = tuple(
            msgspec.structs.replace(token, text=text)
            for token, text in zip(finding.next_tokens, tokens, strict=False)
        )
        finding = msgspec.structs.replace(finding, token=tokens[0], next_tokens=named)
        hostile = make_snapshot(recording, model=recording.prompt.model, finding=finding)
        pane = pane_type()
        kept = Context(recording, 6, 5 - cursor)
        opened = OpenedResult(tokens[0], make_result(tokens[1], question=tokens[2]))
        shown = Moment(hostile, Cursor(cursor, 1, 0), kept=kept, result=opened)
        if pane_type is ExpertDossierPane:
            written = [
                msgspec.structs.replace(token, text=text)
                for token, text in zip(DOSSIER.dossier.writes.tokens, tokens, strict=False)
            ]
            writes = msgspec.structs.replace(DOSSIER.dossier.writes, tokens=tuple(written))
            dossier = msgspec.structs.replace(DOSSIER.dossier, writes=writes)
            finding = replace(DOSSIER, dossier=dossier)
            shown = replace(shown, snapshot=replace(hostile, finding=finding))
        async with staged(pane, moment=shown, size=(72, 18)):
            assert_fits(pane)

    asyncio.run(look())


@pytest.mark.parametrize("pane_type", PANES)
async def test_hostile_model_names_are_plain_text(pane_type):
    model = make_model_info(
        moe_layers=(), name="[bold]\x1b[2J\u202e", lens_error="[red]\x07", num_layers=2
    )
    pane = pane_type()
    async with staged(pane, moment=Moment(Snapshot(model=model))):
        assert_fits(pane)


@pytest.mark.parametrize("size", [(150, 20), (200, 60)])
@pytest.mark.parametrize("layer", [0, 9, 23, 47])
async def test_linked_panes_show_the_same_layers_on_the_same_rows(size, layer):
    panes = [pane_type() for pane_type in LINKED]
    for pane in panes:
        pane.linked = True
    shown = moment(cursor=(2, layer, 0), N=48, E=32, k=4, moe_layers=tuple(range(1, 48)))
    async with staged(*panes, moment=shown, size=size):
        labels = [[line[:3] for line in rows(pane)[2:-1]] for pane in panes]
        assert labels[0] == labels[1] == labels[2]
        assert f"▶{layer:>2}" in labels[0]


@pytest.mark.parametrize("pane_type", LINKED)
async def test_the_wheel_moves_along_the_layers_and_stays_within_them(pane_type):
    pane = pane_type()
    async with staged(pane, moment=moment(cursor=(2, 3, 0), N=4)) as (app, pilot):
        pane._move_layer(1)
        pane._move_layer(-1)
        await pilot.pause()
        assert [move.layer for move in app.moves] == [3, 2]
        assert all(move.token is None and move.expert is None for move in app.moves)


@pytest.mark.parametrize("pane_type", PANES)
async def test_another_theme_is_taken_up(pane_type):
    pane = pane_type()
    async with staged(pane, moment=of_pane(MOMENTS["moe"], pane_type)) as (app, pilot):
        before = pane.paint.text
        app.register_theme(THEMES["light"])
        app.theme = THEMES["light"].name
        await pilot.pause()
        assert pane.paint.text != before
        drawn = {span[1] for line in pane._lines for span in line}
        assert before not in drawn


@pytest.mark.parametrize("pane_type", PANES)
async def test_what_is_exported_is_json(pane_type):
    pane = pane_type()
    async with staged(pane, moment=of_pane(MOMENTS["against A, padded"], pane_type)):
        document = msgspec.json.decode(msgspec.json.encode(pane.view))
        assert set(document) - {"type"} == set(pane.view.__struct_fields__)


@pytest.mark.parametrize("pane_type", PANES)
async def test_panes_say_what_they_are(pane_type):
    pane = pane_type()
    assert pane.title
    assert len(pane.help) > 40
    assert pane.can_focus


@pytest.mark.parametrize("pane_type", [t for t in OF_ROUTERS if t is not LensPane])
async def test_dense_models_are_told_apart_from_an_error(pane_type):
    pane = pane_type()
    async with staged(pane, moment=MOMENTS["dense"]):
        if pane.pane_id == "tokens":
            assert pane.view is not None
        else:
            text = " ".join(" ".join(rows(pane)).split())
            assert "synthetic has no routers" in text
            assert "The logit lens works." in text


async def test_the_lens_works_for_dense_models():
    pane = LensPane()
    async with staged(pane, moment=MOMENTS["dense"]):
        assert pane.view is not None
        assert "top token" in rows(pane)[1]


@pytest.mark.parametrize("pane_type", OF_A_RUN)
async def test_before_the_first_prompt_the_next_step_is_named(pane_type):
    pane = pane_type()
    async with staged(pane, moment=MOMENTS["model only"]):
        assert "Press / to type a prompt" in "\n".join(rows(pane))
        pane.show(Moment())
        assert "Press o to choose one." in "\n".join(rows(pane))


async def test_only_rows_that_changed_are_painted_again(monkeypatch):
    pane = RoutingMapPane()
    shown = moment(cursor=(2, 5, 0), N=20, E=32)
    async with staged(pane, moment=shown, size=(80, 30)) as (_, _pilot):
        painted: list[Region] = []
        monkeypatch.setattr(pane, "refresh", lambda *regions, **_: painted.extend(regions))
        pane.show(shown)
        assert painted == []
        pane.show(replace(shown, cursor=Cursor(2, 6, 0)))
        # The row left, the row entered, and the legend with its value.
        assert sorted(region.y for region in painted) == [7, 8, 29]
        painted.clear()
        pane.show(replace(shown, cursor=Cursor(2, 6, 1)))
        assert sorted(region.y for region in painted) == [1, 8, 29]


async def test_views_are_made_once_for_what_they_show():
    made = []

    class Counted(RoutingMapPane):
        def view_of(self, moment):
            made.append(moment)
            return super().view_of(moment)

    pane = Counted()
    shown = moment()
    async with staged(pane, moment=shown):
        for expert in range(5):
            pane.show(replace(shown, cursor=Cursor(2, 1, expert)))
        assert len(made) == 1
        pane.show(replace(shown, cursor=Cursor(3, 1, 0)))
        assert len(made) == 2


@pytest.mark.parametrize(("N", "E", "milliseconds"), [(48, 128, 40), (61, 512, 80)])
async def test_a_new_token_is_drawn_within_a_frame_or_so(N, E, milliseconds):
    # Loose: a guard against a widget per cell, not a benchmark.
    panes = [pane_type() for pane_type in LINKED]
    shown = moment(N=N, E=E, k=8, runs=1)
    async with staged(*panes, moment=shown, size=(200, 60)):
        took = []
        for token in (0, 1, 2, 3, 4, 5):
            started = time.process_time()
            for pane in panes:
                pane.show(replace(shown, cursor=Cursor(token, 3, 7)))
            took.append(time.process_time() - started)
        assert min(took) * 1000 < milliseconds
