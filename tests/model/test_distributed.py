"""Processes that mlx.launch starts together hand each other what they have."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import moetui
from moetui.errors import RunFailedError
from moetui.model import distributed
from tests.model.launched import SIZES, digests, payload

LAUNCH = Path(sysconfig.get_path("scripts")) / "mlx.launch"
ROOT = Path(__file__).parents[2]
WORKER = [sys.executable, "-m", "tests.model.launched"]
TIMEOUT = 300  # a safeguard: nothing here takes more than seconds


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens at."""
    for start in range(33_000 + os.getpid() % 20_000, 60_000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(sockets):
                one.bind(("127.0.0.1", start + number))
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
        return start
    raise AssertionError("no free ports")


def told(folder: Path, rank: int) -> Any:
    return json.loads((folder / f"{rank}.json").read_text())


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what every rank of a launch by mlx.launch wrote."""
    folder = tmp_path_factory.mktemp("launch")
    size: int = request.param
    options = ["-n", str(size), "--backend", "ring", "--starting-port", str(free_ports(size))]
    done = subprocess.run(
        [LAUNCH, *options, "--", *WORKER, "gather", folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=ROOT,
    )
    written = sorted(path.name for path in folder.iterdir())
    assert written == [f"{rank}.json" for rank in range(size)], done.stderr[-2000:]
    return folder


def test_every_rank_is_given_every_payload_whole_and_in_order(launch: Path) -> None:
    """Payloads of unequal length, empty ones, and ones beyond a single piece."""
    size = len(list(launch.iterdir()))
    sent = [digests([payload(rank, n) for rank in range(size)]) for n in SIZES]
    assert SIZES[-1] > distributed._PIECE
    for rank in range(size):
        assert told(launch, rank)["size"] == size
        assert told(launch, rank)["arrived"] == sent


def test_every_rank_computes_what_a_process_alone_computes(launch: Path) -> None:
    alone = moetui.load("demo").trace("127 + 45 =", lens=0).logits
    for rank in range(len(list(launch.iterdir()))):
        assert set(told(launch, rank)["logits"]) == set(digests([alone.tobytes()]))


def test_a_rank_whose_neighbour_died_does_not_wait_for_it(tmp_path: Path) -> None:
    start = free_ports(2)
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{start + rank}"] for rank in range(2)]))
    processes = [
        subprocess.Popen(
            [*WORKER, "bereave", tmp_path],
            env={**os.environ, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)},
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 3]
    said = told(tmp_path, 0)["messages"]
    assert all(message.startswith("another process of this run has ended") for message in said)


def test_a_process_that_was_started_alone_is_all_there_is_and_needs_no_mlx() -> None:
    program = (
        "import sys; from moetui.model.distributed import ranks; group = ranks(); "
        "assert (group.rank, group.size, group.gather(b'x')) == (0, 1, [b'x']); "
        "assert 'mlx.core' not in sys.modules"
    )
    alone = {k: v for k, v in os.environ.items() if k not in distributed._RANK_VARIABLES}
    subprocess.run([sys.executable, "-c", program], env=alone, cwd=ROOT, check=True)


def test_a_launch_of_one_is_all_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("\n")
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts"))
    alone = distributed.ranks()
    assert (alone.rank, alone.size, alone.gather(b"x")) == (0, 1, [b"x"])


def test_processes_that_cannot_meet_say_so(tmp_path: Path) -> None:
    """The port of this rank is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        hosts = tmp_path / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"], [f"127.0.0.1:{port}"]]))
        failed = subprocess.run(
            [*WORKER, "gather", tmp_path],
            env={**os.environ, "MLX_HOSTFILE": str(hosts), "MLX_RANK": "0"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            cwd=ROOT,
        )
    assert f"{RunFailedError.__name__}: the processes of this run cannot reach" in failed.stderr
