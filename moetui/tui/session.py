"""What the user looks at: the snapshot shown, the cursor, the mode, and the runs of the session.

Plain Python, no widgets: the screen asks `moment` and hands it to the panes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moetui.analyses.alignment import Context
from moetui.analyses.expert_dossier import DossierSoFar
from moetui.analyses.expert_load import RunLoad, expert_counts, run_load
from moetui.suites.live import SuiteRun
from moetui.trace import NO_EXPERT, Phase, Recording, Snapshot
from moetui.tui.change import Choice
from moetui.tui.moment import Cursor, Mode, Moment, OpenedResult, dossier_of, suite_run


@dataclass(frozen=True)
class _Counted:
    """The load of one run as far as it has been seen."""

    run: int
    recording: Recording
    load: RunLoad

    @property
    def prompt(self) -> bytes:
        """What makes two runs the same document: the prompt's token ids."""
        return self.recording.prompt.token_ids.tobytes()


class Session:
    """The state between the engine's snapshots and the panes.

    `latest` is the newest snapshot, `shown` the one on the screen: they differ while the view is
    paused. `runs` is the load of every prompt that was run, the newest last. `kept` is A, which the
    cursor's token is compared with. While `following`, the cursor stays on the newest token.
    `stopping` from the moment the engine was told to stop until it has: that may take a whole
    forward pass. `result` is the batch result that was opened, or that a suite run here has found;
    `dossier` the newest dossier of an expert of this model.
    """

    def __init__(self, result: OpenedResult | None = None) -> None:
        self.result = result
        self.latest = Snapshot()
        self.shown = Snapshot()
        self.cursor = Cursor()
        self.mode = Mode.TOKEN
        self.choice = Choice()
        self.paused = False
        self.stopping = False
        self.following = True
        self.runs: tuple[RunLoad, ...] = ()
        self.kept: Context | None = None
        self.dossier: DossierSoFar | None = None
        # By prompt: the same prompt again is the same document again, not one more.
        self._finished: dict[bytes, RunLoad] = {}
        self._current: _Counted | None = None

    @property
    def moment(self) -> Moment:
        """What the panes draw now."""
        return Moment(
            snapshot=self.shown,
            cursor=self.cursor,
            mode=self.mode,
            runs=self.runs,
            kept=self.kept,
            choice=self.choice,
            result=self.result,
            dossier=self.dossier,
        )

    @property
    def suite_run(self) -> SuiteRun | None:
        """The run of a suite that is under way."""
        return self.suite_ended if self.latest.phase is Phase.STUDYING else None

    @property
    def suite_ended(self) -> SuiteRun | None:
        """The newest state of a suite that was started and that nothing else has replaced."""
        return suite_run(self.latest)

    @property
    def busy(self) -> bool:
        """Whether the engine has something to do that can be stopped."""
        return self.latest.phase in (Phase.LOADING, Phase.RUNNING, Phase.STUDYING)

    def take(self, snapshot: Snapshot) -> bool:
        """Accept the engine's newest snapshot; says whether what is shown has changed."""
        if snapshot.version == self.latest.version:
            return False
        self._count(snapshot)
        if snapshot.phase is not self.latest.phase:
            self.stopping = False
        self.latest = snapshot
        self._open_result()
        if self.paused:
            return False
        self._show()
        return True

    def pause(self) -> None:
        """Freeze what is shown, or show the newest again."""
        self.paused = not self.paused
        if not self.paused:
            self._show()

    def move_token(self, by: int) -> None:
        """Move along the recording; a cursor that was moved no longer follows the run."""
        self.put(token=self.cursor.token + by)

    def put(
        self, token: int | None = None, layer: int | None = None, expert: int | None = None
    ) -> None:
        """Put the cursor somewhere, kept within what there is."""
        if token is not None:
            self.following = False
        self.cursor = self._within(
            Cursor(
                token=self.cursor.token if token is None else token,
                layer=self.cursor.layer if layer is None else layer,
                expert=self.cursor.expert if expert is None else expert,
            )
        )

    def step(self, by: int) -> None:
        """Step in the recording; a step past its end follows the newest token again."""
        if by > 0 and self.cursor.token >= self.shown.rows - 1:
            self.follow()
        else:
            self.move_token(by)

    def follow(self) -> None:
        """Go to the newest token and stay on it."""
        self.following = True
        self.cursor = replace(self.cursor, token=max(0, self.shown.rows - 1))

    def keep(self) -> bool:
        """Keep the cursor's token as A; says whether there was one."""
        recording = self.shown.recording
        if recording is None or self.moment.located is None:
            return False
        self.kept = Context(recording, self.shown.rows, self.cursor.token)
        return True

    def next_mode(self) -> None:
        """One token, then all runs, then B − A where there is an A."""
        modes = [Mode.TOKEN, Mode.SESSION, *([Mode.DIFFERENCE] if self.kept else [])]
        self.mode = modes[(modes.index(self.mode) + 1) % len(modes)]

    def move_chosen(self, by: int) -> None:
        """Move to the next expert by number among those chosen at the cursor, round and round."""
        chosen = sorted(self._chosen(self.cursor.token))
        if not chosen:
            return
        here = self.cursor.expert
        ahead = [e for e in chosen if e > here] if by > 0 else [e for e in chosen if e < here]
        wrapped = chosen[0] if by > 0 else chosen[-1]
        self.put(expert=(ahead[0] if by > 0 else ahead[-1]) if ahead else wrapped)

    def pin(self) -> bool:
        """Pin the expert under the cursor, or unpin it; says whether it is pinned now."""
        cell, pinned = (self.cursor.layer, self.cursor.expert), self.choice.pinned
        without = tuple(other for other in pinned if other != cell)
        kept = without if cell in pinned else tuple(sorted((*pinned, cell)))
        self.choice = replace(self.choice, pinned=kept)
        return cell in kept

    def _open_result(self) -> None:
        """Open what a suite has found, once."""
        run = self.suite_ended
        if run is None or run.result is None or run.file is None:
            return
        if self.result is None or self.result.result is not run.result:
            self.result = OpenedResult(run.file.name, run.result)

    def _show(self) -> None:
        before, now = self.shown, self.latest
        self.shown = now
        self.dossier = dossier_of(now) or _left(before, now) or self.dossier
        self.runs = self._counted()
        if now.run != before.run:
            self.following = True
        if _digest(now) != _digest(before):
            self.cursor = Cursor()
            self._forget()
        self._update_kept()
        if self.following:
            self.cursor = replace(self.cursor, token=max(0, now.rows - 1))
        self.cursor = self._within(self.cursor)
        if not before.rows and now.rows:
            self._go_to_strongest()

    def _forget(self) -> None:
        """Let go of A, the dossier and what is pinned: another model has other experts."""
        self.kept, self.dossier = None, None
        self.choice = replace(self.choice, pinned=())
        if self.mode is Mode.DIFFERENCE:
            self.mode = Mode.TOKEN

    def _update_kept(self) -> None:
        """A's run may have gone on since; one that is no longer shown has come to its end."""
        if self.kept is not None:
            recording, shown = self.kept.recording, self.shown
            rows = shown.rows if recording is shown.recording else recording.rows
            self.kept = replace(self.kept, rows=rows)

    def _go_to_strongest(self) -> None:
        """Start on the best expert of the prompt's last token: an arbitrary one says nothing."""
        recording = self.shown.recording
        if recording is not None:
            chosen = self._chosen(len(recording.prompt) - 1)
            self.cursor = replace(self.cursor, expert=chosen[0] if chosen else 0)

    def _chosen(self, token: int) -> list[int]:
        """The experts that ran at `token` and the cursor's layer, the best first."""
        recording = self.shown.recording
        if recording is None or token >= self.shown.rows:
            return []
        trace, row = recording.locate(token)
        layers = trace.layers.tolist()
        if self.cursor.layer not in layers:
            return []
        ids = trace.expert_ids[row, layers.index(self.cursor.layer)].tolist()
        return [expert for expert in ids if expert != NO_EXPERT]

    def _within(self, cursor: Cursor) -> Cursor:
        model = self.shown.model
        return Cursor(
            token=_clamp(cursor.token, self.shown.rows),
            layer=_clamp(cursor.layer, model.num_layers if model else 0),
            expert=_clamp(cursor.expert, model.num_experts if model else 0),
        )

    def _counted(self) -> tuple[RunLoad, ...]:
        if self._current is None:
            return tuple(self._finished.values())
        again = self._current.prompt
        others = (load for prompt, load in self._finished.items() if prompt != again)
        return (*others, self._current.load)

    def _count(self, snapshot: Snapshot) -> None:
        """Add the rows that are new in `snapshot` to the load of its run."""
        current = self._current
        if _digest(snapshot) != _digest(self.latest):
            self._finished, self._current = {}, None
        elif current is not None and current.run != snapshot.run:
            # Its last rows may have come after the last look at it.
            self._finished.pop(current.prompt, None)
            self._finished[current.prompt] = _counted_to_end(current).load
            self._current = None
        recording = snapshot.recording
        if recording is None or snapshot.rows < len(recording.prompt):
            return
        if self._current is None:
            load = run_load(recording.prompt)
            self._current = _Counted(snapshot.run, recording, load)
        self._current = _counted_to(self._current, snapshot.rows)


def _counted_to(counted: _Counted, rows: int) -> _Counted:
    """`counted` with the rows below `rows` that it did not hold yet."""
    load = counted.load
    decode = load.decode
    for row in range(load.tokens, rows):
        trace, index = counted.recording.locate(row)
        decode = decode + expert_counts(trace.rows(index, index + 1))
    added = rows - load.tokens
    if added <= 0:
        return counted
    return replace(
        counted, load=replace(load, decode=decode, decode_tokens=load.decode_tokens + added)
    )


def _counted_to_end(counted: _Counted) -> _Counted:
    return _counted_to(counted, counted.recording.rows)


def _left(before: Snapshot, now: Snapshot) -> DossierSoFar | None:
    """The dossier that was stopped between the two, for something else that has begun already."""
    new = now.left is not before.left
    return now.left if new and isinstance(now.left, DossierSoFar) else None


def _digest(snapshot: Snapshot) -> str | None:
    return snapshot.model.digest if snapshot.model else None


def _clamp(value: int, count: int) -> int:
    return max(0, min(value, count - 1))
