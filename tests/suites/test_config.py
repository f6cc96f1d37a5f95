"""Configuration files: what is written reads back the same, and nothing wrong passes."""

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moetui.errors import UsageError
from moetui.suites.config import config_text, read_config
from moetui.suites.config_yaml import parsed, rendered
from tests.suites.configurable import First, suite, suites

__all__ = ["suites"]

TRICKY = [
    "yes", "null", "~", "1e3", "127", "0x7F", "12:30:45", "2020-01-01", "", " ", "- a", "a: b",
    "# no comment", "`def foo():`\n", "class Foo:\n    def", "'\"\\", "é→😀", "\x1b\x7f\x85\u2028",
    "\ufeff", "&a", "*a", "!!str", "<<", "=", "%", "x" * 300, "tab\tand\r\nreturn",
]  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(TRICKY)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | FLOATS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(value=VALUES, meaning=TEXTS, indent=st.sampled_from([0, 2]))
def test_whatever_json_can_say_reads_back_the_same(value, meaning, indent):
    above = ["suite:"] if indent else []
    text = "\n".join([*above, *rendered("name", value, meaning, indent=indent)])
    found = yaml.safe_load(text)
    assert (found["suite"] if indent else found) == {"name": value}


@pytest.fixture
def config(tmp_path, suites):
    """Reads what is written."""

    def read(text):
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(path)

    return read


def test_every_parameter_is_written_with_its_meaning_and_reads_back(config):
    words = {text: (text, "x") for text in TRICKY}
    first = suite("first_suite", {"words": words, "threshold": 1e-5, "layers": [0, 4]})
    text = config_text([first, suite("second_suite")], [("seed", 3, "of all draws")], "a command")
    found = config(text)
    assert suite("first_suite", found.parameters("first_suite")).parameters == first.parameters
    assert found.parameters("second_suite") == {"models": ["demo", "dense"], "lens": "raw"}
    assert found.options.seed == 3
    for line in ("# of all draws", "  # decoder layers (default: null)", "  layers: [0, 4]",
                 "  # which lens", '  lens: "raw"', "# What of first_suite?"):  # fmt: skip
        assert line in text.split("\n")


def test_a_file_may_set_a_few_things_and_its_models_are_for_all_suites(config):
    found = config("models: [a, b]\nfirst_suite:\n  layers: [1]\nsecond_suite:\n")
    assert found.parameters("first_suite") == {"layers": [1], "models": ["a", "b"]}
    assert found.parameters("second_suite") == {"models": ["a", "b"]}
    assert found.options.seed is msgspec.UNSET


def test_anchors_work_and_the_descriptions_reach_the_schema(config):
    found = config("first_suite:\n  words: {a: &w [x, y], b: *w}\n")
    assert found.parameters("first_suite")["words"] == {"a": ["x", "y"], "b": ["x", "y"]}
    fields = msgspec.json.schema(First)["$defs"]["First"]["properties"]
    assert fields["layers"]["description"] == "decoder layers"


BAD = {
    "unknown section": ("frist_suite:\n  a: 1", "line 1: there is no 'frist_suite'", "first_suite"),
    "unknown option": ("seed: 1\n\nnul_model: 1", "line 3: there is no 'nul_model'", "null_model"),
    "unknown parameter": (
        "first_suite:\n  documents: 3\n  layer: [1]\n",
        "line 3: first_suite has no parameter 'layer'",
        "'layers'",
    ),
    "wrong type": (
        "first_suite:\n  threshold: 0.5\n  documents: many\n",
        "line 3: first_suite.documents: expected `int`, got `str`",
        "quotes",
    ),
    "wrong type deep inside": (
        "first_suite:\n  layers:\n  - 1\n  - x\n",
        "line 4: first_suite.layers[1]: expected `int`, got `str`",
        "quotes",
    ),
    "out of bounds": ("first_suite:\n  threshold: 0\n", "line 2: first_suite.threshold", "quotes"),
    "yes is no text": (
        "second_suite:\n  models: [yes]\n",
        "line 2: second_suite.models[0]: expected `str`, got `bool`",
        "quotes",
    ),
    "a number as key": (
        "first_suite:\n  words:\n    127: [a]\n",
        "line 2: first_suite.words: expected `str`, got `int`",
        "quotes",
    ),
    "option of wrong type": ("seed: -1", "line 1: seed: expected `int` >= 0", "quotes"),
    "seed as text": ('"seed": "1"', "line 1: seed: expected `int`, got `str`", "quotes"),
    "section that is a list": ("first_suite: [1]", "line 1: first_suite is a list", "parameter"),
    "models twice": ("models: [a]\nfirst_suite:\n  models: [b]", "line 3: models are", "one of"),
    "key twice": ("seed: 1\nseed: 2\n", "line 2, column 1: 'seed' is given twice", "key"),
    "parameter twice": (
        "first_suite:\n  layers: [1]\n  layers: [2]\n",
        "line 3, column 3: 'layers' is given twice",
        "key",
    ),
    "not YAML": ("seed: [1, 2\nreport: true\n", "line 2, column 7: ", "key"),
    "tab": ("first_suite:\n\tlayers: [1]\n", "line 2, column 1: ", "key"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "line 2, column 1: a second document", "key"),
    "a list": ("- seed\n", "there is no mapping in it", "print-config"),
    "nothing": ("# seed: 1\n", "there is nothing in it", "print-config"),
    "Python object": ("seed: !!python/object:os.system []\n", "line 1, column 7: ", "key"),
    "control character": ("seed: 1\n\nwords: '\x1b'\n", "line 3: YAML forbids", ""),
    "not UTF-8": (b"seed: 1\n# \xe4\n", "line 2: not UTF-8 text (byte 0xe4)", "iconv"),
    "NaN": ("first_suite:\n  threshold: .nan\n", "line 2, column 14: .nan is no finite", "key"),
    "no such day": ("seed: 2020-13-45\n", "month must be in 1..12", "key"),
    "nested too deeply": ("seed: " + "[" * 5000, "nested too deeply", "key"),
    "not hashable": ("? [a]\n: 1\n", "line 1, column 3: found unhashable key", "key"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message", "hint"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused_with_its_place(config, text, message, hint):
    with pytest.raises(UsageError) as refused:
        config(text)
    assert message in refused.value.message and hint in refused.value.hint
    assert "c.yaml" in refused.value.message and refused.value.exit_code == 2
    assert "\n" not in refused.value.message + refused.value.hint


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "gone.yaml", tmp_path):
        with pytest.raises(UsageError, match="cannot read the configuration"):
            parsed(path)
