"""What analyses may ask of a model: forward passes, with and without interventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from moetui.trace.interventions import Intervention
from moetui.trace.types import Floats, Ints, ModelInfo, Trace

Prompt = str | Sequence[int] | Ints


class Forward(Protocol):
    """A model as analyses see it; `moetui.model.Model` is one, tests drive a fake."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""

    def token_text(self, token_id: int) -> str:
        """Readable text of one token."""

    def trace(
        self,
        text_or_ids: Prompt,
        *,
        lens: int = 5,
        residuals: bool = True,
        streams: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> Trace:
        """One forward pass and what it did; options as of `moetui.model.Model.trace`."""

    def continuation(
        self,
        text_or_ids: Prompt,
        max_tokens: int,
        *,
        until: Callable[[str], bool] = lambda text: False,
    ) -> str:
        """What the model writes next, greedily: at most `max_tokens` tokens, ending before a
        token that ends the text, and as soon as `until` holds of what is written so far."""

    def nll(self, text_or_ids: Prompt, interventions: Sequence[Intervention] = ()) -> Floats:
        """float32 [T - 1], -ln P(token t | tokens before it) in nats, for t = 1 … T - 1."""

    def kl(self, text_or_ids: Prompt, interventions: Sequence[Intervention]) -> Floats:
        """float32 [T], KL(P ‖ P') in nats of the next-token distributions after every token,
        P without and P' with the interventions."""
