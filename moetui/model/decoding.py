"""The part of a model that writes on, and says how every token it wrote was routed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moetui.trace import Trace, join

Ids = NDArray[np.int32]


class Steps(Protocol):
    """A generation, as `moetui.model.generate.Generation`."""

    @property
    def prompt(self) -> Trace:
        """The trace of the prompt."""

    def __iter__(self) -> Iterator[Trace]:
        """A row for every token after it."""


class Decoding(ABC):
    """What `moetui.model.Model` says of texts that it writes itself."""

    tokenizer: Any

    @abstractmethod
    def generate(
        self, text_or_ids: str | Sequence[int] | Ids, max_tokens: int, *, lens: int, residuals: bool
    ) -> Steps:
        """The prompt traced, then a step for every token."""

    def generated(self, text_or_ids: str | Sequence[int] | Ids, max_tokens: int) -> Trace:
        """The prompt and at most `max_tokens` tokens that the model writes after it, greedily, as
        one trace without lens and parts.

        Rows from `prompt_tokens` on are as the pass routed them that read this one token, from
        the cache. A token that ends the text is the last row. Raises UsageError as `trace` does.
        """
        generation = self.generate(text_or_ids, max_tokens, lens=0, residuals=False)
        return join([generation.prompt, *generation])

    def continuation(
        self,
        text_or_ids: str | Sequence[int] | Ids,
        max_tokens: int,
        *,
        until: Callable[[str], bool] = lambda text: False,
    ) -> str:
        """What the model writes next, greedily, as text: at most `max_tokens` tokens, ending
        before a token that ends the text, and as soon as `until` holds of the text so far.

        Raises UsageError as `trace` does.
        """
        written: list[int] = []
        text = ""
        for step in self.generate(text_or_ids, max_tokens, lens=0, residuals=False):
            token = int(step.token_ids[0])
            if token in self.tokenizer.eos_token_ids:
                break
            written.append(token)
            text = self.tokenizer.decode(written)
            if until(text):
                break
        return text
