"""The user's settings: one TOML file in the platform's folder, all of it optional."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

from moetui.errors import UsageError

Theme = Literal["dark", "light"]
MAX_TOKENS_LIMIT = 100_000
_MODELS = "~/models"


class SettingsError(UsageError):
    """The settings file cannot be read or says something that moetui does not know."""


@dataclass(frozen=True)
class Settings:
    """What the user may set.

    export_dir: where exports and screenshots go; None is the working directory.
    theme: "dark" or "light".
    max_tokens: how many tokens a prompt generates.
    model_folders: where models are looked for besides the Hugging Face cache, one and two levels
    deep.
    keys: action → keys, as `{"quit": "ctrl+x"}`; see `moetui.tui.keys`.
    source: the file that was read, for messages; None when there was none.
    """

    export_dir: Path | None = None
    theme: Theme = "dark"
    max_tokens: int = 32
    model_folders: tuple[Path, ...] = field(default_factory=lambda: (_folder(_MODELS),))
    keys: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None


def settings_path() -> Path:
    """Where the settings are: `$MOETUI_SETTINGS`, else the platform's configuration folder."""
    named = os.environ.get("MOETUI_SETTINGS")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_config_path

    return user_config_path("moetui", appauthor=False) / "settings.toml"


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings at `path` (`settings_path()` by default); a missing file means defaults.

    Raises SettingsError, whose message names the file and the line.
    """
    path = settings_path() if path is None else path
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(
            f"cannot read the settings {path}: {reason}", "mend or delete that file"
        ) from error
    return _checked(_parsed(text, path), text, path)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def unknown(word: str, known: Iterable[str]) -> str:
    """The hint for an unknown word: the nearest known one, or all of them."""
    names = sorted(known)
    close = nearest(word, names)
    return f"did you mean {close!r}?" if close else f"known are: {', '.join(names)}"


def _parsed(text: str, path: Path) -> dict[str, Any]:
    import tomlkit
    from tomlkit.exceptions import ParseError

    try:
        return tomlkit.parse(text).unwrap()
    except ParseError as error:
        raise SettingsError(
            f"{path}, line {error.line}: this is not TOML ({_reason(error)})",
            'write settings as in theme = "light"',
        ) from error


def _reason(error: Exception) -> str:
    return str(error).partition(" at line ")[0]


def _checked(table: Mapping[str, Any], text: str, path: Path) -> Settings:
    known = ("export_dir", "theme", "max_tokens", "model_folders", "keys")

    def refuse(key: str, what: str, hint: str) -> SettingsError:
        return SettingsError(f"{path}{_line_of(key, text)}: {what}", hint)

    for key in table:
        if key not in known:
            raise refuse(key, f"unknown setting {key!r}", unknown(key, known))
    folder = table.get("export_dir")
    if folder is not None and not (isinstance(folder, str) and folder):
        raise refuse("export_dir", "export_dir must be text", 'as in export_dir = "~/moetui"')
    theme = table.get("theme", "dark")
    if theme not in get_args(Theme):
        raise refuse("theme", f"theme cannot be {theme!r}", 'it is "dark" or "light"')
    max_tokens = table.get("max_tokens", 32)
    if not _is_count(max_tokens):
        raise refuse(
            "max_tokens",
            f"max_tokens cannot be {max_tokens!r}",
            f"it is a whole number from 0 to {MAX_TOKENS_LIMIT}",
        )
    folders = table.get("model_folders", [_MODELS])
    if not _are_texts(folders):
        raise refuse(
            "model_folders",
            "model_folders must be a list of folders",
            f'as in model_folders = ["{_MODELS}"]; [] looks nowhere',
        )
    keys = table.get("keys", {})
    if not isinstance(keys, Mapping):
        raise refuse("keys", "keys must be a table", 'as in [keys] and below it quit = "ctrl+x"')
    for action, pressed in keys.items():
        if not isinstance(pressed, str):
            raise refuse(action, f"the keys of {action!r} must be text", f'as in {action} = "f5"')
    return Settings(
        export_dir=None if folder is None else _folder(folder),
        theme=theme,
        max_tokens=max_tokens,
        model_folders=tuple(map(_folder, folders)),
        keys=dict(keys),
        source=path,
    )


def _folder(name: str) -> Path:
    """The folder of that name; `~` is home, and a `~nobody` that is unknown stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # there is no such user
        return Path(name)


def _is_count(value: object) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return 0 <= value <= MAX_TOKENS_LIMIT


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _line_of(key: str, text: str) -> str:
    """`, line N` of the first line that sets or opens `key`, empty where it is not found."""
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip().lstrip("[").strip("\"' ")
        if bare.startswith(key):
            return f", line {number}"
    return ""
