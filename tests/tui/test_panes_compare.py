import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from moetui.analyses.alignment import Context
from moetui.analyses.compare_contexts import compare_contexts
from moetui.stats import MIN_DOCUMENTS
from moetui.trace import Recording
from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import ComparePane
from moetui.tui.panes.compare import notes
from tests.builders import make_recording, make_runs, make_snapshot, make_trace
from tests.tui.stage import rows, staged

SIZES = [(56, 15), (78, 18), (120, 40), (200, 60)]
TOP = 4  # lines of heading


def moment(cursor=(2, 1, 0), row=4, runs=(), ids=None, **trace):
    """B at the cursor against row `row` of another run, all token ids different or `ids`."""
    kept = make_recording(seed=9, **trace).trace()
    other = np.arange(len(kept), dtype=np.int32) + 40 if ids is None else np.array(ids, np.int32)
    kept = replace(kept, token_ids=other)
    context = Context(Recording(kept), len(kept), row)
    shown = make_snapshot(make_recording(**trace))
    return Moment(shown, Cursor(*cursor), runs=runs, kept=context)


def text_of(pane):
    return " ".join(" ".join(rows(pane)).split())


@pytest.mark.parametrize("size", SIZES)
async def test_shared_experts_stand_beside_their_band(size):
    pane = ComparePane()
    async with staged(pane, moment=moment(N=6, E=32, k=4), size=size):
        for pair, line in zip(pane.view.layers, rows(pane)[TOP : TOP + 6], strict=True):
            found = re.match(r".\s*\d+ +(\d+)/(\d+)(.) +(\d+\.\d) (\d+)–(\d+)", line)
            assert found, line
            assert (int(found[1]), int(found[2])) == (len(pair.both), 4)
            assert found[3] == {"above": "↑", "below": "↓", "inside": " "}[pair.level]
            assert float(found[4]) == pytest.approx(4 * 4 / 32, abs=0.05)
            assert (int(found[5]), int(found[6])) == (pair.shared.null_low, pair.shared.null_high)


async def test_the_plot_marks_the_count_inside_or_outside_of_the_band():
    pane = ComparePane()
    same = make_trace(6, 3, 16, 4)
    ids = same.expert_ids.copy()
    ids[:, 1] = (ids[:, 1] + 8) % 16  # another layer, other experts
    runs = [Context.of(replace(same, token_ids=same.token_ids + n), 2) for n in (0, 50)]
    shown = Moment(
        make_snapshot(Recording(replace(same, expert_ids=ids))),
        Cursor(2, 0, 0),
        kept=runs[1],
    )
    async with staged(pane, moment=shown, size=(100, 30)):
        plots = [re.search(r"[━·○●]{5}", line)[0] for line in rows(pane)[TOP : TOP + 3]]
        assert plots[0] == plots[2] == "━━━━●"
        count = len(set(same.expert_ids[2, 1].tolist()) & set(ids[2, 1].tolist()))
        assert plots[1].index("○") == count and "●" not in plots[1]


@pytest.mark.parametrize("size", [(120, 40), (200, 60)])
async def test_numbers_stand_beside_their_chance_level(size):
    pane = ComparePane()
    shown = moment(cursor=(5, 1, 0), row=5, ids=[70, 1, 2, 71, 4, 5, 6, 7, 8, 9], N=6)
    async with staged(pane, moment=shown, size=size):
        heads = rows(pane)[TOP - 1]
        for name, of in (
            ("Jaccard", lambda pair: pair.overlap),
            ("weights TV", lambda pair: pair.variation),
            ("8 aligned", lambda pair: pair.aligned),
        ):
            at = heads.index(name)
            for pair, line in zip(pane.view.layers, rows(pane)[TOP : TOP + 6], strict=True):
                value, chance = re.match(r"([\d.]{4}) \(([\d.]{4})\)", line[at:]).groups()
                assert float(value) == pytest.approx(of(pair).value, abs=5.1e-4)
                assert float(chance) == pytest.approx(of(pair).null_mean, abs=5.1e-4)


async def test_lost_and_gained_experts_are_named_and_weighed_at_the_cursor():
    pane = ComparePane()
    async with staged(pane, moment=moment(cursor=(2, 3, 0), N=6), size=(160, 30)):
        pair = pane.view.layers[3]
        assert pair.lost and pair.gained
        line = rows(pane)[TOP + 3]
        assert re.findall(r"−(\d+)", line) == [str(u.expert) for u in pair.lost]
        assert re.findall(r"\+(\d+)", line) == [str(u.expert) for u in pair.gained]
        told = next(line for line in rows(pane) if line.startswith("L3  lost"))
        lost, gained = re.search(r"lost(.*?)  gained(.*?)  both", told).groups()
        assert lost.split() == [w for u in pair.lost for w in (f"E{u.expert}", f"{u.a:.2f}")]
        assert gained.split() == [w for u in pair.gained for w in (f"E{u.expert}", f"{u.b:.2f}")]


async def test_lens_tokens_are_shown_as_equal_or_not():
    pane = ComparePane()
    async with staged(pane, moment=moment(N=6), size=(120, 30)):
        for lens, line in zip(pane.view.lens, rows(pane)[TOP : TOP + 6], strict=True):
            sign = "=" if lens.same else "≠"
            one, two = lens.a.text.strip(), lens.b.text.strip()
            found = re.search(rf"·{one} +{sign} ·{two} +(>?\d+)", line)
            assert found[1] == (">5" if lens.a_in_b is None else str(lens.a_in_b))


@pytest.mark.parametrize(
    ("ids", "row", "said"),
    [
        (None, 4, "two different tokens: not one token in two contexts"),
        ([70, 71, 2, 73, 74, 75, 76, 77, 78, 79], 2, "equal token ids in two contexts"),
        ([70, 71, 72, 5, 74, 75, 76, 77, 78, 79], 3, "A's token is in B at 5"),
        (range(10), 2, "equal by construction"),
    ],
)
async def test_it_is_said_whether_the_tokens_are_equal(ids, row, said):
    pane = ComparePane()
    async with staged(pane, moment=moment(row=row, ids=ids), size=(80, 24)):
        assert said in rows(pane)[2]
        found_alike = said == "equal by construction"
        assert ("nothing to find here" in text_of(pane)) == found_alike
        if found_alike:
            assert not {"↑", "●"} & set(text_of(pane))


async def test_what_was_aligned_and_what_was_left_out_is_said():
    pane = ComparePane()
    ids = [0, 1, 72, 3, 74, 5, 6, 7, 8, 9]
    async with staged(pane, moment=moment(row=5, ids=ids), size=(120, 40)):
        assert "Aligned: 6 equal tokens at equal places (2 unequal dropped);" in text_of(pane)
        assert "2 of the common beginning left out: equal by construction" in text_of(pane)


@pytest.mark.parametrize("height", [16, 20, 24, 40])
async def test_notes_that_are_left_out_leave_a_sign(height):
    pane = ComparePane()
    async with staged(pane, moment=moment(N=8), size=(80, height)):
        text = " ".join(" ".join(rows(pane)).split())
        every = [note for note in notes(pane.view) if note not in text]
        assert bool(every) == ("…" in rows(pane)[-1])
        assert bool(every) == (height < 24)


@pytest.mark.parametrize("size", SIZES)
async def test_the_null_is_named_and_one_pair_is_no_test(size):
    pane = ComparePane()
    async with staged(pane, moment=moment(N=8), size=size):
        assert "Chance: any 4 of 16. One pair, 8 looks: no test." in text_of(pane)
    many = make_runs(MIN_DOCUMENTS + 1, N=8)
    pane = ComparePane()
    async with staged(pane, moment=moment(N=8, runs=many), size=size):
        # The newest run is B itself.
        assert "Chance: load of 20 prompts." in text_of(pane)


async def test_nothing_is_claimed_within_the_band():
    pane = ComparePane()
    async with staged(pane, moment=moment(N=8, E=64, k=2), size=(120, 40)):
        view = pane.view
        quiet = replace_levels(view, "inside")
        pane.view = quiet
        pane.draw()
        assert "No layer above chance (by chance 0.0 above)." in text_of(pane)
        assert "↑" not in text_of(pane) and "●" not in "".join(rows(pane)[TOP : TOP + 8])
        assert "no test" in text_of(pane)


def replace_levels(view, level):
    layers = [msgspec.structs.replace(pair, level=level) for pair in view.layers]
    return msgspec.structs.replace(view, layers=layers, above=0, above_expected=0.0)


async def test_layers_without_routers_keep_their_lens():
    pane = ComparePane()
    shown = moment(N=4, E=16, k=4, moe_layers=(1, 2), layer_experts={2: 6})
    async with staged(pane, moment=shown, size=(120, 30)):
        lines = rows(pane)[TOP : TOP + 4]
        assert ["dense" in line for line in lines] == [True, False, False, True]
        for lens, line in zip(pane.view.lens, lines, strict=True):
            assert f"·{lens.b.text.strip()}" in line


async def test_dense_models_are_compared_by_the_lens():
    pane = ComparePane()
    async with staged(pane, moment=moment(moe_layers=()), size=(80, 24)):
        assert "synthetic has no routing to compare; the lens is compared" in text_of(pane)
        assert "Aligned" not in text_of(pane)  # there are no experts to compare over them
        assert "shared" not in rows(pane)[TOP - 1] and "lens A" in rows(pane)[TOP - 1]


async def test_what_is_missing_is_said():
    pane = ComparePane()
    shown = moment()
    async with staged(pane, moment=replace(shown, kept=None)):
        assert "Press c to keep this token as A." in text_of(pane)
        other = make_trace(info={"digest": "f" * 16})
        pane.show(replace(shown, kept=Context.of(other, 0)))
        assert pane.view is None and "A is of another model" in text_of(pane)
        pane.show(shown)
        assert pane.view == compare_contexts(*shown.pair)
    pane = ComparePane()
    async with staged(pane, moment=moment(with_lens=False), size=(120, 40)):
        assert "Lens: the lens was not read at the token of A and B." in text_of(pane)


async def test_many_layers_scroll_with_the_cursor():
    pane = ComparePane()
    shown = moment(cursor=(2, 40, 0), N=61, E=64, k=8)
    async with staged(pane, moment=shown, size=(80, 24)):
        lines = rows(pane)[TOP:]
        assert any(line.startswith("▶40") for line in lines)
        assert any("no test" in line for line in lines)


async def test_a_click_puts_the_cursor_on_the_layer():
    pane = ComparePane()
    async with staged(pane, moment=moment(N=6)) as (app, pilot):
        await pilot.click(pane, offset=(5, TOP + 4))
        assert (app.moves[-1].layer, app.moves[-1].token) == (4, None)
        await pilot.click(pane, offset=(5, 1))
        assert len(app.moves) == 1
