"""What analyses may ask of a model: forward passes, with and without interventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from moetui.trace.bank import ExpertMatrices, ParameterCounts
from moetui.trace.contexts import ContextReadings
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

    def generated(self, text_or_ids: Prompt, max_tokens: int) -> Trace:
        """The prompt and what the model writes after it, greedily, as one trace: every row after
        `prompt_tokens` as the pass routed it that read this one token. Ends before `max_tokens`
        with a token that ends the text, which is among the rows. No lens, no parts."""

    def next_logits(self, text_or_ids: Prompt) -> Floats:
        """float32 [V], next-token logits after the last token, of a pass that nobody watches."""

    @property
    def routes_error(self) -> str | None:
        """Why `routes` cannot be asked of this model, None where it can."""

    def routes(self, layer: int, streams: Floats) -> ExpertIds:
        """int16 [T, k]: the experts, in ascending order, that the router of decoder layer `layer`
        chooses for residual streams [T, H] as they stand before its norm."""

    def router_scores(self, layer: int, streams: Floats) -> Floats | None:
        """float32 [T, E]: what the top-k of that router is taken of for such streams, the larger
        the better; None where that is hidden."""

    @property
    def expert_sources_error(self) -> str | None:
        """Why `expert_sources` cannot be asked of this model, None where it can."""

    def expert_sources(self, text_or_ids: Prompt, layer: int) -> ExpertSources:
        """What single experts of earlier layers added to the logits of the router of decoder layer
        `layer`, by a pass of its own."""

    def bank_size(self, layer: int) -> int:
        """How many experts the bank of decoder layer `layer` holds."""

    def expert_matrices(self, layer: int, experts: Sequence[int] | None = None) -> ExpertMatrices:
        """What `experts` of decoder layer `layer` (default: all) are made of, unpacked."""

    def router_matrix(self, layer: int) -> Floats:
        """float32 [E, H], the rows by which the router of decoder layer `layer` reads its input."""

    def every_expert(
        self, text_or_ids: Prompt, layers: Sequence[int], rows: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Floats]]:
        """Layer by layer, float32 [rows, E', W']: what every expert of the bank puts out for `rows`
        of the prompt (default: all), chosen or not, from what the bank was handed in one pass."""

    def parameter_counts(self) -> ParameterCounts:
        """Where the learnt numbers of the model are."""

    @property
    def head_sources_error(self) -> str | None:
        """Why `head_sources` cannot be asked of this model, None where it can."""

    def head_sources(self, text_or_ids: Prompt, layer: int) -> HeadSources:
        """What single attention heads, up to the router of decoder layer `layer`, added to its
        logits, by a pass of its own."""

    def read_contexts(
        self,
        contexts: Ints,
        position: int,
        *,
        output: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> ContextReadings:
        """Contexts int32 [B, T] as the model routes them at `position`, and with `output` what it
        expects after it."""

    @property
    def router_gradient_error(self) -> str | None:
        """Why `router_gradient` and `token_scores` cannot be asked of this model, None where they
        can."""

    def router_gradient(
        self,
        text_or_ids: Prompt,
        layer: int,
        expert: int,
        position: int,
        *,
        against: int | None = None,
    ) -> Floats:
        """float32 [T, H]: the gradient of a router logit (less that of another expert) at one
        position with respect to the embeddings of the tokens."""

    def token_scores(self, gradient: Floats) -> Floats:
        """float32 [T, V]: inner products of gradients [T, H] with every token's embedding."""

    @property
    def router_slope_error(self) -> str | None:
        """Why `router_slope` cannot be asked of this model, None where it can."""

    def router_slope(self, layer: int, stream: Floats) -> tuple[Floats, Floats]:
        """Router logits [E] of a decoder layer for a stream [H] before its norm, and their slope
        [E, H] with the norm's scale frozen."""

    @property
    def quantised_error(self) -> str | None:
        """Why `quantised` cannot be asked of this model, None where it can."""

    def quantised(self, bits: int) -> AbstractContextManager[None]:
        """Inside the block every pass runs with weights rounded to `bits` bits."""

    def nll(self, text_or_ids: Prompt, interventions: Sequence[Intervention] = ()) -> Floats:
        """float32 [T - 1], -ln P(token t | tokens before it) in nats, for t = 1 … T - 1."""

    def kl(self, text_or_ids: Prompt, interventions: Sequence[Intervention]) -> Floats:
        """float32 [T], KL(P ‖ P') in nats of the next-token distributions after every token,
        P without and P' with the interventions."""
