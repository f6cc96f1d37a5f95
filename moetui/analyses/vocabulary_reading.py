"""What the lens gives to the words of every task at the end of each prompt, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from moetui.analyses.task_words import Lexicon
from moetui.trace import Forward, TunedLens, WordReadout
from moetui.trace.types import Floats

Numbers = NDArray[np.float64]

# Of the seed: layers 4, 6, 8, 10, 12 and 14 of 16.
SEED_DEPTHS = (4 / 16, 6 / 16, 8 / 16, 10 / 16, 12 / 16, 14 / 16)


@dataclass(frozen=True, eq=False, kw_only=True)
class LensScores:
    """One lens at the last token of P prompts, after M layers, for each of the tasks' words.

    All float64 [P, M, tasks]: probability of any form that the template does not say; said: of
    any form; log_odds: of those unsaid against the references, in nats; rank: of the best
    unsaid form. kl: float64 [P, M], KL(model ‖ layer).
    """

    probability: Numbers
    said: Numbers
    log_odds: Numbers
    rank: Numbers
    kl: Numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class VocabularyRows:
    """All that was read of P prompts.

    layers: int64 [M]. seed: float64 [P, M, tasks], the largest probability of any word exactly as
    given (raw lens). tuned: None without a tuned lens.
    """

    layers: NDArray[np.int64]
    seed: Numbers
    raw: LensScores
    tuned: LensScores | None


def seed_layers(num_layers: int) -> tuple[int, ...]:
    """The seed's six depths, 25 to 88 %, in a model of `num_layers`, each layer once.

    The last layer is left out where rounding reaches it: its lens is the model's own output.
    """
    last = max(0, num_layers - 2)
    return tuple(dict.fromkeys(min(round(d * num_layers), last) for d in SEED_DEPTHS))


def word_rows(
    model: Forward,
    leaving: Floats,
    words: Lexicon,
    spoken: Sequence[str],
    *,
    layers: Sequence[int],
    tuned: TunedLens | None,
) -> VocabularyRows:
    """Read the last token of one prompt, of which `leaving` [T, N, H] are the streams that leave
    every layer. spoken: words that its template says."""

    def read(lens: TunedLens | None) -> WordReadout:
        return model.read_words(
            leaving[-1:], words.token_ids, layers=layers, tuned=lens, in_full=True
        )

    raw = read(None)
    return VocabularyRows(
        layers=np.array(layers, np.int64),
        seed=_seed(raw, words)[None],
        raw=_scores(raw, words, spoken),
        tuned=None if tuned is None else _scores(read(tuned), words, spoken),
    )


def joined_rows(parts: Sequence[VocabularyRows]) -> VocabularyRows:
    """The prompts of several parts, one after the other."""
    tuned = [part.tuned for part in parts if part.tuned is not None]
    return VocabularyRows(
        layers=parts[0].layers,
        seed=np.concatenate([part.seed for part in parts]),
        raw=_joined([part.raw for part in parts]),
        tuned=_joined(tuned) if len(tuned) == len(parts) else None,
    )


def label_log_odds(logprobs: Numbers, words: Lexicon, task: int, said: Sequence[str]) -> Numbers:
    """[...]: ln of the mean probability of a task's unsaid forms over that of its references, of
    logprobs [..., W]; in nats. NaN where there is no form or no reference."""
    forms, references = words.unsaid(task, said), words.references[task]
    if not len(forms) or not len(references):
        return np.full(logprobs.shape[:-1], np.nan)
    odds: Numbers = _log_mean(logprobs[..., forms]) - _log_mean(logprobs[..., references])
    return odds


def _log_mean(logprobs: Numbers) -> Numbers:
    mean: Numbers = logsumexp(logprobs, axis=-1) - np.log(logprobs.shape[-1])
    return mean


def _seed(read: WordReadout, words: Lexicon) -> Numbers:
    """[M, tasks]: the largest probability of a word as it stands; 0 where none is a token."""
    of_tasks = [words.plain(task) for task in range(len(words.tasks))]
    table = np.exp(read.logprobs[-1].astype(np.float64))
    return np.stack([table[:, columns].max(-1, initial=0.0) for columns in of_tasks], axis=-1)


def _scores(read: WordReadout, words: Lexicon, spoken: Sequence[str]) -> LensScores:
    """The readings of one row, P = 1."""
    assert read.ranks is not None and read.kl is not None
    logprobs, ranks = read.logprobs.astype(np.float64), read.ranks.astype(np.float64)
    tasks = range(len(words.tasks))
    unsaid = [words.unsaid(task, spoken) for task in tasks]
    every = [words.forms[task] for task in tasks]
    best = [ranks[..., columns].min(-1, initial=np.inf) for columns in unsaid]
    return LensScores(
        probability=np.stack([np.exp(logprobs[..., c]).sum(-1) for c in unsaid], axis=-1),
        said=np.stack([np.exp(logprobs[..., c]).sum(-1) for c in every], axis=-1),
        log_odds=np.stack([label_log_odds(logprobs, words, t, spoken) for t in tasks], axis=-1),
        rank=np.stack(best, axis=-1),
        kl=read.kl.astype(np.float64),
    )


def _joined(rows: Sequence[LensScores]) -> LensScores:
    names = ("probability", "said", "log_odds", "rank", "kl")
    return LensScores(
        **{name: np.concatenate([getattr(row, name) for row in rows]) for name in names}
    )
