"""What `y` copies, and how it gets to the clipboard."""

from __future__ import annotations

from textual.app import App

from moetui.tui.moment import Moment


def copy(app: App[int], text: str) -> str:
    """Copy `text` by the system's tool, else by the terminal; says which."""
    import pyperclip

    try:
        pyperclip.copy(text)
        return "the system's clipboard"
    except (pyperclip.PyperclipException, OSError):
        app.copy_to_clipboard(text)
        return "the terminal (OSC 52)"


def value_at(moment: Moment) -> str | None:
    """The values under the cursor: token, layer, expert, router logit, and weight if it ran."""
    located = moment.located
    if located is None:
        return None
    trace, row = located
    cursor = moment.cursor
    where = f"token {cursor.token} {trace.tokens[row]!r} layer {cursor.layer}"
    layers = trace.layers.tolist()
    if cursor.layer not in layers:
        return where
    at = layers.index(cursor.layer)
    logit = float(trace.router_logits[row, at, cursor.expert])
    text = f"{where} expert {cursor.expert} logit {logit:.6g}"
    chosen = trace.expert_ids[row, at].tolist()
    if cursor.expert not in chosen:
        return f"{text} not chosen"
    weight = float(trace.expert_weights[row, at, chosen.index(cursor.expert)])
    return f"{text} weight {weight:.6g}"
