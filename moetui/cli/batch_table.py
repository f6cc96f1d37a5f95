"""What a batch run ends with on standard error: the verdicts and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from moetui.suites import SuiteResult
    from moetui.suites.tables import Section

# Width where standard error is no terminal, and the widest that is still read with ease.
_WIDTH, _WIDEST = 110, 140
_STYLES = {"heading": "bold reverse", "title": "bold", "head": "bold", "note": "dim"}


def print_summary(result: SuiteResult) -> None:
    """The shorter selection of the result's sections, on standard error."""
    from rich.console import Console

    from moetui.suites.summary import summary

    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=_WIDTH)
    print_sections(console, summary(result))


def print_sections(console: Console, sections: Sequence[Section]) -> None:
    """Draw `sections` on `console`; nothing in them is read as markup."""
    from rich.text import Text

    from moetui.suites.lines import section_lines

    for section in sections:
        for line in section_lines(section, min(console.width, _WIDEST)):
            text = f" {line.text} " if line.role == "heading" else line.text
            console.print(Text(text, style=_STYLES.get(line.role, "")), soft_wrap=True)
        console.print()
