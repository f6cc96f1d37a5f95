"""What a result shows, in Markdown and as lines: its own numbers, and nothing that acts."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest
from markdown_it import MarkdownIt

from moetui.stats import Statistic
from moetui.suites import shortfalls
from moetui.suites.grid import grid
from moetui.suites.lines import MIN_WIDTH, section_lines, table_lines, text_of
from moetui.suites.plot import BELOW, GROUND, INTERVAL, NULL, VALUE, bar, bar_lines, legend
from moetui.suites.report import escaped, report
from moetui.suites.results import CellResult, NullVerdict, SuiteResult
from moetui.suites.sections import Own, sections
from moetui.suites.summary import summary
from moetui.suites.tables import Bars, Section, Table, Value
from moetui.suites.wording import cells, number, padded, probability, visible, wrapped
from tests.suites import sample
from tests.suites.sample import APART, DISTANCE, HOSTILE, SHARE, make_result


def rows_of(text: str, start: str) -> list[list[str]]:
    """Cells of the rows of Markdown tables whose first cell is `start`."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {start} ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_a_measure_stands_with_its_interval_and_its_size() -> None:
    row = next(r for r in rows_of(report([make_result()]), "corrected") if sample.SHARE_NAME in r)
    assert f"{SHARE.value:.3f}" in row
    assert f"[{SHARE.ci_low:.3f}, {SHARE.ci_high:.3f}]" in row
    assert "25,600" in row and "200" in row and "3,210" in row


def test_a_null_and_p_and_q_stand_beside_the_value_that_they_judge() -> None:
    row = next(r for r in rows_of(report([make_result()]), "corrected") if r[1] == "distance")
    band = f"{DISTANCE.null_mean:.3f} [{DISTANCE.null_low:.3f}, {DISTANCE.null_high:.3f}]"
    assert band in row and "0.33" in row and "0.41" in row


def test_both_verdicts_their_rules_and_why_they_differ_are_said() -> None:
    text, result = report([make_result()]), make_result()
    text = " ".join(text.split())
    for verdict in (result.verdicts[0].seed, result.verdicts[0].corrected):
        assert f"{verdict.outcome}: {verdict.statement}." in text
        assert f"rule in full: {verdict.rule}." in text
    assert result.verdicts[0].why_they_differ in text


def test_an_answer_that_random_weights_get_too_is_called_no_finding() -> None:
    result = make_result()
    verdict = result.verdicts[0]
    other = msgspec.structs.replace(verdict.corrected, outcome="H3")
    null = result.models[-1].name
    found = msgspec.structs.replace(
        result,
        null_verdicts=(
            NullVerdict(
                models=(null,), verdicts=(msgspec.structs.replace(verdict, corrected=other),)
            ),
        ),
    )
    for text in (report([found]), text_of(summary(found), 80)):
        told = " ".join(text.split())
        seed = f"{verdict.seed.label[:1].upper()}{verdict.seed.label[1:]}: with random weights"
        assert f"{seed} the answer is {verdict.seed.outcome} as well" in told
        assert f"no random weights get this answer ({verdict.corrected.outcome})." in told
    row = next(r for r in rows_of(report([found]), escaped(null)) if r[-1] == "H3")
    assert row[1] == verdict.seed.outcome


def test_what_does_not_separate_from_the_null_model_is_said_first_and_by_name() -> None:
    kept, lost = make_result().separation
    apart = tuple(
        type(s)(**{**{f: getattr(s, f) for f in s.__struct_fields__}, "verdict": verdict})
        for s, verdict in zip(
            make_result().separation, ("separates", "does not separate"), strict=True
        )
    )
    text = report([make_result(separation=apart)])
    assert "demo against random weights: 1 of 2 measures apart, 1 not apart, 0 open." in text
    rows = [row[1:] for row in rows_of(text, "corrected") if row[-1] == "not apart"]
    assert rows == [[lost.name, "not apart"]]
    table = text[text.index("what training made of it") :]
    assert table.index(lost.name) < table.index(kept.name)
    terminal = text_of(summary(make_result(separation=apart)), 80)
    missed = terminal[terminal.index("measures that do not tell training from random weights") :]
    assert f"corrected: {lost.name}" in " ".join(missed.split())
    assert kept.name not in missed
    assert f"{APART.value:.3f} [{APART.ci_low:.3f}, {APART.ci_high:.3f}]" in text


def test_the_plan_of_a_long_parameter_takes_a_row_for_each_part() -> None:
    prompts = [f"prompt {at} with some words" for at in range(5)]
    result = make_result()
    long = msgspec.structs.replace(result, parameters={"prompts": prompts, "layers": [0, 4]})
    text = report([long])
    assert [r[1] for r in rows_of(text, "layers")] == ["[0,4]"]
    for at, prompt in enumerate(prompts):
        assert [r[1] for r in rows_of(text, f"prompts[{at}]")] == [f'"{prompt}"']


def statistics_in(value: object) -> list[Statistic]:
    """Every statistic inside a result or a section."""
    if isinstance(value, Statistic):
        return [value]
    if isinstance(value, tuple):
        return [one for part in value for one in statistics_in(part)]
    fields = getattr(value, "__struct_fields__", ())
    return [one for name in fields for one in statistics_in(getattr(value, name))]


@pytest.mark.parametrize(
    "made",
    [
        sample.sanity,
        sample.source_experts,
        sample.source_heads,
        sample.causal_check,
        sample.token_identity,
        sample.contexts,
    ],
    ids=lambda made: made.__name__,
)
def test_the_readings_of_attention_router_are_shown_whole(made: Callable[[], object]) -> None:
    shown = statistics_in(sections(make_result(null=False)))
    # These two are said in words, to three digits.
    words = [getattr(made(), name, None) for name in ("reproduced", "coverage")]
    assert [one for one in statistics_in(made()) if one not in (*shown, *words)] == []


def test_the_experts_that_a_router_reads_are_named_with_how_often_they_ran() -> None:
    row = rows_of(report([make_result(null=False)]), "3")[-1]
    assert row[:2] == ["3", "E7"] and row[-1] == "1,234"
    assert "32 experts of layers 0, 3, 31 never chosen; 1 have a larger" in report([make_result()])


def test_heads_are_named_and_what_is_no_head_says_what_it_is() -> None:
    text = report([make_result(null=False)])
    named = {row[1]: row for start in "024" for row in rows_of(text, start) if len(row) == 4}
    assert named["H5"][0] == "2" and "0.087 [0.077, 0.097]" in named["H5"][2]
    assert named["no heads: whole"][0] == "0" and named["output bias"][0] == "4"
    assert "1 heads of layers 2, 4; no attention heads in layers 0, one source each" in text


def test_a_check_that_fails_is_named() -> None:
    text = report([make_result()])
    assert "logits differ in one text" in text and "3 of 4 texts" in text


def test_a_suite_adds_sections_and_checks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def checks(result: SuiteResult, model: str) -> tuple[tuple[str, Value], ...]:
        return ((f"own check of {model}", SHARE),)

    own = Own(lambda result: (Section(heading="Own section"),), checks)
    monkeypatch.setattr("moetui.suites.sections.OWN", {"new": own})
    text = report([make_result(suite="new")])
    assert "## Own section" in text and "Seed metric" not in text
    row = next(r for r in rows_of(text, "demo") if r[1] == "own check of demo")
    assert f"{SHARE.value:.3f}" in row
    # A suite that adds nothing has the general sections.
    assert "## Verdicts" in report([make_result(suite="unknown")])


def test_every_prompt_of_the_seed_can_be_read_back() -> None:
    row = next(r for r in rows_of(report([make_result()]), "“127 + 45 =”"))
    assert row[1] == "0" and "0.912" in row and "E11" in row


def test_without_a_null_model_the_report_says_what_that_leaves_open() -> None:
    text = report([make_result(null=False)])
    assert "No null model was run" in text and "null model | not run" in re.sub(" +", " ", text)


def test_a_published_value_stands_beside_ours_of_the_same_name() -> None:
    row = rows_of(report([make_result()]), "org/real")[0]
    assert row[1:3] == [sample.SHARE_NAME, "0.780"] and f"{SHARE.value:.3f}" in row


def test_what_failed_or_stayed_open_has_its_reason() -> None:
    assert "no token is in two contexts" in report([make_result()])
    assert "no token is in two contexts" in text_of(summary(make_result()), 80)


def test_a_reason_that_several_analyses_share_is_told_once() -> None:
    result = make_result()
    trained, null = (record.name for record in result.models[:2])
    analyses = [cell.analysis for cell in result.cells if cell.model == trained]

    def lacking(model: str, analysis: str, reason: str) -> CellResult:
        return CellResult(
            model=model, analysis=analysis, status="failed", reason=reason, seconds=0.0, result=None
        )

    cells = (
        *(lacking(trained, name, f"no router: {trained}") for name in analyses),
        *(lacking(null, name, f"no router: {null}") for name in analyses[1:]),
        lacking(null, analyses[0], "weights cannot be drawn"),
    )
    found = msgspec.structs.replace(
        result, cells=cells, caveats=(f"{trained}, {analyses[0]}: no router: {trained}", "other")
    )
    table, noted = tuple(shortfalls.sections(found))
    assert table.tables[0].rows == (
        (trained, "all", "failed", f"no router: {trained}"),
        (null, analyses[0], "failed", "weights cannot be drawn"),
    )
    assert noted.text == ("other",)


def test_everything_needed_to_repeat_the_run_is_in_the_report() -> None:
    text = report([make_result()])
    for told in ('["127 + 45 ="]', "[0,4]", "p1", "2.4.6", "2026-01-02T12:00:00+00:00", "3.1e-06"):
        assert told in text


def test_the_same_caveat_is_told_once_and_marked_where_it_holds() -> None:
    table = Table(
        title="t", columns=("a", "b"),
        rows=(("x", DISTANCE), ("y", DISTANCE), ("z", Statistic(value=1.5, caveat="other"))),
    )  # fmt: skip
    found = grid(table)
    assert found.notes == (f"(a) {DISTANCE.caveat}", "(b) other")
    assert [row[1] for row in found.rows] == ["0.817 (a)", "0.817 (a)", "1.500 (b)"]


def test_a_caveat_of_every_value_of_a_table_is_told_without_marks() -> None:
    table = Table(title="t", columns=("a", "b", "c"), rows=(("x", DISTANCE, DISTANCE),))
    found = grid(table)
    assert found.notes == (f"all values: {DISTANCE.caveat}",)
    assert not any("(a)" in cell for row in found.rows for cell in row)


def test_several_columns_of_statistics_keep_interval_null_and_p_in_their_cells() -> None:
    table = Table(title="t", columns=("a", "b", "c"), rows=(("x", SHARE, DISTANCE),))
    row = grid(table).rows[0]
    assert row[1] == f"{SHARE.value:.3f} [{SHARE.ci_low:.3f}, {SHARE.ci_high:.3f}]"
    assert row[2].startswith(f"{DISTANCE.value:.3f}, null {DISTANCE.null_mean:.3f} [")
    assert f"q {DISTANCE.q:.2g}" in row[2]


def test_unknown_is_never_a_number() -> None:
    row = grid(Table(title="t", columns=("a", "b"), rows=(("x", Statistic()), ("y", SHARE)))).rows[
        0
    ]
    assert set(row[1:]) == {"—"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (None, "—"),
        (1234, "1,234"),
        (2e-6, "2.0e-06"),
        (0.00132, "0.0013"),
        (0.00996, "0.010"),
        (-0.5, "-0.500"),
        (12.345, "12.35"),
        (35.0, "35"),
        (1.0, "1"),
        (0.99996, "1.000"),
        (-2.0, "-2"),
        (5.6e-271, "0"),
    ],
)
def test_numbers_read_to_two_or_three_digits(value: float | None, said: str) -> None:
    assert number(value) == said


def test_the_least_p_of_many_permutations_is_not_zero() -> None:
    assert probability(1 / 10_000) == "0.0001"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    result = make_result(HOSTILE, caveats=("x" * 300, "語" * 90))
    lines = [line for s in sections(result) for line in section_lines(s, width)]
    assert max(cells(line.text) for line in lines) <= width


def test_a_narrow_terminal_is_taken_for_the_least_width() -> None:
    lines = section_lines(Section(heading="h", text=("word " * 40,)), 10)
    assert 10 < max(len(line.text) for line in lines) <= MIN_WIDTH


def test_every_number_of_a_table_survives_80_columns() -> None:
    values = [
        Statistic(value=n / 10, ci_low=n / 10 - 0.05, ci_high=n / 10 + 0.05) for n in range(8)
    ]
    names = tuple(f"part {n} with a long name" for n in range(8))
    table = Table(title="t", columns=("layer", *names), rows=(("mean", *values),))
    text = "\n".join(line.text for line in table_lines(table, 80))
    for one in values[1:]:
        assert f"{one.value:.3f} [{number(one.ci_low)}, {number(one.ci_high)}]" in text
    # Every part of a table that was split says what its rows are.
    assert text.count("layer") == text.count("mean") > 1


def test_a_split_table_repeats_all_the_words_that_name_its_rows() -> None:
    wide = Statistic(value=0.5, ci_low=0.4, ci_high=0.6, null_mean=0.1, p=0.01)
    columns = ("definition", "measure", "A", "B", "C")
    table = Table(title="t", columns=columns, rows=(("seed", "ratio", wide, wide, wide),))
    text = "\n".join(line.text for line in table_lines(table, 80))
    assert text.count("seed") == text.count("ratio") > 1


def test_the_plot_marks_value_interval_and_null_where_they_are() -> None:
    one = Statistic(value=0.5, ci_low=0.4, ci_high=0.6, null_low=0.0, null_high=0.2)
    assert bar(one, 0.0, 1.0, 10) == NULL * 3 + GROUND + INTERVAL + VALUE + INTERVAL + GROUND * 3


def test_a_value_beyond_the_axis_is_an_arrow_at_its_end() -> None:
    assert bar(Statistic(value=-2.0), 0.0, 1.0, 10)[0] == BELOW


def test_the_legend_of_a_plot_has_only_the_signs_that_are_in_it() -> None:
    bare = Bars(title="", rows=(("a", Statistic(value=0.5)),), low=0.0, high=1.0)
    assert INTERVAL not in legend(bare) and NULL not in legend(bare) and VALUE in legend(bare)
    judged = msgspec.structs.replace(bare, rows=(("a", DISTANCE), ("b", SHARE)))
    assert INTERVAL in legend(judged) and NULL in legend(judged)


def test_prose_of_a_report_is_broken_for_a_pager() -> None:
    rows = report([make_result()]).splitlines()
    prose = [row for row in rows if not row.startswith(("|", "**", "●"))]
    assert max(map(cells, prose)) <= 100


def test_a_plot_without_a_value_says_so() -> None:
    line = bar_lines(Bars(title="t", rows=(("x", Statistic()),), low=0.0, high=1.0), 60)[0]
    assert VALUE not in line and line.endswith("—")


def test_plots_fit_100_columns_and_carry_their_numbers() -> None:
    plots = re.findall(r"```text\n(.*?)```", report([make_result()]), re.DOTALL)
    assert plots
    for plot in plots:
        assert max(cells(line) for line in plot.splitlines()) <= 100
    assert f"{SHARE.value:.3f} [{SHARE.ci_low:.3f}, {SHARE.ci_high:.3f}]" in "".join(plots)


def test_hostile_text_reaches_neither_terminal_nor_markdown() -> None:
    result = make_result(HOSTILE, question=HOSTILE, caveats=(HOSTILE,))
    for text in (report([result]), text_of(sections(result), 80)):
        assert "\x1b" not in text and "\u202e" not in text and "\\x1b" in text


def test_a_markdown_reader_finds_only_what_was_meant() -> None:
    result = make_result(HOSTILE, question=HOSTILE, caveats=(HOSTILE,))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(report([result]))
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "em_open", "code_inline"}
    assert not kinds & {"bullet_list_open", "ordered_list_open", "blockquote_open", "hr"}
    headings = [t for t in tokens if t.type == "heading_open"]
    assert len(headings) == 1 + len(sections(result))
    texts = ["".join(child.content for child in t.children or ()) for t in tokens]
    # The question, and the name in every table that has a column of models.
    assert texts.count(visible(HOSTILE)) > 5


def test_text_in_a_fence_cannot_end_it() -> None:
    assert report([make_result("```")]).count("\n```text\n") == report([make_result("```")]).count(
        "\n```\n"
    )


@pytest.mark.parametrize("text", ["# x", "- x", "1. x", "> x", "+ x", "=== x"])
def test_a_paragraph_starts_no_heading_list_or_quote(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"text\n\n{escaped(text)}")
    assert [token.type for token in tokens].count("paragraph_open") == 2
    assert tokens[-2].content.replace("\\", "") == text


def test_markdown_is_not_escaped_where_it_does_nothing() -> None:
    assert escaped("a_b [0.1, 0.2] 3 > 2 (x)") == "a_b [0.1, 0.2] 3 > 2 (x)"


@pytest.mark.parametrize("text", ["a\tb", "\u2066x", "e\u0301", "\ud800", "👍🏽", "ก็", "\x85"])
def test_visible_text_has_the_width_that_is_counted(text: str) -> None:
    from rich.cells import cell_len

    safe = visible(text)
    assert cell_len(safe) == cells(safe)
    assert cells(padded(safe, 20)) == 20 and cells(padded(safe, 1)) == 1
    safe.encode()


def test_words_longer_than_the_line_are_broken_and_none_is_lost() -> None:
    rows = wrapped("ab " + "x" * 25 + " cd", 10)
    assert max(map(len, rows)) <= 10
    assert "".join("".join(rows).split()) == "ab" + "x" * 25 + "cd"
