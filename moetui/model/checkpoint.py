"""What can be said of a checkpoint before any weight is read, so that a bad one fails clearly."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from moetui.errors import ModelError
from moetui.model.files import AGAIN, check_files, read_object, shown
from moetui.model.safetensors import Tensor, read_header
from moetui.model.supported import is_supported
from moetui.model.values import check_types, check_values

_INDEX = "model.safetensors.index.json"
# Read by mlx-lm or transformers where they exist.
_SETTINGS = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "hf_quant_config.json",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
# Weights in formats that are not read, and what to do about it.
_OTHER_WEIGHTS = {
    "*.bin": "these are pickles, which can run code: convert them to safetensors",
    "*.pt": "these are pickles, which can run code: convert them to safetensors",
    "*.pth": "these are pickles, which can run code: convert them to safetensors",
    "*.gguf": "moetui reads Hugging Face folders: get the model in safetensors format",
    "*.npz": "convert them to safetensors: mlx_lm.convert makes a folder that moetui reads",
    "adapter_model.safetensors": "this is an adapter: fuse it with its model (mlx_lm.fuse) first",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are complete and consistent as far as headers and settings tell.

    tensors: every tensor in its weight files, by its name there.
    """

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def packed(self) -> bool:
        """Whether its weights are quantised."""
        return any(name.endswith((".scales", ".qweight", "_scales")) for name in self.tensors)


def check(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`: every file and every setting has been looked at, no weight.

    Raises ModelError naming the file and what is wrong with it. The first call imports mlx.
    """
    checkpoint = look_at(folder)
    architecture(checkpoint.config, folder)
    return checkpoint


def look_at(folder: Path) -> Checkpoint:
    """`check` without mlx: all but whether the settings are of the types that the architecture
    wants. Raises ModelError as `check` does."""
    if re.search(r"[*?[\]]", str(folder)):
        raise ModelError(
            f"mlx-lm cannot open {folder}: its name has one of * ? [ ]", "rename the folder"
        )
    check_files(folder)
    config = read_object(folder / "config.json")
    if not is_supported(model_type(config, folder)):
        raise _unsupported(model_type(config, folder))
    for name in _SETTINGS:
        if (folder / name).exists():
            read_object(folder / name)
    tensors = _read_headers(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer ({' or '.join(_TOKENIZERS)})", AGAIN)
    check_values(config, tensors, folder / "config.json")
    return Checkpoint(folder, config, tensors)


def model_type(config: Mapping[str, Any], folder: Path) -> str:
    """The architecture that `config` names; ModelError for none, and for code of its own."""
    name = config.get("model_type")
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
        raise ModelError(
            f"{folder / 'config.json'} names no model_type", "give a language model's folder"
        )
    if "model_file" in config:
        raise ModelError(
            f"{folder} wants to run its own code ({shown(config['model_file'])})",
            "moetui runs no code from checkpoints; use a model that mlx-lm knows by itself",
        )
    return name


def architecture(config: Mapping[str, Any], folder: Path) -> str:
    """The mlx-lm model type that `config` asks for, with settings of the types that it wants.

    Raises ModelError when mlx-lm does not have it. The first call imports mlx.
    """
    name = model_type(config, folder)
    from mlx_lm.utils import MODEL_REMAPPING

    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            known = import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(name, name)}")
        _, arguments = known.Model, known.ModelArgs  # files beside the models have neither
    except (ImportError, AttributeError) as error:
        raise _unsupported(name) from error
    except SystemExit as error:  # how some files of mlx-lm say that they want another package
        raise ModelError(
            f"mlx-lm cannot build {name!r} here", " ".join(printed.getvalue().split())
        ) from error
    check_types(config, arguments, folder / "config.json")
    return name


def _unsupported(name: str) -> ModelError:
    return ModelError(
        f"mlx-lm does not know the architecture {name!r}",
        "a newer mlx-lm may: pip install -U mlx-lm",
    )


def in_mlx_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers writes under names that mlx-lm does not look at, under those that it does.

    transformers 5 puts the rotary settings into `rope_parameters`, calls the number of experts
    `num_local_experts` and the mixers of granitemoehybrid as in every other family, and lists
    what differs in the full-attention layers of gemma4 by layer. Without the older names mlx-lm
    would refuse the checkpoint or, worse, silently take its own defaults.
    """
    renamed = _rope(config.get("rope_parameters"))
    if "num_local_experts" in config:
        renamed["num_experts"] = config["num_local_experts"]
    by_layer = config.get("per_layer_config")
    for settings in by_layer.values() if isinstance(by_layer, dict) else ():
        renamed |= {_GLOBAL[key]: value for key, value in settings.items() if key in _GLOBAL}
    missing = {name: value for name, value in renamed.items() if config.get(name) is None}
    mixers = config.get("layer_types")
    if config.get("model_type") == "granitemoehybrid" and isinstance(mixers, list):
        missing["layer_types"] = [_MIXERS.get(mixer, mixer) for mixer in mixers]
    return missing


# What mlx-lm calls these settings of the layers that attend to everything.
_GLOBAL = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
_MIXERS = {"linear_attention": "mamba", "full_attention": "attention"}


def _rope(parameters: object) -> dict[str, Any]:
    """`rope_parameters`, where they are one set for all layers, as the older settings."""
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        return {}
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    scaled = scaling.get("rope_type", "default") != "default"
    settings = {"rope_theta": parameters["rope_theta"], "rope_scaling": scaling if scaled else None}
    if "partial_rotary_factor" in parameters:
        settings["partial_rotary_factor"] = parameters["partial_rotary_factor"]
    return settings


def _read_headers(folder: Path) -> dict[str, Tensor]:
    """All tensors of all weight files; each in one file only, and all that an index promises."""
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise _no_weights(folder)
    promised = dict(_indexed(folder))
    for shard in sorted(set(promised.values())):
        if not (folder / shard).is_file():
            raise ModelError(f"{folder} lacks {shard}, which its index names", AGAIN)
    tensors: dict[str, Tensor] = {}
    found_in: dict[str, Path] = {}
    for path in paths:
        for name, tensor in read_header(path).items():
            if name in tensors:
                raise ModelError(
                    f"{found_in[name].name} and {path.name} in {folder} both hold {shown(name)}",
                    "keep the files of one version of the model only",
                )
            tensors[name], found_in[name] = tensor, path
    if missing := promised.keys() - tensors.keys():
        raise ModelError(
            f"{folder} lacks {shown(min(missing))}, which its index names ({len(missing)} missing)",
            AGAIN,
        )
    return tensors


def _indexed(folder: Path) -> Iterator[tuple[str, str]]:
    """Every tensor that the index names, and the name of its file."""
    index = folder / _INDEX
    if not index.exists():
        return
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{index} has no weight_map", AGAIN)
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"model[\w.-]*\.safetensors", shard):
            raise ModelError(
                f"{index} names {shown(shard)}, which is no model*.safetensors file", AGAIN
            )
        yield name, shard


def _no_weights(folder: Path) -> ModelError:
    message = f"{folder} holds no model*.safetensors file"
    for pattern, hint in _OTHER_WEIGHTS.items():
        if found := sorted(folder.glob(pattern)):
            return ModelError(f"{message}, only {shown(found[0].name)[1:-1]}", hint)
    return ModelError(message, AGAIN)
