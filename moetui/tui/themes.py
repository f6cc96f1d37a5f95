"""The two themes. Panes take every colour without meaning from them, by name."""

from __future__ import annotations

from textual.theme import Theme

# A ground of the same violet as magma's dark end, so that an empty map sinks into it.
DARK = Theme(
    name="moetui-dark",
    primary="#c678b5",
    secondary="#8f8aa8",
    accent="#feae77",
    foreground="#e9e4ee",
    background="#121017",
    surface="#17141d",
    panel="#2a2535",
    success="#7fd1a0",
    warning="#f2c46d",
    error="#f1605d",
    dark=True,
    variables={
        "border": "#3a3446",
        "border-blurred": "#2f2a3a",
        "footer-key-foreground": "#feae77",
        "footer-background": "#17141d",
        "input-selection-background": "#7a2182 60%",
        "block-cursor-background": "#c678b5",
        "block-cursor-foreground": "#121017",
        "scrollbar": "#3a3446",
        "scrollbar-background": "#17141d",
        "scrollbar-corner-color": "#17141d",
    },
)

LIGHT = Theme(
    name="moetui-light",
    primary="#8a2a76",
    secondary="#6d6780",
    accent="#b5367a",
    foreground="#1d1826",
    background="#fbfafc",
    surface="#f4f2f7",
    panel="#e3dfe9",
    success="#1e7a45",
    warning="#8a5a00",
    error="#b3261e",
    dark=False,
    variables={
        "border": "#c9c3d3",
        "border-blurred": "#dad5e2",
        "footer-key-foreground": "#b5367a",
        "footer-background": "#f4f2f7",
        "input-selection-background": "#febb81 60%",
        "block-cursor-background": "#8a2a76",
        "block-cursor-foreground": "#fbfafc",
        "scrollbar": "#c9c3d3",
        "scrollbar-background": "#f4f2f7",
        "scrollbar-corner-color": "#f4f2f7",
    },
)

THEMES = {"dark": DARK, "light": LIGHT}
