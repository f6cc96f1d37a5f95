"""The seed's own prompt, attacks on contexts, and how easily routing changes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from moetui.analyses.manipulation_fit import SeedManipulation, seed_manipulation
from moetui.analyses.manipulation_targets import cut
from moetui.analyses.misrouting import Swaps, misrouting, try_swaps
from moetui.analyses.paraphrase import Worded, paraphrase, read_wordings
from moetui.analyses.routing_robustness import (
    Perturbed,
    names,
    perturb,
    prompt_stability,
    rounded_experts,
    routing_robustness,
)
from moetui.analyses.task_prompts import TEMPLATES
from moetui.analyses.token_search import STARTS, Search
from moetui.suites.documents import in_parts, some_of
from moetui.suites.moe_dynamics.manipulation_plan import Fitting, Plan, sequence_of
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

# Swaps tried for every token of the seed's prompt in a round, and tokens that a prompt has about.
_EACH, _PROMPT = 8, 6
# Tokens of one wording, about.
_WORDING = 14


class SeedInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's prompt, and how it is searched."""

    prompt: str
    fitting: Fitting
    search: Search


class SeedManipulationAnalysis:
    """The seed's question: tokens optimised for a sequence of experts, on one prompt."""

    name = "seed_manipulation"
    needs: tuple[str, ...] = ()
    partial_type: Any = SeedManipulation | None

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One."""
        own = self._plan.own
        search = Search(rows=(), steps=own.prompt_steps, candidates=_EACH * _PROMPT, contexts=1)
        inputs = SeedInputs(prompt=own.prompt, fitting=self._plan.fitting, search=search)
        tried = STARTS + own.prompt_steps * (_EACH * _PROMPT + 3 * 3)
        return (Part(name="the seed's prompt", inputs=inputs, tokens=tried * _PROMPT),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> SeedManipulation | None:
        """A search on one prompt."""
        given: SeedInputs = part.inputs
        target = sequence_of(model, given.fitting)
        return seed_manipulation(model, given.prompt, target, given.search, seed=seed)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What the search found."""
        found: SeedManipulation | None = partials[0]
        reason = "the prompt has one token only: nothing before it can be optimised"
        return Outcome(found, None if found is not None else reason)


class AttackInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Documents whose beginnings are attacked, with so many swaps each."""

    texts: tuple[str, ...]
    context_tokens: int
    swaps: int


@dataclass(frozen=True, eq=False)
class AttackedPart:
    """None where no document was long enough."""

    swaps: Swaps | None


class MisroutingAnalysis:
    """One token swapped so that routing changes most and meaning little."""

    name = "misrouting"
    needs: tuple[str, ...] = ()
    partial_type: Any = AttackedPart

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> Any:
        """The bound, and what is said of the corpus."""
        return [self._plan.own.kl_bound, self._plan.setting.evaluation.used(seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        own, documents = self._plan.own, self._plan.setting.evaluation.sample(seed).documents
        some = some_of([one.text for one in documents], own.misrouting_contexts, seed)
        return tuple(
            Part(
                name=name,
                inputs=AttackInputs(
                    texts=texts, context_tokens=own.context_tokens, swaps=own.misrouting_swaps
                ),
                tokens=len(texts) * (own.misrouting_swaps + 4) * own.context_tokens,
            )
            for name, texts in in_parts(some)
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> AttackedPart:
        """A batch of swaps for every context; gradients at the middle router."""
        given: AttackInputs = part.inputs
        contexts = cut((model.tokenize(text) for text in given.texts), given.context_tokens)
        if not len(contexts):
            return AttackedPart(None)
        layers = model.info.moe_layers
        found = []
        for done in range(len(contexts)):
            found.append(
                try_swaps(
                    model, contexts[done : done + 1], given.context_tokens - 1,
                    layers[len(layers) // 2], given.swaps, seed=seed,
                )
            )  # fmt: skip
            step(done + 1, len(contexts))
        arrays = {
            name: np.concatenate([getattr(one, name) for one in found])
            for name in ("change", "kl", "rows", "tokens")
        }
        return AttackedPart(Swaps(guided=found[0].guided, **arrays))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Attacks and typical swaps, with intervals over contexts."""
        parts = [one.swaps for one in partials if one.swaps is not None]
        if not parts:
            return Outcome(None, "no document is as long as a context")
        used = self._plan.setting.evaluation.used(seed)
        return Outcome(misrouting(parts, self._plan.own.kl_bound, corpus=used, seed=seed))


class RobustnessInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Documents to be perturbed; prompt: the seed's, with the first part only."""

    texts: tuple[str, ...]
    tokens: int
    noise: tuple[float, ...]
    bits: tuple[int, ...]
    prompt: str | None
    variants: int


@dataclass(frozen=True, eq=False)
class PerturbedPart:
    """stability: of the seed's prompt, of every variant."""

    documents: tuple[Perturbed, ...]
    stability: tuple[float, ...]


class RobustnessAnalysis:
    """Noise, typing errors and fewer bits."""

    name = "routing_robustness"
    needs: tuple[str, ...] = ()
    partial_type: Any = PerturbedPart

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> Any:
        """What is said of the corpus."""
        return self._plan.setting.evaluation.used(seed)

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        plan = self._plan
        own, tokens = plan.own, plan.setting.shared.tokens
        documents = plan.setting.evaluation.sample(seed).documents
        some = some_of([one.text for one in documents], own.robustness_documents, seed)
        passes = 3 + len(own.noise) + len(own.bits)
        return tuple(
            Part(
                name=name,
                inputs=RobustnessInputs(
                    texts=texts,
                    tokens=tokens,
                    noise=own.noise,
                    bits=own.bits,
                    prompt=None if at else own.prompt,
                    variants=own.prompt_variants,
                ),
                tokens=len(texts) * passes * tokens,
            )
            for at, (name, texts) in enumerate(in_parts(some))
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> PerturbedPart:
        """First all documents with fewer bits, then each with everything else."""
        given: RobustnessInputs = part.inputs
        rounded = [rounded_experts(model, given.texts, given.tokens, one) for one in given.bits]
        found = []
        for at, text in enumerate(given.texts):
            after = [one[at] for one in rounded]
            found.append(perturb(model, text, given.tokens, given.noise, after, seed=seed))
            step(at + 1, len(given.texts))
        stability: list[float] = []
        if given.prompt is not None:
            stability = prompt_stability(model, given.prompt, given.variants, seed=seed)
        return PerturbedPart(tuple(found), tuple(stability))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Changes, with intervals over documents."""
        documents = [one for partial in partials for one in partial.documents]
        own = self._plan.own
        return Outcome(
            routing_robustness(
                documents,
                names(own.noise, own.bits),
                [value for partial in partials for value in partial.stability],
                tokens=self._plan.setting.shared.tokens,
                corpus=self._plan.setting.evaluation.used(seed),
                seed=seed,
            )
        )


class ParaphraseInputs(msgspec.Struct, frozen=True, kw_only=True):
    """How many problems are asked in all wordings."""

    problems: int


class ParaphraseAnalysis:
    """Problems of arithmetic, each in every wording."""

    name = "paraphrase"
    needs: tuple[str, ...] = ()
    partial_type: Any = Worded

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or problems that nothing is compared with."""
        few = None if self._plan.own.problems > 1 else "one problem has no other to compare with"
        return no_router(info) or few

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One."""
        problems = self._plan.own.problems
        inputs = ParaphraseInputs(problems=problems)
        tokens = problems * len(TEMPLATES) * _WORDING
        return (Part(name="all wordings", inputs=inputs, tokens=tokens),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Worded:
        """A pass for every wording of every problem."""
        return read_wordings(model, part.inputs.problems, seed=seed)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Changes between wordings, with an interval over problems."""
        return Outcome(paraphrase(partials[0], seed=seed))
