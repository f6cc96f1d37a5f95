"""The dossier of an expert on documents of the bundled corpus, as a study of the open model."""

from __future__ import annotations

from moetui.analyses.documents_read import Text
from moetui.analyses.expert_dossier import (
    DossierRequest,
    expert_dossier,
    stopped_dossier,
)
from moetui.demo import Split
from moetui.suites.documents import Documents
from moetui.trace import Study, each

# What ΔNLL of one expert needs (METHODS §2), of either half.
DOCUMENTS, TOKENS = 200, 64
SEED = 0


def dossier_study(
    layer: int, expert: int, *, documents: int = DOCUMENTS, seed: int = SEED
) -> Study:
    """The study that shows a `DossierSoFar` after every document; stopped, the loss that it has."""
    return each(
        lambda model: expert_dossier(model, _request(layer, expert, documents, seed)),
        stopped=lambda found: stopped_dossier(found, seed=seed),
    )


def _request(layer: int, expert: int, documents: int, seed: int) -> DossierRequest:
    def half(split: Split) -> Documents:
        return Documents(None, split, documents=documents, tokens=TOKENS)

    def texts(of: Documents) -> tuple[Text, ...]:
        drawn = of.sample(seed).documents
        return tuple(Text(id=one.id, domain=one.domain, text=one.text) for one in drawn)

    evaluation, calibration = half("evaluation"), half("calibration")
    return DossierRequest(
        layer=layer,
        expert=expert,
        evaluation=texts(evaluation),
        calibration=texts(calibration),
        corpus=evaluation.used(seed),
        calibration_corpus=calibration.used(seed),
        max_tokens=TOKENS,
        seed=seed,
    )
