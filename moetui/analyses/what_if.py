"""What the model would have said if it were changed at one place, beside random such changes.

One text, one model, two forward passes: as it is, and with the change. The change acts on every
token of the text and is judged at one of them. The same change made to experts drawn at random
(20, paired: same text, same layer, same kind) shows how much any such change does. It is the
description of one text: nothing here is an effect that other texts must show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.what_if_changes import (
    Change,
    LayerChange,
    check_changes,
    chosen_at,
    controls_of,
    edits_selection,
    later_layers,
    possible_controls,
    tokens_using,
)
from moetui.errors import UsageError
from moetui.stats import (
    Statistic,
    extreme_draws,
    jaccard,
    joined,
    kl_divergence,
    log_softmax,
    permutation_p,
)
from moetui.trace import Forward, Trace

CONTROLS = 20
# Top tokens listed of either distribution.
TOP = 5
ONE_PROMPT = "one prompt: a description, no effect is claimed"
OWN_TEXT = "the model chose some of these tokens itself, so that most changes make them less likely"


class WhatIfRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to change, in which text, and where to judge it.

    token_ids: [T]; row: the token after which the next-token distributions are compared; the
        T - 1 - row tokens after it are scored. prompt_tokens: how many leading ones are the
        prompt; the model wrote the rest itself. controls: how many to draw, with `seed`.
    """

    token_ids: tuple[int, ...]
    row: int
    prompt_tokens: int
    changes: tuple[Change, ...]
    controls: int = CONTROLS
    seed: int = 0


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One control, and how many of the tokens up to the judged one select any of its experts in
    the unchanged model (None where it names no expert)."""

    changes: tuple[Change, ...]
    tokens: int | None


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the change beside the same number of its controls.

    statistic: value; null_mean and central 95 % of the controls; p = (1 + #≥) / (1 + m).
    controls: [m], in the order of `WhatIf.controls` (those without such a number left out).
    larger_than: how many of them the value exceeds; larger_than_used: how many of those whose
        experts some token up to the judged one selects.
    """

    statistic: Statistic
    controls: tuple[float, ...]
    larger_than: int
    larger_than_used: int


class NextToken(msgspec.Struct, frozen=True, kw_only=True):
    """A next token: probabilities and ranks (0 = top) without and with the change."""

    token_id: int
    text: str
    before: float
    after: float
    rank_before: int
    rank_after: int


class LayerShift(msgspec.Struct, frozen=True, kw_only=True):
    """The experts of a later layer at the judged token, without and with the change.

    change: 1 - Jaccard of the two sets. control: the controls' mean of it, None without any.
    direct: whether the change edits this layer's selection itself, so that some of it is by
        construction.
    """

    layer: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    change: float
    control: float | None
    direct: bool


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What a change does at one token of one text.

    token: text of the judged token. followed: how many tokens after it were scored,
        followed_generated of them written by the unchanged model itself.
    tokens_using: how many tokens up to the judged one select any of the changed experts.
    identical: whether the next-token logits are the same numbers, bit for bit.
    kl: KL(P ‖ P') in nats of the next-token distributions at the judged token, P unchanged.
    delta_nll: mean change of -ln P of the tokens that followed, nats a token; None without any.
    routing: mean of `LayerShift.change`, over the layers that are not changed directly where there
        are such; None without a later layer.
    controls: those measured so far, of `planned`; possible: how many different ones there are.
    control: what is drawn, in words.
    """

    request: WhatIfRequest
    token: str
    followed: int
    followed_generated: int
    tokens_using: int | None
    identical: bool
    kl: Measure
    delta_nll: Measure | None
    routing: Measure | None
    next_tokens: tuple[NextToken, ...]
    layers: tuple[LayerShift, ...]
    control: str
    controls: tuple[Control, ...]
    planned: int
    possible: int

    @property
    def done(self) -> bool:
        """Whether all controls have been measured."""
        return len(self.controls) == self.planned


def what_if(forward: Forward, request: WhatIfRequest) -> Iterator[WhatIf]:
    """The finding after the change itself, then again after each control, ever more complete.

    Costs two passes (one where no token followed) for the model as it is, for the change and for
    each control. Raises UsageError for a change that this model cannot be asked for.
    """
    study = _Study(forward, request)
    yield study.finding()
    for changes in study.planned:
        study.add(changes)
        yield study.finding()


@dataclass(frozen=True)
class _Outcome:
    """One pass's numbers. shifts: 1 - Jaccard by later layer."""

    kl: float
    delta_nll: float | None
    shifts: dict[int, float]
    routing: float | None


class _Study:
    """The unchanged model's numbers, the change's, and those of the controls so far."""

    def __init__(self, forward: Forward, request: WhatIfRequest) -> None:
        _check_row(request)
        self._forward, self._request = forward, request
        self._read = request.token_ids[: request.row + 1]
        self._followed = len(request.token_ids) - len(self._read)
        self._base = forward.trace(self._read, lens=0)
        check_changes(request.changes, self._base)
        self._base_nll = self._nll(())
        self._changed = forward.trace(self._read, lens=0, interventions=request.changes)
        self._outcome = self._judge(self._changed, request.changes)
        self._next_tokens = _next_tokens(forward, self._base, self._changed)
        self._possible = possible_controls(request.changes, self._base)
        self.planned = controls_of(
            request.changes, self._base, count=request.controls, seed=request.seed
        )
        self._controls: list[tuple[Control, _Outcome]] = []

    def add(self, changes: tuple[Change, ...]) -> None:
        """Measure one control."""
        trace = self._forward.trace(self._read, lens=0, interventions=changes)
        control = Control(changes=changes, tokens=tokens_using(changes, self._base))
        self._controls.append((control, self._judge(trace, changes)))

    def finding(self) -> WhatIf:
        """Everything known so far."""
        request, outcome = self._request, self._outcome
        outcomes = [of_control for _, of_control in self._controls]
        own = min(self._followed, max(len(request.token_ids) - request.prompt_tokens, 0))
        return WhatIf(
            request=request,
            token=self._base.tokens[-1],
            followed=self._followed,
            followed_generated=own,
            tokens_using=tokens_using(request.changes, self._base),
            identical=np.array_equal(self._base.logits, self._changed.logits),
            kl=self._measure(outcome.kl, [o.kl for o in outcomes]),
            delta_nll=None
            if outcome.delta_nll is None
            else self._measure(
                outcome.delta_nll,
                [o.delta_nll for o in outcomes],
                tokens=self._followed,
                caveat=OWN_TEXT if own else None,
            ),
            routing=None
            if outcome.routing is None
            else self._measure(outcome.routing, [o.routing for o in outcomes]),
            next_tokens=self._next_tokens,
            layers=tuple(self._shift(layer) for layer in outcome.shifts),
            control=_control_name(request.changes),
            controls=tuple(control for control, _ in self._controls),
            planned=len(self.planned),
            possible=self._possible,
        )

    def _judge(self, trace: Trace, changes: tuple[Change, ...]) -> _Outcome:
        base = self._base
        shifts = {
            layer: 1.0 - jaccard(chosen_at(base, layer), chosen_at(trace, layer))
            for layer in later_layers(changes, base)
        }
        elsewhere = [shifts[layer] for layer in shifts if not edits_selection(changes, layer, base)]
        counted = elsewhere or list(shifts.values())
        followed = self._followed > 0
        return _Outcome(
            kl=kl_divergence(base.logits, trace.logits),
            delta_nll=float((self._nll(changes) - self._base_nll).mean()) if followed else None,
            shifts=shifts,
            routing=float(np.mean(counted)) if counted else None,
        )

    def _nll(self, changes: tuple[Change, ...]) -> NDArray[np.float64]:
        """-ln P of the tokens that followed, in nats; no pass is spent where none did."""
        if not self._followed:
            return np.empty(0)
        nll = self._forward.nll(self._request.token_ids, changes)
        return nll[self._request.row :].astype(np.float64)

    def _measure(
        self,
        value: float,
        null: Sequence[float | None],
        *,
        tokens: int = 1,
        caveat: str | None = None,
    ) -> Measure:
        drawn = zip(self._controls, null, strict=True)
        known = [(control, n) for (control, _), n in drawn if n is not None]
        draws = [n for _, n in known]
        used = [n for control, n in known if control.tokens]
        low, high = np.quantile(draws, [0.025, 0.975]).tolist() if draws else (None, None)
        return Measure(
            statistic=Statistic(
                value=value,
                null_mean=float(np.mean(draws)) if draws else None,
                null_low=low,
                null_high=high,
                p=permutation_p(value, draws) if draws else None,
                n_tokens=tokens,
                n_documents=1,
                seed=self._request.seed,
                caveat=joined(ONE_PROMPT, self._shortfall(len(draws)), caveat),
            ),
            controls=tuple(draws),
            larger_than=len(draws) - extreme_draws(value, draws),
            larger_than_used=len(used) - extreme_draws(value, used),
        )

    def _shortfall(self, drawn: int) -> str | None:
        """Why there are fewer controls than were asked for."""
        if not self.planned:
            return "no control is possible"
        if len(self._controls) < len(self.planned):
            return f"{drawn} of {len(self.planned)} controls so far"
        if drawn < self._request.controls:
            return f"{drawn} controls: there are no more"
        return None

    def _shift(self, layer: int) -> LayerShift:
        of_controls = [o.shifts[layer] for _, o in self._controls if layer in o.shifts]
        return LayerShift(
            layer=layer,
            before=chosen_at(self._base, layer),
            after=chosen_at(self._changed, layer),
            change=self._outcome.shifts[layer],
            control=float(np.mean(of_controls)) if of_controls else None,
            direct=edits_selection(self._request.changes, layer, self._base),
        )


def _check_row(request: WhatIfRequest) -> None:
    if not 0 <= request.row < len(request.token_ids):
        raise UsageError(
            f"token {request.row} of a text of {len(request.token_ids)}", "count from 0"
        )


def _control_name(changes: Sequence[Change]) -> str:
    if any(isinstance(change, LayerChange) for change in changes):
        return "other layers"
    named = sum(len(change.experts) for change in changes if not isinstance(change, LayerChange))
    return "random experts" if named == 1 else f"random sets of {named} experts"


def _next_tokens(forward: Forward, base: Trace, changed: Trace) -> tuple[NextToken, ...]:
    """The most probable next tokens of either distribution, those most probable in one first."""
    log_p, log_q = log_softmax(base.logits), log_softmax(changed.logits)
    order_p = np.argsort(-log_p, kind="stable")
    order_q = np.argsort(-log_q, kind="stable")
    listed = sorted(
        {*order_p[:TOP].tolist(), *order_q[:TOP].tolist()}, key=lambda i: -max(log_p[i], log_q[i])
    )
    return tuple(
        NextToken(
            token_id=token,
            text=forward.token_text(token),
            before=float(np.exp(log_p[token])),
            after=float(np.exp(log_q[token])),
            rank_before=int((log_p > log_p[token]).sum()),
            rank_after=int((log_q > log_q[token]).sum()),
        )
        for token in listed
    )
