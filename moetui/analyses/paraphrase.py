"""Does routing survive another wording? The same problem of arithmetic in several templates.

All prompts end in the same words, so the same token is looked at. Within: between two wordings of
one problem; the null are two wordings of different problems: were it as large, nothing of what is
asked would show in the routing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.manipulation import MINIMUM
from moetui.analyses.misrouting import set_change
from moetui.analyses.task_prompts import TASKS, TEMPLATES, ask, operand_pairs
from moetui.stats import Statistic, document_bootstrap, permutation_p, ratio_of_sums
from moetui.stats.minimum import warned
from moetui.trace import Forward
from moetui.trace.types import ExpertIds

Numbers = NDArray[np.float64]

ENDING = " The answer is"
DRAWS = 20
DEFINITION = (
    "1 − Jaccard of the sets that the last token of “… The answer is” chooses, mean over routing "
    "layers, between two wordings of one problem; null: the same between wordings of two "
    "different problems, paired at random 20 times; p: share of these that are as small"
)


class Paraphrase(msgspec.Struct, frozen=True, kw_only=True, tag="paraphrase"):
    """Over `problems` problems in `wordings` wordings; change has the null. excess: change less
    the null's mean, problem by problem; below 0 where wordings of one problem are more alike."""

    definition: str
    problems: int
    wordings: int
    change: Statistic
    excess: Statistic


@dataclass(frozen=True, eq=False)
class Worded:
    """experts: int16 [problems, wordings, L, k]."""

    experts: ExpertIds


def read_wordings(model: Forward, problems: int, *, seed: int) -> Worded:
    """Every problem in every wording; operations in turn."""
    pairs = operand_pairs(problems, seed=seed)
    found = []
    for at, (a, b) in enumerate(pairs):
        task = TASKS[at % len(TASKS)]
        prompts = [ask(template, task, a, b).prompt + ENDING for template in TEMPLATES]
        found.append([model.trace(p, lens=0, residuals=False).expert_ids[-1] for p in prompts])
    return Worded(np.array(found, np.int16))


def paraphrase(worded: Worded, *, seed: int) -> Paraphrase:
    """Raises ValueError for fewer than two problems."""
    ids = worded.experts
    P, W = ids.shape[:2]
    if P < 2:
        raise ValueError("wordings are compared with those of another problem")
    pairs = list(combinations(range(W), 2))
    own = _between(ids, ids, pairs)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        order = rng.permutation(P)
        partner = np.empty(P, int)
        partner[order] = np.roll(order, 1)  # nobody is its own partner
        draws.append(_between(ids, ids[partner], pairs))
    null = np.array(draws)
    means = null.mean(axis=1)
    change = _mean(own, seed)
    assert change.value is not None
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return Paraphrase(
        definition=DEFINITION,
        problems=P,
        wordings=W,
        change=msgspec.structs.replace(
            change,
            null_mean=float(means.mean()),
            null_low=low,
            null_high=high,
            p=permutation_p(change.value, means, tail="less"),
        ),
        excess=_mean(own - null.mean(axis=0), seed),
    )


def _between(a: ExpertIds, b: ExpertIds, pairs: Sequence[tuple[int, int]]) -> Numbers:
    """[P], mean change from wording i of the one to wording j of the other, over pairs (i, j)."""
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    changed: Numbers = set_change(a[:, first], b[:, second]).mean(axis=(1, 2))
    return changed


def _mean(values: Numbers, seed: int) -> Statistic:
    found = document_bootstrap(ratio_of_sums(values, np.ones(len(values))), len(values), seed=seed)
    return warned(found, MINIMUM, contexts=len(values))
