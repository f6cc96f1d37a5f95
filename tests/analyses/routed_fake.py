"""Documents as the fake model routes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moetui.analyses.routed import RoutedDocument
from tests.fake_forward import FakeForward


def routed_by(
    model: FakeForward, documents: Sequence[Sequence[int]], domains: Sequence[str] = ()
) -> list[RoutedDocument]:
    """One for each of `documents`, token ids."""
    found = []
    for place, ids in enumerate(documents):
        trace = model.trace(list(ids), lens=0)
        found.append(
            RoutedDocument(
                id=f"document {place}",
                domain=domains[place] if domains else "prose",
                ids=np.asarray(ids, np.int32),
                experts=trace.expert_ids,
                weights=trace.expert_weights,
                nll=model.nll(list(ids)),
                output_norms=None,
                mixture_norms=None,
                top_cosines=None,
            )
        )
    return found
