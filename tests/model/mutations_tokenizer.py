"""The rows of the table that concern the tokenizer; see `tests.model.mutations`."""

from __future__ import annotations

from tests.model.editing import TOKENIZER, TOKENIZER_CONFIG, edit_model
from tests.model.harms import (
    AUTO_MAP,
    Harm,
    cut,
    few_words,
    more_tokens,
    removed,
    together,
    tokenizer,
    tokenizer_config,
    written,
)

Row = tuple[Harm, str | None]

TOKENIZERS: dict[str, Row] = {
    "tokenizer empty": (written(TOKENIZER, ""), "not valid JSON"),
    "tokenizer an empty object": (written(TOKENIZER, "{}"), "describes no tokenizer"),
    "tokenizer a list": (written(TOKENIZER, "[]"), "describes no tokenizer"),
    "tokenizer cut short": (cut(TOKENIZER, 0.7), "not valid JSON"),
    "tokenizer not UTF-8": (written(TOKENIZER, b'{"model": "\xff"}'), "not valid JSON"),
    "tokenizer nested without end": (written(TOKENIZER, "[" * 200_000), "not valid JSON"),
    "tokenizer of an unknown kind": (
        lambda f: edit_model(f, type="Mystery"), "the tokenizer of",
    ),
    "vocabulary empty": (
        lambda f: edit_model(f, vocab={}, merges=[]), "makes no tokens of plain text",
    ),
    "vocabulary a list": (lambda f: edit_model(f, vocab=["a", "b"]), "the tokenizer of"),
    "vocabulary of four words": (few_words, None),
    "an id that is negative": (more_tokens(zzz=-1), "the tokenizer of"),
    "an id that is text": (lambda f: edit_model(f, vocab={"a": "0"}), "the tokenizer of"),
    "ids beyond the embedding": (more_tokens(zzz=4096), "ids up to 4,096"),
    "ids far beyond the embedding": (more_tokens(zzz=2**32 - 1), "ids up to 4,294,967,295"),
    "an added token beyond the embedding": (
        tokenizer(
            added_tokens=[
                {"id": 9000, "content": "[PAD]", "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": True}
            ]
        ),
        None,
    ),
    "merges of unknown tokens": (
        lambda f: edit_model(f, merges=[["qqqqqq", "zzzzzz"]]), "the tokenizer of",
    ),
    "no BOS, EOS, padding": (
        tokenizer_config(bos_token=None, eos_token=None, pad_token=None, unk_token=None), None,
    ),
    "BOS that the vocabulary lacks": (tokenizer_config(bos_token="<nowhere>"), None),
    "EOS a number": (tokenizer_config(eos_token=5), "eos_token"),
    "a template with an undefined token": (
        tokenizer(
            post_processor={
                "type": "TemplateProcessing", "pair": [], "special_tokens": {},
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
            }
        ),
        "its special_tokens lack",
    ),
    "a template that adds an id beyond the embedding": (
        tokenizer(
            post_processor={
                "type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [99_999], "tokens": ["<s>"]}},
            }
        ),
        "ids up to 99,999",
    ),
    "a normalizer that replaces nothing": (
        tokenizer(normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
        "replaces the empty text",
    ),
    "a normalizer that swells": (
        tokenizer(
            normalizer={
                "type": "Sequence",
                "normalizers": [
                    {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 10}
                ] * 9,
            }
        ),
        "one character into 1,000,000,000",
    ),
    "a broken map of characters": (
        tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "////////"}),
        "precompiled_charsmap",
    ),
    "a broken expression": (
        tokenizer(
            pre_tokenizer={
                "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False,
            }
        ),
        "the tokenizer of",
    ),
    "truncation at one token": (
        tokenizer(
            truncation={
                "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0,
            }
        ),
        None,
    ),
    "padding to a hundred million": (
        tokenizer(
            padding={
                "strategy": {"Fixed": 10**8}, "direction": "Right", "pad_to_multiple_of": None,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
            }
        ),
        None,
    ),
    "tokenizer_config a list": (written(TOKENIZER_CONFIG, "[]"), "tokenizer_config.json"),
    "tokenizer_config not JSON": (written(TOKENIZER_CONFIG, "{"), "tokenizer_config.json"),
    "special_tokens_map a list": (written("special_tokens_map.json", "[]"), "special_tokens_map"),
    "tokenizer_class unknown": (tokenizer_config(tokenizer_class="NoneSuch"), None),
    "tokenizer_class a number": (tokenizer_config(tokenizer_class=7), "the tokenizer of"),
    "a tokenizer_file elsewhere": (tokenizer_config(tokenizer_file="/etc/passwd"), None),
    "a chat template of a newer mlx-lm": (tokenizer_config(chat_template_type="newest"), None),
    "a parser of a newer mlx-lm": (tokenizer_config(tool_parser_type="newest"), None),
    "a chat template that loops for ever": (
        tokenizer_config(chat_template="{% for i in range(10**12) %}{% endfor %}"), None,
    ),
    "a tokenizer in Python": (
        together(
            tokenizer_config(tokenizer_class="OwnTokenizer", auto_map=AUTO_MAP),
            written("tokenization_own.py", "raise SystemExit('ran')"),
        ),
        None,
    ),
    "only a tokenizer in Python": (
        together(
            tokenizer_config(tokenizer_class="OwnTokenizer", auto_map=AUTO_MAP),
            written("tokenization_own.py", "raise SystemExit('ran')"), removed(TOKENIZER),
            written("tokenizer.model", b"\0"),
        ),
        "the tokenizer of",
    ),
}  # fmt: skip
