"""The terminal as moetui finds it: size, colours, characters, tmux, clipboard."""

from __future__ import annotations

import io
import locale
import os
import subprocess
import sys

from moetui.cli.doctor_report import Check

# Milliseconds that tmux may hold back an Esc before it feels slow.
_ESCAPE_TIME = 100


def terminal() -> Check:
    """Whether there is one, and how large it is."""
    from moetui.tui.layout import too_small

    kind = os.environ.get("TERM", "")
    size = _size()
    if size is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return Check(
            name="terminal",
            status="attention",
            found="none here; the explorer needs one",
            advice="without a terminal use `moetui trace` and `moetui batch`",
        )
    columns, rows = size
    found = f"{columns}×{rows}, {kind or 'TERM is not set'}"
    program = os.environ.get("TERM_PROGRAM")
    advice = None
    if kind in ("", "dumb"):
        advice = "set TERM to what the terminal is, e.g. xterm-256color"
    elif too_small(columns, rows):
        advice = "make it larger: the explorer needs 60×16, and likes 80×24 and more"
    return Check(
        name="terminal",
        status="attention" if advice else "ok",
        found=f"{found}, {program}" if program else found,
        advice=advice,
        facts={"columns": columns, "rows": rows, "term": kind, "program": program},
    )


def colours() -> Check:
    """How many colours the explorer will use, told from the environment as Textual does it."""
    from rich.console import Console

    system = Console(file=io.StringIO(), force_terminal=True).color_system
    without = bool(os.environ.get("NO_COLOR"))
    found = {"truecolor": "16 million", "256": "256", "standard": "16"}.get(system or "", "none")
    advice = None
    if system in (None, "standard"):
        advice = "if the terminal has more: export TERM=xterm-256color COLORTERM=truecolor"
    if without:
        found, advice = f"none: NO_COLOR is set (else {found})", None
    elif not os.environ.get("TERM"):
        found, advice = "not known: TERM is not set", None
    return Check(
        name="colours",
        status="attention" if advice else "ok",
        found=found,
        advice=advice,
        facts={"system": system, "no_color": without},
    )


def characters() -> Check:
    """Whether text reaches the terminal as UTF-8, which maps and bars are drawn with."""
    encoding = (sys.stderr.encoding or "none").lower()
    said = locale.setlocale(locale.LC_CTYPE, None)
    spoken = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    utf8 = "utf" in encoding
    # Python writes UTF-8 in the C locale too; tmux and ssh then still take it for ASCII.
    named = "utf" in spoken.lower().replace("-", "")
    advice = None
    if not utf8:
        advice = "export LC_ALL=C.UTF-8 (or PYTHONUTF8=1)"
    elif not named and sys.platform != "darwin":
        advice = "if lines and blocks look wrong: export LC_ALL=C.UTF-8"
    return Check(
        name="characters",
        status="attention" if advice else "ok",
        found=f"{encoding.upper()}, locale {spoken or said}",
        advice=advice,
        facts={"encoding": encoding, "locale": spoken or said},
    )


def tmux() -> Check:
    """What tmux does between the terminal and moetui, if it is there."""
    if not os.environ.get("TMUX"):
        return Check(name="tmux", status="ok", found="not inside tmux", facts={"inside": False})
    escape_time = _option("-sv", "escape-time")
    mouse = _option("-gv", "mouse")
    kind = os.environ.get("TERM", "")
    lines = []
    if "256color" not in kind:
        lines.append('set -g default-terminal "tmux-256color"')
    if escape_time.isdigit() and int(escape_time) > _ESCAPE_TIME:
        lines.append("set -s escape-time 10")
    if mouse == "off":
        lines.append("set -g mouse on")
    return Check(
        name="tmux",
        status="attention" if lines else "ok",
        found=f"{_tmux('-V') or 'inside tmux'}: Esc waits {escape_time or '?'} ms, mouse {mouse}",
        advice=f"in ~/.tmux.conf: {'; '.join(lines)}" if lines else None,
        facts={"inside": True, "escape_time_ms": escape_time, "mouse": mouse, "term": kind},
    )


def clipboard() -> Check:
    """How `y` copies: by a tool of the system, else by the terminal."""
    import pyperclip

    copy, _ = pyperclip.determine_clipboard()
    if copy:
        tool = copy.__name__.removeprefix("copy_").replace("_", " ")
        return Check(name="clipboard", status="ok", found=tool, facts={"tool": tool})
    found = "no tool of the system; `y` asks the terminal to copy (OSC 52)"
    advice = "install wl-clipboard (Wayland) or xclip (X11), unless the terminal knows OSC 52"
    if os.environ.get("TMUX") and _option("-sv", "set-clipboard") != "on":
        advice = "so that tmux passes it on, in ~/.tmux.conf: set -s set-clipboard on"
    elif os.environ.get("SSH_CONNECTION"):
        advice = "over ssh only OSC 52 reaches your machine: allow it in the terminal's settings"
    return Check(
        name="clipboard", status="attention", found=found, advice=advice, facts={"tool": None}
    )


def _size() -> tuple[int, int] | None:
    for stream in (2, 0, 1):
        try:
            size = os.get_terminal_size(stream)
        except OSError:
            continue
        if size.columns and size.lines:
            return size.columns, size.lines
    return None


def _option(kind: str, name: str) -> str:
    return _tmux("show-options", kind, name)


def _tmux(*arguments: str) -> str:
    """What tmux answers; nothing where it does not."""
    try:
        done = subprocess.run(
            ["tmux", *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
