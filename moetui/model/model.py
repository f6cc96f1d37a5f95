"""A loaded model: trace, lens, generate, likelihood, with and without interventions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from moetui.errors import UsageError
from moetui.model.abilities import Abilities
from moetui.model.architecture import Architecture, examine
from moetui.model.bank_reading import BankReading
from moetui.model.capture import Capture
from moetui.model.decoding import Decoding
from moetui.model.decompose import Decomposition
from moetui.model.edits import NONE, Edits
from moetui.model.expert_reading import ExpertReading
from moetui.model.head_reading import HeadReading
from moetui.model.info import model_info
from moetui.model.lens import LazyLens, Lens
from moetui.model.lens_reading import LensReading
from moetui.model.likelihood import kl, next_logits, nll
from moetui.model.prepare import Intervening
from moetui.model.probe import Probe
from moetui.model.readings import LazyReadings, make_sources, make_streams, read
from moetui.model.records import PassRecord, Want, leaving
from moetui.model.routes import Routes
from moetui.model.steering import Steering
from moetui.model.text import TokenTexts
from moetui.model.tokenizer import encode
from moetui.trace import Intervention, LensReadout, Trace

if TYPE_CHECKING:
    from moetui.model.generate import Generation
    from moetui.model.reinitialise import Initialisation

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]

# The lens reads every position while T × layers stays within this, else the last one.
LENS_LIMIT = 4096
# Longer prompts run in several passes, as mlx-lm's own prefill does.
PREFILL = 2048


class Model(LensReading, ExpertReading, HeadReading, BankReading, Steering, Decoding):
    """A model and everything that can be read from its own forward pass.

    Not safe to use from several threads at once: mlx arrays belong to the thread that made them,
    and taps are on the modules themselves while a forward runs.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        network: nn.Module,
        tokenizer: Any,
        config: dict[str, Any],
        stored_dtype: str,
        initialisation: Initialisation | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.texts = TokenTexts(tokenizer)
        architecture = examine(network)
        self.capture = Capture(network, architecture)
        probe = Probe(network, architecture, self.capture)
        self.architecture: Architecture = probe.architecture
        self.lens_reader: Lens = probe.lens
        self._decomposition: Decomposition | None = probe.decomposition
        self._ranking_signs = probe.ranking_signs
        self.info = model_info(name, folder, network, config, stored_dtype, probe, initialisation)
        abilities = Abilities(
            network,
            self.architecture,
            self.capture,
            hidden_size=probe.hidden_size,
            routing_error=probe.routing_error,
        )
        self._intervening = Intervening(abilities)
        self.before_pass: Callable[[], None] = _nothing
        self._routes = Routes(network, self.architecture, self.capture)

    def tokenize(self, text: str) -> Ids:
        """Token ids of `text`, int32 [T], with the special tokens that the model expects."""
        bos = self.tokenizer.bos_token
        special = bos is None or not text.startswith(bos)
        return np.array(encode(self.tokenizer, text, special=special), np.int32)

    def token_text(self, token_id: int) -> str:
        """Readable text of one token."""
        return self.texts.text(token_id)

    def trace(
        self,
        text_or_ids: str | Sequence[int] | Ids,
        *,
        lens: int = 5,
        residuals: bool = True,
        streams: bool = False,
        attention: bool = False,
        expert_outputs: bool = False,
        sources: Sequence[int] = (),
        interventions: Sequence[Intervention] = (),
    ) -> Trace:
        """One real forward over `text_or_ids`, and what it did.

        lens: how many top tokens the logit lens keeps for every layer, 0 for none; read at all
        positions while T × layers ≤ 4,096, else at the last (others by `Model.lens`). residuals:
        split the router logits by source. streams: keep the residual stream itself (12 bytes ×
        layers × hidden a token). attention, expert_outputs: keep these too. sources: decoder
        layers at whose routers the stream is kept by what added to it. Shapes: `Trace`.
        interventions: what the pass is made to do differently (see `intervene`).

        Raises UsageError for an empty prompt, ids outside the vocabulary, sources at a layer that
        does not route, or interventions that do not fit the model.
        """
        residuals = residuals or streams or bool(sources)
        want = Want(residuals, attention, expert_outputs, tuple(sources))
        ids = self.ids(text_or_ids)
        if unrouted := set(sources) - set(self.info.moe_layers):
            raise UsageError(
                f"layer {min(unrouted)} does not route",
                f"the routing layers are {', '.join(map(str, self.info.moe_layers)) or 'none'}",
            )
        edits = self.edits(len(ids), interventions)
        cache = make_prompt_cache(self.network)
        return self.prefill(ids, cache, want, lens=lens, streams=streams, edits=edits)

    def generate(
        self,
        text_or_ids: str | Sequence[int] | Ids,
        max_tokens: int = 32,
        *,
        lens: int = 5,
        residuals: bool = True,
        cancel: threading.Event | None = None,
        interventions: Sequence[Intervention] = (),
    ) -> Generation:
        """Trace the prompt, then generate greedily: iterate for one single-row Trace a token.

        The result's `prompt` is the prompt's trace. `cancel` is looked at between tokens. A
        generation keeps the interventions it was started with.
        """
        from moetui.model.generate import Generation

        ids = self.ids(text_or_ids)
        edits = self.edits(len(ids), interventions)
        return Generation(
            self, ids, max_tokens, Want(residuals), lens=lens, cancel=cancel, edits=edits
        )

    def intervene(self, *interventions: Intervention) -> AbstractContextManager[None]:
        """Whatever the model does inside the block is changed by `interventions`.

            with model.intervene(moetui.Drop(experts=(3,))):
                changed = model.trace("127 + 45 =")

        Blocks can be nested: inner ones add to outer ones, in that order. The network itself is
        touched only while a pass runs. Raises UsageError for what does not fit the model.
        """
        return self._intervening.block(interventions)

    @contextmanager
    def before_passes(self, look: Callable[[], None]) -> Iterator[None]:
        """Inside the block `look` is called before every pass over a text, every token of a
        generation and every step of a fit; what it raises ends whatever is under way."""
        self.before_pass = look
        try:
            yield
        finally:
            self.before_pass = _nothing

    def nll(
        self, text_or_ids: str | Sequence[int] | Ids, interventions: Sequence[Intervention] = ()
    ) -> Floats:
        """float32 [T - 1]: -ln P(token t | tokens before it) in nats, for t = 1 … T - 1.

        Raises UsageError as `trace` does.
        """
        ids = self.ids(text_or_ids)
        run = partial(self._run, self.edits(len(ids), interventions))
        return nll(ids, self.vocab_size, make_prompt_cache(self.network), run)

    def kl(
        self, text_or_ids: str | Sequence[int] | Ids, interventions: Sequence[Intervention]
    ) -> Floats:
        """float32 [T]: KL(P ‖ P') in nats of the next-token distributions after every token, P
        without and P' with `interventions` (both with those of the blocks around the call).

        Raises UsageError as `trace` does.
        """
        ids = self.ids(text_or_ids)
        both = self.edits(len(ids)), self.edits(len(ids), interventions)
        caches = make_prompt_cache(self.network), make_prompt_cache(self.network)
        runs = partial(self._run, both[0]), partial(self._run, both[1])
        return kl(ids, self.vocab_size, caches, runs)

    def next_logits(self, text_or_ids: str | Sequence[int] | Ids) -> Floats:
        """float32 [V], next-token logits after the last token, of a pass that nobody watches.

        Raises UsageError as `trace` does.
        """
        ids, cache = self.ids(text_or_ids), make_prompt_cache(self.network)
        return next_logits(ids, cache, partial(self._run, NONE), PREFILL)

    @property
    def routes_error(self) -> str | None:
        """Why `routes` cannot be asked of this architecture, None where it can."""
        return self._routes.error

    def routes(self, layer: int, streams: Floats) -> NDArray[np.int16]:
        """int16 [T, k]: the experts, in ascending order, that the router of decoder layer `layer`
        chooses for residual streams [T, H] as they stand before its norm.

        Norm, router and selection are the model's own, so that of its own streams the model's
        own choice follows. Raises ModelError where `routes_error` says why not.
        """
        return self._routes.experts(layer, streams)

    def router_scores(self, layer: int, streams: Floats) -> Floats | None:
        """float32 [T, E]: what that router's top-k is taken of for these streams, the larger the
        better, None where that is hidden. Raises ModelError as `routes` does."""
        return self._routes.scores(layer, streams)

    def edits(self, prompt_tokens: int, interventions: Sequence[Intervention] = ()) -> Edits:
        """What changes the passes over one sequence: the interventions of the blocks around the
        call, then `interventions`. Raises UsageError for what does not fit model or prompt."""
        return self._intervening.edits(prompt_tokens, interventions)

    def _run(self, edits: Edits, ids: Ids, cache: Any) -> mx.array:
        """Logits [1, T, V] of one pass, not evaluated."""
        if edits is NONE:
            self.before_pass()
            plain: mx.array = self.network(mx.array(ids)[None], cache=cache)
            return plain
        logits = self._prefill_pass(ids, cache, Want(residuals=False), edits).logits
        assert logits is not None
        return logits

    def ids(self, text_or_ids: str | Sequence[int] | Ids) -> Ids:
        """Token ids of a prompt, checked."""
        ids = (
            self.tokenize(text_or_ids)
            if isinstance(text_or_ids, str)
            else np.asarray(text_or_ids, np.int32)
        )
        if ids.ndim != 1 or len(ids) == 0:
            raise UsageError("the prompt is empty", "give at least one token")
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise UsageError(
                f"token id {int(ids.max() if ids.min() >= 0 else ids.min())} is not in the "
                f"vocabulary of {self.vocab_size:,}",
                "tokenize with this model's own tokenizer",
            )
        return ids

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.info.vocab_size

    def prefill(
        self,
        ids: Ids,
        cache: Any,
        want: Want,
        *,
        lens: int,
        streams: bool = False,
        edits: Edits = NONE,
    ) -> Trace:
        """The trace of a prompt, run into `cache` in passes of at most 2,048 tokens.

        Streams, sources and attention belong to one pass: with any of them, the prompt runs in
        one.
        """
        from moetui.trace import join

        step = len(ids) if streams or want.sources or want.attention else PREFILL
        read_all = len(ids) * len(self.architecture.layers) <= LENS_LIMIT
        parts = []
        for start in range(0, len(ids), step):
            chunk = ids[start : start + step]
            record = self._prefill_pass(chunk, cache, want, edits)
            readings = self.readings(record, want, streams=streams)
            mx.eval(*readings.arrays(), [c.state for c in cache])
            rows = np.arange(len(chunk), dtype=np.int32)
            if not read_all:
                rows = rows[-1:] if start + step >= len(ids) else rows[:0]
            read = len(rows) and lens > 0 and self.info.lens_error is None
            lensed = (
                self.read_lens(leaving(record.layers, mx.array(rows)), rows, lens) if read else None
            )
            parts.append(
                self.make_trace(chunk, readings, lensed, prompt_tokens=len(chunk), edits=edits)
            )
        return parts[0] if len(parts) == 1 else join(parts)

    def states(self, ids: Ids, rows: Ids, interventions: Sequence[Intervention] = ()) -> mx.array:
        """[P, N, H]: the residual stream after every layer at `rows` of a new pass over `ids`,
        not evaluated."""
        edits = self.edits(len(ids), interventions)
        record = self.pass_record(ids, Want(residuals=False), edits)
        return leaving(record.layers, mx.array(rows))

    def pass_record(self, ids: Ids, want: Want, edits: Edits) -> PassRecord:
        """One pass over `ids` from an empty cache, not evaluated."""
        return self._prefill_pass(ids, make_prompt_cache(self.network), want, edits)

    def _prefill_pass(self, ids: Ids, cache: Any, want: Want, edits: Edits) -> PassRecord:
        self.before_pass()
        records: list[PassRecord] = []
        with self.capture.on(want, records.append, edits):
            self.network(mx.array(ids)[None], cache=cache)
        return records[0]

    def readings(self, record: PassRecord, want: Want, *, streams: bool = False) -> LazyReadings:
        """What is wanted of one pass, in the graph."""
        return read(
            record,
            self.architecture,
            self._decomposition,
            want,
            signs=self._ranking_signs,
            streams=streams,
        )

    def lazy_lens(self, record: PassRecord, n: int) -> LazyLens | None:
        """The lens at a pass's last row, in the graph; None when not wanted or not possible."""
        if n <= 0 or self.info.lens_error is not None:
            return None
        return self.lens_reader.read(leaving(record.layers, slice(-1, None)), n)

    def make_trace(
        self,
        ids: Ids,
        readings: LazyReadings,
        lens: LensReadout | None,
        *,
        prompt_tokens: int,
        edits: Edits,
    ) -> Trace:
        """Readings in host memory, with what the model is and what the tokens read."""
        host: dict[str, Any] = readings.fetch()
        T, E = len(ids), self.info.num_experts
        routing: dict[str, Any] = {
            "router_logits": np.empty((T, 0, E), np.float32),
            "selection_scores": None,
            "expert_ids": np.empty((T, 0, self.info.top_k), np.int16),
            "expert_weights": np.empty((T, 0, self.info.top_k), np.float32),
        }
        streams = make_streams(host)
        names = self._decomposition.source_names if self._decomposition else ()
        return Trace(
            model=self.info,
            tokens=tuple(self.texts.text(int(i)) for i in ids),
            token_kinds=tuple(self.texts.kind(int(i)) for i in ids),
            token_ids=ids,
            prompt_tokens=prompt_tokens,
            interventions=edits.described,
            layers=np.array(self.info.moe_layers, np.int32),
            lens=lens,
            streams=streams,
            sources=make_sources(host, names),
            **{**routing, **host},
        )


def _nothing() -> None:
    """What is done before a pass that nobody wants to stop."""
