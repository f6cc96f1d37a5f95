"""Several processes that share a run find what one alone finds."""

import threading

import pytest

from moetui.errors import ModelError, RunFailedError
from moetui.suites import result_json, run_prepared
from moetui.suites.ranks import Alone, shared
from tests.suites.test_runner import TEXTS, timeless
from tests.suites.toy import Count, ToyModel, ToyModels, ToySuite


class Threads:
    """Ranks as threads of one process, meeting at a barrier."""

    def __init__(self, size):
        self._slots = [b""] * size
        self._barrier = threading.Barrier(size)

    def rank(self, number):
        return _Rank(self, number, len(self._slots))

    def gather(self, number, payload):
        self._slots[number] = payload
        self._barrier.wait(20)
        found = list(self._slots)
        self._barrier.wait(20)
        return found


class _Rank:
    def __init__(self, threads, rank, size):
        self.threads, self.rank, self.size = threads, rank, size

    def gather(self, payload):
        return self.threads.gather(self.rank, payload)


def together(size, work):
    """What `work(ranks)` returns or raises on every rank."""
    group, found = Threads(size), [None] * size

    def one(number):
        try:
            found[number] = work(group.rank(number))
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.mark.parametrize("size", [2, 3, 5])
def test_ranks_read_each_text_once_and_the_first_has_the_same_result(size):
    models = [ToyModel("a") for _ in range(size)]

    def work(ranks):
        source = ToyModels(a=models[ranks.rank])
        return run_prepared(ToySuite(["a"], TEXTS), source=source, seed=5, ranks=ranks)

    alone = run_prepared(ToySuite(["a"], TEXTS), source=ToyModels(a=ToyModel("a")), seed=5)
    found = together(size, work)
    assert timeless(found[0]) == timeless(alone)
    assert sorted(text for model in models for text in model.read) == sorted(TEXTS)
    assert models[0].read and models[1].read


def test_a_failure_on_one_rank_is_told_on_all_and_nobody_waits():
    def work(ranks):
        broken = {"three": ModelError("bad row", "mend it")} if ranks.rank == 1 else {}
        source = ToyModels(a=ToyModel("a", broken=broken), b=ToyModel("b"))
        return run_prepared(ToySuite(["a", "b"], TEXTS), source=source, ranks=ranks)

    result = together(2, work)[0]
    assert [c.status for c in result.cells] == ["failed", "failed", "done", "done"]
    assert result.cells[0].reason == "rank 1: bad row (mend it)"


def test_a_model_that_one_rank_cannot_load_is_failed_on_all():
    def work(ranks):
        a = ModelError("no memory", "close something") if ranks.rank else ToyModel("a")
        source = ToyModels(a=a, b=ToyModel("b"))
        return run_prepared(ToySuite(["a", "b"], TEXTS), source=source, ranks=ranks)

    result = together(2, work)[0]
    assert [c.status for c in result.cells] == ["failed", "failed", "done", "done"]
    assert "no memory" in result.models[0].failure


def test_statistics_that_fail_on_the_first_rank_leave_all_in_step():
    """They are computed there alone; what needs the same partials goes on with them on all."""

    class NoStatistics(Count):
        def reduce(self, info, partials, *, seed):
            raise ValueError("a defect")

    def work(ranks):
        suite = ToySuite(["a", "b"], TEXTS)
        suite.analyses = (NoStatistics(TEXTS), *suite.analyses[1:])
        source = ToyModels(a=ToyModel("a"), b=ToyModel("b"))
        return run_prepared(suite, source=source, ranks=ranks)

    result = together(2, work)[0]
    assert [c.status for c in result.cells] == ["failed", "done", "failed", "done"]
    assert result.cells[0].reason == "ValueError: a defect"
    assert result.cells[1].result.sampled == sum(ord(c) for text in TEXTS for c in text)


def test_defects_are_shared_as_errors_too():
    def work(ranks):
        return shared(ranks, lambda: b"x" if ranks.rank else bytes(1 / 0))

    first, second = together(2, work)
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, RunFailedError) and "rank 0: ZeroDivisionError" in second.message


def test_one_process_needs_no_group():
    assert Alone().gather(b"x") == [b"x"]
    result = run_prepared(ToySuite(["a"], TEXTS), source=ToyModels(a=ToyModel("a")))
    assert result_json(result).endswith(b"\n")
