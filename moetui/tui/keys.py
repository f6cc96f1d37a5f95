"""Every key of the explorer, in one table: bindings, help, palette and README are made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.binding import Binding, BindingType

from moetui.settings import SettingsError, unknown


@dataclass(frozen=True)
class Key:
    """One action and the keys that start it.

    name: how the settings call it. keys: Textual's names, separated by commas. action: what the
    explorer's screen runs. says: what it does. footer: its word in the footer, where it has one.
    in_palette: whether the command palette lists it (moving the cursor is for the hand).
    """

    name: str
    keys: str
    action: str
    says: str
    footer: str = ""
    in_palette: bool = True


@dataclass(frozen=True)
class Group:
    """Keys that belong together, under one heading."""

    title: str
    keys: tuple[Key, ...]


GROUPS: tuple[Group, ...] = (
    Group(
        "Run",
        (
            Key("prompt", "slash", "focus_prompt", "type a prompt; Enter runs it", "Prompt"),
            Key("run", "enter", "run_prompt", "run the prompt that is being typed"),
            Key("model", "o", "choose_model", "open another model", "Model"),
            Key("pause", "space", "pause", "pause the view; the run goes on", "Pause"),
            Key(
                "unwind",
                "escape",
                "unwind",
                "leave dialog, prompt, zoom; then stop what is under way",
                "Back",
            ),
        ),
    ),
    Group(
        "Cursor",
        (
            Key("token_left", "left,h", "move_token(-1)", "token before", in_palette=False),
            Key("token_right", "right,l", "move_token(1)", "token after", in_palette=False),
            Key("layer_up", "up,k", "move_layer(-1)", "layer above", in_palette=False),
            Key("layer_down", "down,j", "move_layer(1)", "layer below", in_palette=False),
            Key(
                "expert_left",
                "left_square_bracket",
                "move_expert(-1)",
                "expert before",
                in_palette=False,
            ),
            Key(
                "expert_right",
                "right_square_bracket",
                "move_expert(1)",
                "expert after",
                in_palette=False,
            ),
            Key(
                "chosen_left",
                "left_curly_bracket",
                "move_chosen(-1)",
                "chosen expert before",
                in_palette=False,
            ),
            Key(
                "chosen_right",
                "right_curly_bracket",
                "move_chosen(1)",
                "chosen expert after",
                in_palette=False,
            ),
            Key("step_back", "comma", "step(-1)", "step back in the recording", in_palette=False),
            Key(
                "step_on",
                "full_stop",
                "step(1)",
                "step on in the recording; at its end, follow the newest token",
                in_palette=False,
            ),
            Key("first", "home", "first_token", "first token", in_palette=False),
            Key("follow", "end", "follow", "newest token, and follow the run", in_palette=False),
        ),
    ),
    Group(
        "View",
        (
            Key("list_panes", "0", "list_panes", "list of panes"),
            Key("suites", "b", "suites", "go to the suites; there: choose one to run"),
            Key("generation", "g", "generation", "go to the routing over the steps of the run"),
            Key("dossier", "d", "dossier", "go to the dossier of an expert; there: make it"),
            Key("next_pane", "tab", "next_pane(1)", "next pane", in_palette=False),
            Key("previous_pane", "shift+tab", "next_pane(-1)", "pane before", in_palette=False),
            Key("maximise", "z", "maximise_pane", "maximise the pane, and back", "Zoom"),
            Key("mode", "m", "mode", "one token, Σ: all runs, Δ: difference to A", "Token/Σ/Δ"),
        ),
    ),
    Group(
        "Compare",
        (
            Key("compare", "c", "compare", "keep the token as A; then compare it with the cursor"),
            Key("keep", "C", "keep", "keep the token at the cursor as A anew"),
        ),
    ),
    Group(
        "What if",
        (
            Key("what_if", "w", "what_if", "go to what-if; there: choose what to change"),
            Key("measure", "x", "measure", "measure the change chosen last, at the cursor"),
            Key("pin", "p", "pin", "pin the expert under the cursor for what-if, or unpin it"),
        ),
    ),
    Group(
        "Take away",
        (
            Key("export_pane", "e", "export_pane", "export the pane as JSON"),
            Key("export_screen", "E", "export_screen", "export the whole screen as JSON", "Export"),
            Key("screenshot", "s", "screenshot", "screenshot as SVG"),
            Key("copy", "y", "copy_value", "copy the value under the cursor"),
        ),
    ),
    Group(
        "Help",
        (
            Key("help", "question_mark", "help", "this help", "Help"),
            Key("palette", "ctrl+p", "app.command_palette", "all commands", in_palette=False),
            Key("quit", "q", "leave", "quit", "Quit"),
        ),
    ),
)

# The digits are not remappable: they are the numbers that the panes carry on the screen.
PANE_DIGITS = "123456789"

_SHOWN = {
    "slash": "/",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "comma": ",",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "question_mark": "?",
    "escape": "Esc",
    "enter": "Enter",
    "space": "Space",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
    "home": "Home",
    "end": "End",
}


def all_keys(groups: Iterable[Group] = GROUPS) -> list[Key]:
    """Every key of every group."""
    return [key for group in groups for key in group.keys]


def shown(keys: str) -> str:
    """Keys as people read them: `left,h` is `← h`."""
    return " ".join(_SHOWN.get(key, key) for key in keys.split(","))


def remapped(remap: Mapping[str, str]) -> tuple[Group, ...]:
    """The groups with the user's keys in place of the defaults.

    Raises SettingsError for an unknown action, an empty key and a key that has two actions.
    """
    names = [key.name for key in all_keys()]
    for name in remap:
        if name not in names:
            raise SettingsError(f"[keys] has no action {name!r}", unknown(name, names))
    groups = tuple(
        Group(group.title, tuple(_with(key, remap.get(key.name)) for key in group.keys))
        for group in GROUPS
    )
    _refuse_doubles(groups)
    return groups


def changed(groups: Iterable[Group]) -> list[tuple[str, str]]:
    """(name, keys) of every action whose keys are not the default ones."""
    default = {key.name: key.keys for key in all_keys()}
    return [(key.name, key.keys) for key in all_keys(groups) if key.keys != default[key.name]]


def bindings(groups: Iterable[Group]) -> list[BindingType]:
    """Textual's bindings of `groups` and of the pane digits.

    They have priority, so that keys that arrive in a burst are obeyed in order: without it a key is
    looked at only when the widget that had the focus gets round to it, and `/` followed at once by
    a prompt would lose the prompt to whatever its letters mean. The key that runs the prompt has
    none, for the same reason: it must come after the letters that the prompt has still to take in.
    """
    made: list[BindingType] = [
        Binding(
            key.keys,
            key.action,
            key.footer or key.says,
            show=bool(key.footer),
            key_display=shown(key.keys) if key.footer else None,
            id=f"moetui.{key.name}",
            priority=key.action != "run_prompt",
        )
        for key in all_keys(groups)
    ]
    digits: list[BindingType] = [
        Binding(digit, f"show_pane({digit})", f"pane {digit}", show=False, priority=True)
        for digit in PANE_DIGITS
    ]
    return made + digits


def keys_table(groups: Iterable[Group] = GROUPS) -> list[tuple[str, str, str]]:
    """(heading, keys, what they do) of every action, for help and README."""
    rows = [(group.title, shown(key.keys), key.says) for group in groups for key in group.keys]
    at = next(i for i, row in enumerate(rows) if row[0] == "View")
    rows.insert(at, ("View", "1-9", "go to a pane by its number"))
    return rows


def _with(key: Key, keys: str | None) -> Key:
    if keys is None:
        return key
    pressed = [part.strip() for part in keys.split(",")]
    if not all(pressed):
        raise SettingsError(
            f"[keys] {key.name} names no key",
            f'as in {key.name} = "{key.keys}"; a comma itself is "comma"',
        )
    changed = ",".join(_SIGNS.get(part, part) for part in pressed)
    return Key(key.name, changed, key.action, key.says, key.footer, key.in_palette)


def _refuse_doubles(groups: Iterable[Group]) -> None:
    taken = {digit: f"pane {digit}" for digit in PANE_DIGITS}
    for key in (key for group in groups for key in group.keys):
        for pressed in key.keys.split(","):
            if pressed in taken:
                raise SettingsError(
                    f"[keys] {shown(pressed)} starts both {taken[pressed]} and {key.name}",
                    "give one of them another key",
                )
            taken[pressed] = key.name


# People write the sign; Textual wants its name.
_SIGNS = {sign: name for name, sign in _SHOWN.items() if len(sign) == 1 and sign.isascii()}
