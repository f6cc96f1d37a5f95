"""The prompt: one line of input that remembers what was run.

Line breaks and other control characters stand in it as signs (↵ ␛ …): they reach the model as they
were pasted, and never the terminal, which would obey them.
"""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Label

DEFAULT_PROMPT = "127 + 45 ="
_SIGNS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x09: "⇥", 0x0A: "↵", 0x7F: "␡"}
_MEANT = {ord(sign): chr(code) for code, sign in _SIGNS.items()}
# The second block of control characters has no signs, and some terminals obey it too.
_SIGNS |= dict.fromkeys(range(0x80, 0xA0), "\N{REPLACEMENT CHARACTER}")


def in_one_line(prompt: str) -> str:
    """`prompt` with a visible sign for every control character."""
    return prompt.translate(_SIGNS)


def as_meant(line: str) -> str:
    """The prompt that `in_one_line` made `line` of."""
    return line.translate(_MEANT)


class PromptInput(Input):
    """An input whose ↑ and ↓ walk through the prompts of this session."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Run"),
        Binding("up", "recall(-1)", "History"),
        Binding("down", "recall(1)", "prompt after", show=False),
    ]

    def __init__(self, value: str) -> None:
        super().__init__(
            value,
            id="prompt",
            placeholder="type a prompt, Enter runs it",
            compact=True,
        )
        self._history: list[str] = []
        self._at = 0
        self._draft = ""

    async def _on_key(self, event: events.Key) -> None:
        """Obey the input's own keys here, between the letters around them.

        Textual would look them up when the event has bubbled to the app: later letters of a burst
        would be taken in first, and ctrl+u or backspace would then delete those.
        """
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            await self.run_action(binding.action)
            event.stop()
            event.prevent_default()
            return
        await super()._on_key(event)

    def _on_paste(self, event: events.Paste) -> None:
        """Take all lines of what is pasted: Textual's input would keep the first in silence."""
        event.prevent_default()
        event.stop()
        lines = event.text.replace("\r\n", "\n").replace("\r", "\n")
        # What is copied by the line ends in a line break that nobody meant.
        self.replace(in_one_line(lines.removesuffix("\n")), *self.selection)

    @property
    def prompt(self) -> str:
        """What the model is to read."""
        return as_meant(self.value)

    def remember(self, prompt: str) -> None:
        """Add `prompt` to the history, once when it is repeated."""
        line = in_one_line(prompt)
        if not self._history or self._history[-1] != line:
            self._history.append(line)
        self._at = len(self._history)

    def action_recall(self, by: int) -> None:
        """Show the prompt before or after; below the newest one is what was being typed."""
        at = self._at + by
        if not 0 <= at <= len(self._history):
            return
        if self._at == len(self._history):
            self._draft = self.value
        self._at = at
        self.value = self._draft if at == len(self._history) else self._history[at]
        self.cursor_position = len(self.value)


class PromptBar(Horizontal):
    """The prompt input with its mark."""

    def __init__(self, value: str) -> None:
        super().__init__(id="prompt-bar")
        self._value = value
        self.border_title = "/ Prompt"

    def compose(self) -> ComposeResult:
        """The mark, then the input."""
        yield Label("❯", id="prompt-mark", markup=False)
        yield PromptInput(self._value)
