"""A virtual expert router learns from examples, is judged on others, and is kept in a safe file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import moetui
from moetui.analyses.linear_route import fit_route
from moetui.analyses.virtual_router import VirtualExpertRouter
from moetui.errors import MoetuiError, UsageError
from tests.fake_tasks import TaskForward

WORDS = ("red", "green", "blue")


def model(*, width: int = 8, layers: int = 8, moe: bool = True, **info: object) -> TaskForward:
    """Layer 2 holds which of the words a prompt begins with, every other layer holds noise."""

    def hidden(prompt: str) -> np.ndarray:
        rng = np.random.default_rng(list(prompt.encode()))
        streams = rng.normal(size=(layers, width))
        if prompt.split(maxsplit=1)[0] in WORDS:
            streams[2, WORDS.index(prompt.split(maxsplit=1)[0])] += 8
        return streams

    routing = tuple(range(layers)) if moe else ()
    return TaskForward(hidden=hidden, layers=layers, width=width, moe_layers=routing, **info)


def examples(first: int, last: int) -> list[tuple[str, str]]:
    return [(f"{word} {i}", word.upper()) for i in range(first, last) for word in WORDS]


def trained(**options: object) -> VirtualExpertRouter:
    router = VirtualExpertRouter(model(**options))  # type: ignore[arg-type]
    router.train(examples(0, 20))
    return router


@pytest.mark.parametrize("moe", [True, False])
def test_it_routes_prompts_by_what_the_layer_at_a_quarter_holds(moe: bool) -> None:
    router = trained(moe=moe)
    assert router.routing_layer == 2 and router.tasks == ("BLUE", "GREEN", "RED")
    shares = router.route("green 99")
    assert sum(shares.values()) == pytest.approx(1) and shares["GREEN"] > 0.9
    report = router.evaluate(examples(20, 40))
    assert report.accuracy.value == 1.0 and report.accuracy.n_documents == 60
    assert report.log_loss.value is not None and report.log_loss.value < 0.1


def test_a_layer_that_holds_nothing_of_it_does_no_better_than_chance() -> None:
    router = VirtualExpertRouter(model(), routing_layer=5)
    router.train(examples(0, 40))
    accuracy = router.evaluate(examples(40, 80)).accuracy
    assert accuracy.ci_low is not None and accuracy.ci_low < 1 / 3 < accuracy.ci_high


def test_its_probabilities_are_those_of_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 4):
        X, y = rng.normal(size=(80, 5)), rng.integers(0, classes, 80)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
        route, converged = fit_route(X, [f"t{label}" for label in y])
        assert converged and route.tasks == tuple(f"t{label}" for label in range(classes))
        np.testing.assert_allclose(route.probabilities(X), pipeline.predict_proba(X), atol=1e-9)


def test_prompts_that_it_was_trained_on_do_not_count() -> None:
    report = trained().evaluate(examples(10, 30))
    assert report.skipped == 30 and report.accuracy.n_documents == 30
    with pytest.raises(UsageError, match="no example is left"):
        trained().evaluate(examples(0, 5))


def test_the_report_says_what_was_taken_for_what() -> None:
    router = trained()
    report = router.evaluate([("red 77", "BLUE"), ("red 78", "RED"), ("blue 79", "BLUE")])
    found = {(c.task, c.routed): c.count for c in report.confusion}
    assert found == {("BLUE", "RED"): 1, ("RED", "RED"): 1, ("BLUE", "BLUE"): 1}
    assert report.accuracy.value == report.most_frequent.value == pytest.approx(2 / 3)
    assert report.accuracy.ci_low is None and "2 of 3" in (report.accuracy.caveat or "")


@pytest.mark.parametrize("moe", [True, False])
def test_what_is_saved_routes_as_before(tmp_path: Path, moe: bool) -> None:
    router, path = trained(moe=moe), tmp_path / "router.json"
    router.save(path)
    again = VirtualExpertRouter.load(path, model(moe=moe))
    # Sums of another array may differ in the last bit.
    assert again.route("red 5") == pytest.approx(router.route("red 5"), rel=1e-12)
    assert again.tasks == router.tasks and again.routing_layer == router.routing_layer
    assert again.evaluate(examples(10, 30)).skipped == 30


def test_it_is_only_loaded_onto_the_model_it_was_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    trained().save(path)
    with pytest.raises(UsageError, match="was trained on synthetic") as refused:
        VirtualExpertRouter.load(path, model(digest="f" * 16))
    assert "load the model" in refused.value.hint
    with pytest.raises(UsageError, match="has no layer 2"):
        VirtualExpertRouter.load(path, model(layers=2))
    with pytest.raises(UsageError, match="reads 8 features"):
        VirtualExpertRouter.load(path, model(width=9))


def _changed(path: Path, **changes: object) -> Path:
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, **changes}))
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b"\x80\x04]q\x00."),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text('{"format": "another"}'),
        lambda path: _changed(path, version=2),
        lambda path: _changed(path, weights="AAAA"),
        lambda path: _changed(path, weights=""),
        lambda path: _changed(path, bias=[0.0]),
        lambda path: _changed(path, tasks=["A", "A", "A"]),
        lambda path: _changed(path, tasks=[]),
        lambda path: _changed(path, hidden_size=7),
        lambda path: _changed(path, weights="f/////8A" * 32),
    ],
)
def test_a_damaged_file_is_refused_with_the_cause(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "router.json"
    trained().save(path)
    damage(path)
    with pytest.raises(UsageError, match=r"router\.json"):
        VirtualExpertRouter.load(path, model())


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(MoetuiError, match="cannot read"):
        VirtualExpertRouter.load(tmp_path / "nothing.json", model())
    with pytest.raises(MoetuiError, match="cannot write"):
        trained().save(tmp_path / "nowhere" / "router.json")


def test_what_cannot_be_learned_is_refused() -> None:
    router = VirtualExpertRouter(model())
    with pytest.raises(UsageError, match="no examples"):
        router.train([])
    with pytest.raises(UsageError, match="task 'RED'"):
        router.train([("red 1", "RED"), ("red 2", "RED")])
    for use in (lambda: router.route("red"), lambda: router.save("x"), lambda: router.evaluate([])):
        with pytest.raises(UsageError, match="not trained"):
            use()
    with pytest.raises(UsageError, match="task 'PINK'"):
        trained().evaluate([("pink 1", "PINK")])


@pytest.mark.parametrize("layer", [-1, 8])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(UsageError) as refused:
        VirtualExpertRouter(model(), routing_layer=layer)
    assert "0 to 7" in refused.value.hint


def test_a_failed_training_keeps_nothing_half_done() -> None:
    router = trained()
    before = router.route("red 3")
    with pytest.raises(UsageError):
        router.train([("red 1", "RED")])
    assert router.route("red 3") == before


def test_it_is_part_of_the_package() -> None:
    assert moetui.VirtualExpertRouter is VirtualExpertRouter


@pytest.mark.parametrize("name", ["demo", "demo-dense"])
def test_on_the_demo_models_it_tells_operations_apart_in_wordings_it_knows(name: str) -> None:
    from moetui.analyses.task_prompts import TEMPLATES, crossed_prompts

    items = crossed_prompts(8, seed=0, templates=TEMPLATES[:2])
    router = VirtualExpertRouter(moetui.load(name))
    pairs = list(dict.fromkeys(item.operands for item in items))
    router.train([(i.prompt, i.task) for i in items if i.operands in pairs[:4]])
    report = router.evaluate([(i.prompt, i.task) for i in items if i.operands in pairs[4:]])
    assert report.accuracy.ci_low is not None and report.accuracy.ci_low > 0.5


def test_what_readme_says_of_it_on_the_demo_model_is_so() -> None:
    pairs = [(a, b) for a in range(4, 24, 2) for b in (2, 3)]
    router = VirtualExpertRouter(moetui.load("demo"))
    router.train([(f"{a} {sign} {b} =", sign) for a, b in pairs for sign in "+-*/"])
    assert router.route("15 * 4 =")["*"] > 0.95
    words = {"+": "plus", "-": "minus", "*": "times", "/": "over"}
    report = router.evaluate([(f"What is {a} {words[s]} {b}?", s) for a, b in pairs for s in words])
    accuracy = report.accuracy
    assert accuracy.ci_low is not None and accuracy.ci_low < 0.25 < accuracy.ci_high
