"""What a suite leaves behind: one typed document, seed beside corrected, with its circumstances."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from moetui.analyses.answer_routing import AnswersRouting
from moetui.analyses.attention_router import CorpusDecomposition, PromptDecomposition
from moetui.analyses.attention_routing import AttentionRouting
from moetui.analyses.better_with_fewer import FewerExperts
from moetui.analyses.causal_check import CausalCheck
from moetui.analyses.causal_edges import CausalEdges
from moetui.analyses.cold_load import ColdLoad
from moetui.analyses.cold_prompts import ColdPrompts
from moetui.analyses.context_attention_routing import ContextAttentionRouting
from moetui.analyses.context_sensitivity import ContextSensitivity
from moetui.analyses.expert_ablation import ExpertAblations
from moetui.analyses.expert_edges import ExpertEdges
from moetui.analyses.expert_interference import ExpertInterference
from moetui.analyses.expert_scores import ExpertScores
from moetui.analyses.expert_words import ExpertWords
from moetui.analyses.generated_routing import GeneratedRouting, NaturalRouting
from moetui.analyses.manipulation import Manipulation
from moetui.analyses.manipulation_fit import ManipulationFit, SeedManipulation, TokenScan
from moetui.analyses.matrix_ranks import MatrixRanks
from moetui.analyses.merge_front import MergeFront
from moetui.analyses.merged_pairs import MergedPairs
from moetui.analyses.misrouting import Misrouting
from moetui.analyses.output_similarity import OutputSimilarity
from moetui.analyses.pair_additivity import PairAdditivity
from moetui.analyses.parameter_shares import ParameterShares
from moetui.analyses.paraphrase import Paraphrase
from moetui.analyses.probes import Probes
from moetui.analyses.pruning_plan import PruningPlans
from moetui.analyses.routed import RoutingRead
from moetui.analyses.routing_robustness import RoutingRobustness
from moetui.analyses.sanity import Sanity
from moetui.analyses.seed_circuits import SeedCircuits
from moetui.analyses.seed_generation import SeedGeneration
from moetui.analyses.seed_interference import SeedInterference
from moetui.analyses.seed_prediction import SeedAttention, SeedTask
from moetui.analyses.source_experts import SourceExperts
from moetui.analyses.source_heads import SourceHeads
from moetui.analyses.task_accuracy import TaskAccuracy
from moetui.analyses.task_aware import TaskAware
from moetui.analyses.token_identity import TokenIdentity
from moetui.analyses.trigger_tokens import TriggerTokens
from moetui.analyses.tuned_lens import LensFidelity, TunedLensFit
from moetui.analyses.virtual_experts import VirtualExperts
from moetui.analyses.vocabulary_alignment import VocabularyAlignment
from moetui.analyses.waking_tokens import WakingTokens
from moetui.analyses.weight_similarity import WeightSimilarity
from moetui.errors import UsageError
from moetui.stats import Statistic
from moetui.trace import ModelInfo, to_json
from moetui.trace.file import write_atomically

SCHEMA_VERSION = 1

# Every analysis has one result type; its tag is the "type" field in the JSON.
AnalysisResult = (
    PromptDecomposition
    | CorpusDecomposition
    | ContextSensitivity
    | SourceExperts
    | SourceHeads
    | CausalCheck
    | TokenIdentity
    | Probes
    | TaskAccuracy
    | VirtualExperts
    | TunedLensFit
    | LensFidelity
    | VocabularyAlignment
    | ExpertWords
    | RoutingRead
    | SeedInterference
    | ExpertInterference
    | FewerExperts
    | PairAdditivity
    | ContextAttentionRouting
    | ColdPrompts
    | ColdLoad
    | TriggerTokens
    | ExpertScores
    | ExpertAblations
    | WakingTokens
    | PruningPlans
    | SeedAttention
    | AttentionRouting
    | SeedTask
    | TaskAware
    | OutputSimilarity
    | WeightSimilarity
    | MergedPairs
    | MergeFront
    | MatrixRanks
    | ParameterShares
    | TokenScan
    | ManipulationFit
    | SeedManipulation
    | Manipulation
    | Misrouting
    | RoutingRobustness
    | Paraphrase
    | SeedCircuits
    | ExpertEdges
    | CausalEdges
    | SeedGeneration
    | GeneratedRouting
    | NaturalRouting
    | AnswersRouting
    | Sanity
)

Status = Literal["done", "inconclusive", "failed"]
SeparationVerdict = Literal["separates", "does not separate", "inconclusive"]

R = TypeVar("R")

_PACKAGES = ("moetui", "mlx", "mlx-lm", "transformers", "numpy", "scipy", "msgspec")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work: one part of one analysis of one model; tokens: about how many it runs."""

    model: str
    analysis: str
    part: str
    tokens: int | None = None


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one analysis of one model, all its parts together. Done: a result and no
    reason; inconclusive: a reason and perhaps a partial result; failed: a reason only."""

    model: str
    analysis: str
    status: Status
    reason: str | None
    seconds: float
    result: AnalysisResult | None


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the run: what it is, or why it could not be used.

    null_of: the model whose architecture this one has with weights drawn anew; None for a model
    as it was trained.
    """

    name: str
    info: ModelInfo | None
    failure: str | None
    null_of: str | None = None


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One headline number of a model, under a name that is the same for every model and run.

    label: whose definition it follows. units: its value for each of a few prompts, where that
    is what it is a mean of and where they are too few for an interval; in the order of the
    prompts, so that two models can be compared prompt by prompt. Of numbers that are read off
    the weights alone: for each layer.
    """

    model: str
    label: Literal["seed", "corrected"]
    name: str
    statistic: Statistic
    units: tuple[float, ...] | None = None


class Separation(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a number of the trained model differs from that of the same model untrained.

    difference: trained − null. verdict: with the reason where it is inconclusive.
    """

    model: str
    null_model: str
    label: Literal["seed", "corrected"]
    name: str
    trained: Statistic
    null: Statistic
    difference: Statistic
    verdict: SeparationVerdict
    reason: str | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, the rule that gives it and what it rests on.

    label: whose rule. outcome: short name, or "inconclusive"; statement: the same in words.
    """

    label: str
    outcome: str
    statement: str
    rule: str
    evidence: tuple[Measure, ...]


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's verdict, the corrected one, and in one sentence why they need not agree.

    topic: which of a suite's questions they answer, None where it has one only.
    """

    topic: str | None = None
    seed: Verdict
    corrected: Verdict
    why_they_differ: str


def measure_name(topic: str | None, name: str) -> str:
    """The name of a measure among those of all questions of a suite."""
    return name if topic is None else f"{topic}: {name}"


class NullVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What both rules say of `models`, the models of the run with weights drawn anew: an answer
    that random weights get too says nothing about training."""

    models: tuple[str, ...]
    verdicts: tuple[Verdicts, ...]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A number that the seed's own report gives for a real model; not measured here."""

    model: str
    measure: str
    value: float


class SuiteResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. Times are ISO 8601, UTC; prompts_digest is a SHA-256 over every text given.

    verdicts: one pair for every question, at least one. separation, null_verdicts: empty where
    no null model was run.
    """

    schema_version: int
    suite: str
    question: str
    models: tuple[ModelRecord, ...]
    parameters: dict[str, Any]
    prompts_digest: str
    seed: int
    versions: dict[str, str]
    environment: dict[str, str]
    started: str
    finished: str
    cells: tuple[CellResult, ...]
    measures: tuple[Measure, ...]
    separation: tuple[Separation, ...]
    verdicts: tuple[Verdicts, ...]
    null_verdicts: tuple[NullVerdict, ...]
    published: tuple[Published, ...]
    caveats: tuple[str, ...]

    @property
    def failures(self) -> tuple[CellResult, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.cells if cell.status == "failed")


def results_of(result: SuiteResult, model: str, kind: type[R]) -> list[R]:
    """The results of one type that `model` has."""
    found: list[Any] = [cell.result for cell in result.cells if cell.model == model]
    return [one for one in found if isinstance(one, kind)]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, read without importing any of it."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, str]:
    """The kind of machine; nothing that names it."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": str(os.cpu_count()),
    }


def digest(texts: object) -> str:
    """SHA-256 over the canonical JSON of `texts`."""
    return hashlib.sha256(msgspec.json.encode(texts, order="deterministic")).hexdigest()


def result_json(result: SuiteResult) -> bytes:
    """The document as indented UTF-8 JSON with a final newline."""
    return to_json(result, indent=2)


def result_name(suite: str, now: datetime) -> str:
    """The name of the file that holds a result of `suite` made `now`."""
    return f"{suite}_{now:%Y%m%d_%H%M%S}.json"


def write_result(result: SuiteResult, path: str | Path) -> None:
    """Write the document to `path`, making its folder, so that nobody ever sees half of it.

    Raises a MoetuiError where the folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {path.parent}: {error.strerror}", "choose another folder"
        ) from error
    write_atomically(path, result_json(result))


def read_result(path: str | Path) -> SuiteResult:
    """The document at `path`. Raises msgspec.ValidationError where it is none."""
    return msgspec.json.decode(Path(path).read_bytes(), type=SuiteResult)
