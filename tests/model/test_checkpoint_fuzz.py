"""Random damage to config, header, weights and tokenizer: a model that works, or a clean error."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.model.fuzz_worker import MARK

PATIENCE = 20.0  # for one mutant
START = 120.0  # for a worker to import everything
QUICK, WHOLE = range(150), range(150, 2000)


class Worker:
    """A process of `tests.model.fuzz_worker`, started again when a mutant has ended it."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._noise = scratch, ""
        self._stderr = (scratch / "stderr").open("wb")
        self._errors = (scratch / "stderr").open("rb")
        self._start()

    def outcome(self, seed: int) -> dict[str, Any]:
        """What came of mutant `seed`."""
        self._tell(seed)
        made = self._answer(PATIENCE)
        answer = made and self._answer(PATIENCE)
        written = self._written()
        if made is None or answer is None:
            code = self._process.poll()
            self._end()
            self._start()
            how = f"ended the process ({code})" if code is not None else f"took over {PATIENCE} s"
            return {**(made or {"seed": seed}), "result": "defect", "detail": f"{how} {written}"}
        if written:
            return {**answer, "result": "defect", "detail": f"wrote to the terminal: {written}"}
        return answer

    def close(self) -> None:
        self._end()
        self._errors.close()
        self._stderr.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.fuzz_worker", str(self._scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"RUST_BACKTRACE": "0"},
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._process, self._answers)).start()
        assert self._answer(START), self._written()
        self._written()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def _tell(self, seed: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """The worker's next line; None when it is late or has ended."""
        try:
            while line := self._answers.get(timeout=seconds):
                if line.startswith(MARK):
                    answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                    return answer
                self._noise += line
        except queue.Empty:
            return None
        self._process.wait()
        return None

    def _written(self) -> str:
        """What else the worker wrote to standard output and error since the last look."""
        text = self._noise + self._errors.read().decode(errors="replace")
        self._noise = ""
        return text[-1000:]

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Sequence[Worker]]:
    made = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        made.append(Worker(tmp_path / str(number)))
    yield made
    for worker in made:
        worker.close()


def outcomes(workers: Sequence[Worker], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Of every seed, each worker taking the next one that is left."""
    left, done = iter(seeds), []
    lock = threading.Lock()

    def work(worker: Worker) -> None:
        while True:
            with lock:
                seed = next(left, None)
            if seed is None:
                return
            done.append(worker.outcome(seed))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def judge(found: list[dict[str, Any]], seeds: Sequence[int]) -> None:
    assert sorted(outcome["seed"] for outcome in found) == list(seeds)
    defects = [outcome for outcome in found if outcome["result"] == "defect"]
    assert not defects, "\n".join(
        f"seed {d['seed']} ({d.get('mutant')}): {d['detail']}" for d in defects
    )
    counts = Counter(outcome["result"] for outcome in found)
    # A fuzz that never gets past the first check, or never damages anything, would prove little.
    assert min(counts["loads"], counts["clean"]) > len(seeds) // 10


def test_random_damage_is_a_clean_error_or_does_no_harm(workers: Sequence[Worker]) -> None:
    judge(outcomes(workers, QUICK), QUICK)


@pytest.mark.slow
def test_more_random_damage_is_a_clean_error_or_does_no_harm(workers: Sequence[Worker]) -> None:
    judge(outcomes(workers, WHOLE), WHOLE)
