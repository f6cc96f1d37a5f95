"""What the values of a config.json must be for any architecture, told from their names alone.

Only what is certain is refused here; what a value means to one architecture is judged by its
constructor, and by the weights, whose shapes must be those that the configuration asks for.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard, get_args, get_type_hints

from moetui.errors import ModelError
from moetui.model.config import EXPERT_KEYS, HEAD_KEYS, HIDDEN_KEYS, LAYER_KEYS, TOP_K_KEYS
from moetui.model.files import shown
from moetui.model.safetensors import Tensor

_HINT = "its config.json is damaged or of another model; copy or download it again"
# Whole numbers from 1 in every language model that has them (a list gives one a layer).
_POSITIVE = frozenset(
    (
        *HIDDEN_KEYS,
        *LAYER_KEYS,
        *HEAD_KEYS,
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
        "n_positions",
    )
)
# Counts and sizes by their names. Some use -1 for "none" or "no limit".
_COUNT = re.compile(r"(num|n)_\w+|\w+_(size|dim|heads|layers|experts|per_tok)|\w*top_?k\w*")
# Limits may be infinite.
_LIMIT = re.compile(r"limit|clip|range|max|min|cap")
_OWN_HEAD_SIZE = re.compile(r"\w*head_(dim|size)\w*|kv_channels|d_kv|\w*d_head|\w*lora_rank")
_EPSILON = re.compile(r"\w*(eps|epsilon)")
# Parts that describe another network: only its language model is loaded.
_OTHER = frozenset(("vision_config", "audio_config", "speech_config"))


def check_values(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Every value of `config`, read from `path`, is one that some network could have, and none
    asks for more than `tensors` hold.

    Raises ModelError naming the key.
    """
    for key, value in _leaves(config):
        _check_number(key, value, path)
    room = 8 * sum(tensor.nbytes for tensor in tensors.values())  # one bit a weight at least
    for part in _language_parts(config):
        _check_dimensions(part, path)
        _check_experts(part, path)
        _check_room(part, len(tensors), room, path)


def check_types(config: Mapping[str, Any], arguments: type, path: Path) -> None:
    """No text stands where `arguments`, an architecture's own class of settings, wants a number
    or a truth value: "false" would count as true. ModelError naming the key."""
    if not dataclasses.is_dataclass(arguments):
        return
    hints = get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        wanted = set(get_args(hints[field.name]) or (hints[field.name],)) - {type(None)}
        if isinstance(config.get(field.name), str) and wanted <= {int, float, bool}:
            kind = "true or false" if wanted == {bool} else "a number"
            raise _wrong(path, field.name, config[field.name], f"{kind}, not text")


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with the key that it belongs to."""
    stack: list[tuple[str, Any]] = list(config.items())
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack += value.items()
        elif isinstance(value, list):
            stack += [(key, item) for item in value]
        else:
            yield key, value


def _language_parts(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`config` and the configurations inside it, those of other networks left out."""
    stack: list[Mapping[str, Any]] = [config]
    while stack:
        part = stack.pop()
        yield {key: value for key, value in part.items() if not isinstance(value, dict)}
        stack += [v for k, v in part.items() if isinstance(v, dict) and k not in _OTHER]


def _check_number(key: str, value: Any, path: Path) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise _wrong(path, key, value, "a number")
    if isinstance(value, float) and math.isinf(value) and not _LIMIT.search(key):
        raise _wrong(path, key, value, "finite")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _wrong(path, key, value, "within 64 bits")
    if _EPSILON.fullmatch(key) and isinstance(value, int | float) and value < 0:
        raise _wrong(path, key, value, "0 or more")
    if key == "rope_theta" and isinstance(value, int | float) and value <= 0:
        raise _wrong(path, key, value, "more than 0")


def _check_dimensions(part: dict[str, Any], path: Path) -> None:
    for key, value in part.items():
        for number in value if isinstance(value, list) else [value]:
            if key in _POSITIVE and number is not None:
                if not _is_whole(number) or not 1 <= number < 2**31:
                    raise _wrong(path, key, number, "a whole number from 1")
            elif _COUNT.fullmatch(key) and _is_whole(number) and not -1 <= number < 2**31:
                raise _wrong(path, key, number, "a whole number from 0")
    hidden, heads, groups = (
        part.get(key) for key in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    if _is_whole(heads) and _is_whole(groups) and heads % groups:
        raise _wrong(path, "num_key_value_heads", groups, f"a divisor of the {heads} heads")
    own_size = any(part[key] is not None for key in part if _OWN_HEAD_SIZE.fullmatch(key))
    if _is_whole(hidden) and _is_whole(heads) and hidden % heads and not own_size:
        raise _wrong(path, "hidden_size", hidden, f"a multiple of the {heads} attention heads")


def _check_experts(part: dict[str, Any], path: Path) -> None:
    """No token may use more experts than there are."""
    experts = max((part[key] for key in EXPERT_KEYS if _is_whole(part.get(key))), default=0)
    for key in TOP_K_KEYS:
        value = part.get(key)
        if experts > 0 and _is_whole(value) and not 1 <= value <= experts:
            raise _wrong(path, key, value, f"a number of experts from 1 to {experts}")


def _check_room(part: dict[str, Any], tensors: int, room: int, path: Path) -> None:
    """No more layers than tensors, no more vocabulary and experts than the files have room for:
    a constructor builds every layer before anything compares it with the weights."""
    for key in LAYER_KEYS:
        layers = part.get(key)
        if _is_whole(layers) and layers > tensors:
            raise ModelError(
                f"{path} asks for {layers:,} layers ({key}), and the weights are {tensors:,} "
                "tensors",
                _HINT,
            )
    hidden = next((part[key] for key in HIDDEN_KEYS if key in part), 1)
    for key in (*EXPERT_KEYS, "vocab_size"):
        value = part.get(key)
        if _is_whole(value) and _is_whole(hidden) and value * hidden > room:
            raise ModelError(
                f"{path} asks for {key} = {value:,}, for which the weights are too small", _HINT
            )


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(path: Path, key: str, value: Any, wanted: str) -> ModelError:
    return ModelError(f"{path}: {shown(key)} is {shown(value)}, which must be {wanted}", _HINT)
