"""The study `generation`: how do experts change from step to step of a text being written?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.decoded import Decoded, decoded
from moetui.analyses.generated_routing import (
    NO_STEP,
    NaturalRouting,
    generated_routing,
    natural_routing,
)
from moetui.analyses.seed_generation import seed_generation
from moetui.suites.documents import in_parts, some_of
from moetui.suites.layers import routing_layers
from moetui.suites.moe_dynamics.generation_answers import AnswerAnalysis
from moetui.suites.moe_dynamics.generation_parameters import FULL, QUICK, TOKENS, Parameters
from moetui.suites.moe_dynamics.generation_verdict import (
    SEED_CONSISTENCY,
    SEED_HANDOFFS,
)
from moetui.suites.moe_dynamics.generation_verdict import conclude as judge
from moetui.suites.moe_dynamics.generation_verdict import measures as measured
from moetui.suites.moe_dynamics.routing import ROUTING, RoutingText, routed
from moetui.suites.moe_dynamics.study import Setting, Study
from moetui.suites.plan import Analysis, Needs, Outcome, Part, Step
from moetui.suites.results import CellResult, Measure, Published, Verdicts
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

__all__ = ["FULL", "QUICK", "Parameters", "study"]

NAME = "generation"
SEED, TEXTS = "generation_seed", "generation_texts"
NATURAL = "generation_natural"


class SeedInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts of the seed."""

    prompts: tuple[str, ...]
    new_tokens: int


class TextInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Documents that are continued; the first `compared` of them are read once more."""

    documents: tuple[RoutingText, ...]
    prompt_tokens: int
    new_tokens: int
    compared: int


@dataclass(frozen=True, eq=False)
class DecodedTexts:
    """The texts of a part."""

    texts: tuple[Decoded, ...]


class SeedAnalysis:
    """`generation_seed`: see `moetui.analyses.seed_generation`."""

    name = SEED
    needs: tuple[str, ...] = ()
    partial_type: Any = DecodedTexts

    def __init__(self, own: Parameters) -> None:
        self._own = own

    def settings(self, *, seed: int) -> Any:
        """What the prompts are called."""
        return list(self._own.generation_prompts)

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One."""
        prompts, new = self._own.generation_prompts, self._own.generation_tokens
        inputs = SeedInputs(prompts=prompts, new_tokens=new)
        return (Part(name="prompts", inputs=inputs, tokens=len(prompts) * (TOKENS + new)),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> DecodedTexts:
        """One greedy text a prompt."""
        asked: SeedInputs = part.inputs
        texts = []
        for prompt in asked.prompts:
            texts.append(decoded(model, prompt, "seed", prompt, asked.new_tokens))
            step(len(texts), len(asked.prompts))
        return DecodedTexts(tuple(texts))

    def reduce(self, info: ModelInfo, partials: Sequence[DecodedTexts], *, seed: int) -> Outcome:
        """The seed's numbers and their null."""
        texts = [one for partial in partials for one in partial.texts]
        prompts = self._own.generation_prompts
        return Outcome(seed_generation(texts, prompts, info.num_experts, seed=seed))


class TextAnalysis:
    """`generation_texts`: see `moetui.analyses.generated_routing`."""

    name = TEXTS
    needs: tuple[str, ...] = ()
    partial_type: Any = DecodedTexts

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own, self._setting = own, setting

    def settings(self, *, seed: int) -> Any:
        """All that the statistics depend on."""
        own, layers = self._own, self._setting.shared.layers
        return [layers, own.segments, own.window, own.phase_texts, own.generation_permutations]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five texts each."""
        own = self._own
        chosen = some_of(self._setting.evaluation.sample(seed).documents, own.texts, seed)
        parts, done = [], 0
        for name, some in in_parts(chosen):
            again = max(0, min(own.compared - done, len(some)))
            inputs = TextInputs(
                documents=tuple(RoutingText(d.id, d.domain, d.text) for d in some),
                prompt_tokens=own.prompt_tokens,
                new_tokens=own.new_tokens,
                compared=again,
            )
            length = own.prompt_tokens + own.new_tokens
            parts.append(Part(name=name, inputs=inputs, tokens=(len(some) + again) * length))
            done += len(some)
        return tuple(parts)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> DecodedTexts:
        """One greedy text a document, and a pass over some of them."""
        asked: TextInputs = part.inputs
        texts: list[Decoded] = []
        for document in asked.documents:
            prompt = model.tokenize(document.text)[: asked.prompt_tokens]
            again = len(texts) < asked.compared
            texts.append(
                decoded(model, document.id, document.domain, prompt, asked.new_tokens, again=again)
            )
            step(len(texts), len(asked.documents))
        return DecodedTexts(tuple(texts))

    def reduce(self, info: ModelInfo, partials: Sequence[DecodedTexts], *, seed: int) -> Outcome:
        """Persistence, segments, phases, decoding against prefill."""
        own, layers = self._own, self._setting.shared.layers
        found = generated_routing(
            [one for partial in partials for one in partial.texts],
            info,
            layers=routing_layers(layers, info),
            lengths=own.segments,
            window=own.window,
            phase_texts=own.phase_texts,
            permutations=own.generation_permutations,
            seed=seed,
        )
        return Outcome(found, NO_STEP if found is None else found.reason)


class NaturalInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the statistics of read documents depend on."""

    lengths: tuple[int, ...]
    permutations: int


@dataclass(frozen=True, eq=False)
class NaturalFound:
    """What was found; None where no document has two tokens."""

    found: NaturalRouting | None


class NaturalAnalysis:
    """`generation_natural`: the same of the documents as they were read; no pass of its own."""

    name = NATURAL
    needs: tuple[str, ...] = (ROUTING,)
    partial_type: Any = NaturalFound

    def __init__(self, own: Parameters) -> None:
        self._inputs = NaturalInputs(lengths=own.segments, permutations=own.generation_permutations)

    def settings(self, *, seed: int) -> Any:
        """Nothing: all is in the part."""
        return None

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One."""
        return (Part(name="documents", inputs=self._inputs, tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> NaturalFound:
        """Statistics of the shared passes."""
        asked: NaturalInputs = part.inputs
        found = natural_routing(
            routed(needs[ROUTING]),
            model.info,
            lengths=asked.lengths,
            permutations=asked.permutations,
            seed=seed,
        )
        return NaturalFound(found)

    def reduce(self, info: ModelInfo, partials: Sequence[NaturalFound], *, seed: int) -> Outcome:
        """As found."""
        (left,) = partials
        return Outcome(left.found, NO_STEP if left.found is None else None)


class Generation:
    """The study; see `moetui.suites.moe_dynamics.study.Study`."""

    name = NAME
    question = "How does the choice of experts change from step to step of a text being written?"
    published = (
        Published(model="openai/gpt-oss-20b", measure=SEED_CONSISTENCY, value=0.4588),
        Published(model="openai/gpt-oss-20b", measure=SEED_HANDOFFS, value=20.82),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own = own
        self.analyses: tuple[Analysis, ...] = (
            SeedAnalysis(own),
            TextAnalysis(own, setting),
            NaturalAnalysis(own),
            AnswerAnalysis(own),
        )

    @property
    def cost(self) -> str:
        """Texts that are written."""
        own = self._own
        return (
            f"{own.texts} texts of {own.new_tokens} tokens written one by one, "
            f"{4 * own.problems_per_task + 28 * own.problem_pairs} answers, {own.compared} texts "
            "read again"
        )

    def texts(self) -> Any:
        """The seed's prompts."""
        return list(self._own.generation_prompts)

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """The headline numbers."""
        return measured(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Both verdicts."""
        return judge(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What greedy text is."""
        return (
            "generation: texts are written greedily; small models repeat themselves then, so the "
            "share of steps that repeat a token stands beside every consistency",
        )


def study(own: Parameters, setting: Setting) -> Study:
    """The study with its parameters set."""
    return Generation(own, setting)
