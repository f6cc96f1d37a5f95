"""A model that reads texts, for the arithmetic of moe_routing_correlation: what it writes and what
its residual stream holds are given by functions of the prompt, so that every outcome is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.trace import Intervention, Prompt, Streams, Trace
from tests.builders import make_model_info, make_trace

Numbers = NDArray[np.float64]


class TaskForward:
    """Implements what these analyses ask of `Forward`.

    writes: prompt → the whole continuation; a token is one character. hidden: prompt → [N, H],
    the residual stream of the last token after every layer; zeros by default. logits: prompt →
    [L, E]; zeros by default. Tokens are the words of the prompt.
    """

    def __init__(
        self,
        *,
        writes: Callable[[str], str] = lambda prompt: "",
        hidden: Callable[[str], Numbers] | None = None,
        logits: Callable[[str], Numbers] | None = None,
        layers: int = 4,
        width: int = 8,
        experts: int = 6,
        k: int = 2,
        moe_layers: Sequence[int] | None = None,
        **info: Any,
    ) -> None:
        self.info = make_model_info(
            num_layers=layers, num_experts=experts, top_k=k, moe_layers=moe_layers,
            hidden_size=width, **info,
        )  # fmt: skip
        self._writes = writes
        self._hidden = hidden or (lambda prompt: np.zeros((layers, width)))
        routing = len(self.info.moe_layers)
        self._logits = logits or (lambda prompt: np.zeros((routing, experts)))
        self.vocabulary: dict[str, int] = {}
        self.prompts: list[str] = []

    def trace(
        self,
        text_or_ids: Prompt,
        *,
        lens: int = 5,
        residuals: bool = True,
        streams: bool = False,
        attention: bool = False,
        expert_outputs: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> Trace:
        assert isinstance(text_or_ids, str)
        self.prompts.append(text_or_ids)
        words = text_or_ids.split()
        ids = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words]
        info, T = self.info, len(words)
        whole = make_trace(
            T, info.num_layers, info.num_experts, info.top_k, with_parts=False, with_lens=False,
            moe_layers=info.moe_layers, tokens=words,
        )  # fmt: skip
        trace = replace(whole, model=info, token_ids=np.array(ids, np.int32))
        if info.is_moe:
            z = np.tile(self._logits(text_or_ids), (T, 1, 1)).astype(np.float32)
            ids_by_z = np.argsort(-z, axis=-1, kind="stable")[..., : info.top_k]
            trace = replace(trace, router_logits=z, expert_ids=ids_by_z.astype(np.int16))
        if streams:
            leaving = np.zeros((T, info.num_layers, info.hidden_size), np.float32)
            leaving[-1] = self._hidden(text_or_ids)
            nothing = np.zeros_like(leaving)
            trace = replace(
                trace,
                streams=Streams(
                    entering=nothing, at_router=nothing, leaving=leaving,
                    router_input=nothing[:, : len(info.moe_layers)],
                ),
            )  # fmt: skip
        return trace

    def continuation(
        self,
        text_or_ids: Prompt,
        max_tokens: int,
        *,
        until: Callable[[str], bool] = lambda text: False,
    ) -> str:
        assert isinstance(text_or_ids, str)
        self.prompts.append(text_or_ids)
        text = ""
        for character in self._writes(text_or_ids)[:max_tokens]:
            text += character
            if until(text):
                break
        return text
