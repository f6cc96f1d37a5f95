"""The fake model of the suites, for studies that let it write and ask for likelihoods."""

from dataclasses import replace

import numpy as np

from tests.suites.fake import FakeModel


class WritingModel(FakeModel):
    """It writes the words it knows in turn, from the one after the last; its likelihood is flat.

    Interventions change nothing: no expert of this model adds anything.
    """

    def nll(self, text_or_ids, interventions=()):
        return np.ones(len(self._ids(text_or_ids)) - 1, np.float32)

    def generated(self, text_or_ids, max_tokens):
        ids = self._ids(text_or_ids)
        known = len(self.vocabulary)
        written = [(int(ids[-1]) + 1 + step) % known for step in range(max_tokens)]
        whole = self.trace(np.array([*ids, *written], np.int32))
        return replace(whole, prompt_tokens=len(ids))

    def continuation(self, text_or_ids, max_tokens, *, until=lambda text: False):
        return " 7"

    def _ids(self, text_or_ids):
        return self.tokenize(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
