"""A checkpoint's tokenizer, which is only data: nothing that it names is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moetui.errors import ModelError
from moetui.model.files import AGAIN, first_line
from moetui.model.quiet import quiet
from moetui.model.tokenizer_file import check_tokenizer_file

# Whatever alphabet a tokenizer was made for, it knows some of this.
_SAMPLE = "".join(map(chr, range(32, 127)))
# Not left open: transformers would ask on the terminal whether code may run. Chats are not held,
# so a template or a parser of tool calls that only a newer mlx-lm has does no harm.
_SETTINGS = {"trust_remote_code": False, "chat_template_type": None, "tool_parser_type": None}


def read_tokenizer(folder: Path, config: Mapping[str, Any] | None = None) -> Any:
    """mlx-lm's wrapper of the tokenizer in `folder`, which has been seen to work.

    config: as mlx-lm read it, generation_config.json included: it may name further tokens that
    end a text. Raises ModelError when it cannot be read, wants to run code, or tokenizes nothing.
    """
    from mlx_lm.utils import load_tokenizer

    if (folder / "tokenizer.json").exists():
        check_tokenizer_file(folder / "tokenizer.json")
    try:
        with quiet():
            tokenizer = load_tokenizer(folder, _SETTINGS, _endings(config or {}))
            tokenizer.get_vocab()
            ids = tokenizer.encode(_SAMPLE)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # parsers raise anything; a panic in Rust is no Exception
        raise _unreadable(folder, error) from error
    if not ids:
        raise ModelError(f"the tokenizer of {folder} makes no tokens of plain text", AGAIN)
    return tokenizer


def _endings(config: Mapping[str, Any]) -> list[int]:
    named = config.get("eos_token_id")
    return [i for i in (named if isinstance(named, list) else [named]) if type(i) is int]


def encode(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Token ids of `text`, with the special tokens that the model expects unless not `special`.

    Raises ModelError where the tokenizer itself fails on it.
    """
    try:
        with quiet():
            ids: list[int] = tokenizer.encode(text, add_special_tokens=special)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise ModelError(
            f"the tokenizer fails on this text: {first_line(error)}",
            "try another text; if none works, the model's tokenizer.json is damaged",
        ) from error
    return ids


def check_vocabulary(tokenizer: Any, rows: int, folder: Path) -> None:
    """Every token of the tokenizer has a row in an embedding of `rows`; ModelError if not.

    Tokens added later may lie beyond it as long as nothing yields them by itself (fine-tuners add
    padding): a prompt that contains one is refused when it is run.
    """
    added = set(tokenizer.added_tokens_decoder)
    own = (i for i in tokenizer.get_vocab().values() if i not in added)
    last = max([*own, *encode(tokenizer, _SAMPLE)])
    if last >= rows:
        raise ModelError(
            f"the tokenizer of {folder} uses ids up to {last:,}, its embedding has {rows:,} rows",
            "tokenizer and weights are of different models; copy or download it again",
        )


def _unreadable(folder: Path, error: BaseException) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"the tokenizer of {folder} wants to run its own code",
            "moetui runs no code from checkpoints; use a model with a tokenizer.json",
        )
    hint = AGAIN
    if isinstance(error, ImportError):
        hint = "install what it names, or use a model with a tokenizer.json"
    return ModelError(f"the tokenizer of {folder} cannot be read: {first_line(error)}", hint)
