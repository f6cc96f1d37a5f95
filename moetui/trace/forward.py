"""What analyses may ask of a model: forward passes, with and without interventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from moetui.trace.expert_sources import ExpertSources
from moetui.trace.head_sources import HeadSources
from moetui.trace.interventions import Intervention
from moetui.trace.lenses import TunedLens, WordReadout
from moetui.trace.types import ExpertIds, Floats, Ints, ModelInfo, Trace

Prompt = str | Sequence[int] | Ints


class Forward(Protocol):
    """A model as analyses see it; `moetui.model.Model` is one, tests drive a fake."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""

    def token_text(self, token_id: int) -> str:
        """Readable text of one token."""

    def tokenize(self, text: str) -> Ints:
        """Token ids of `text`, int32 [T]."""

    def token_id(self, text: str) -> int | None:
        """The token that reads exactly as `text`, None where no single one does."""

    def read_words(
        self,
        streams: Floats,
        token_ids: Sequence[int] | Ints,
        *,
        layers: Sequence[int] | None = None,
        tuned: TunedLens | None = None,
        in_full: bool = False,
    ) -> WordReadout:
        """What the lens gives to `token_ids` for rows of `Trace.streams.leaving`, raw or through
        the translators of `tuned`, after `layers` (default: all); ranks and KL only in full."""

    def fit_tuned_lens(
        self, documents: Sequence[Prompt], held_out: Sequence[Prompt], *, seed: int
    ) -> TunedLens:
        """Translators fitted to `documents`, each stopped by what helps on `held_out`."""

    def trace(
        self,
        text_or_ids: Prompt,
        *,
        lens: int = 5,
        residuals: bool = True,
        streams: bool = False,
        attention: bool = False,
        expert_outputs: bool = False,
        sources: Sequence[int] = (),
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

    def next_logits(self, text_or_ids: Prompt) -> Floats:
        """float32 [V], next-token logits after the last token, of a pass that nobody watches."""

    @property
    def routes_error(self) -> str | None:
        """Why `routes` cannot be asked of this model, None where it can."""

    def routes(self, layer: int, streams: Floats) -> ExpertIds:
        """int16 [T, k]: the experts, in ascending order, that the router of decoder layer `layer`
        chooses for residual streams [T, H] as they stand before its norm."""

    @property
    def expert_sources_error(self) -> str | None:
        """Why `expert_sources` cannot be asked of this model, None where it can."""

    def expert_sources(self, text_or_ids: Prompt, layer: int) -> ExpertSources:
        """What single experts of earlier layers added to the logits of the router of decoder layer
        `layer`, by a pass of its own."""

    @property
    def head_sources_error(self) -> str | None:
        """Why `head_sources` cannot be asked of this model, None where it can."""

    def head_sources(self, text_or_ids: Prompt, layer: int) -> HeadSources:
        """What single attention heads, up to the router of decoder layer `layer`, added to its
        logits, by a pass of its own."""

    def nll(self, text_or_ids: Prompt, interventions: Sequence[Intervention] = ()) -> Floats:
        """float32 [T - 1], -ln P(token t | tokens before it) in nats, for t = 1 … T - 1."""

    def kl(self, text_or_ids: Prompt, interventions: Sequence[Intervention]) -> Floats:
        """float32 [T], KL(P ‖ P') in nats of the next-token distributions after every token,
        P without and P' with the interventions."""
