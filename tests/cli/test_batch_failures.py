"""What a batch run does when models, folders, disks or its user let it down: nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moetui.demo import checkpoint
from tests.model.editing import WEIGHTS
from tests.model.zoo import QWEN, hollow, placed, qwen_shapes

ROOT = 0
REPOSITORY = Path(__file__).parents[2]
WORKER = [sys.executable, "-m", "tests.cli.batch_worker"]
TIMEOUT = 300  # a safeguard: nothing here takes more than seconds


def start(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A run in `folder`, in a process group of its own, as a shell starts a command."""
    return subprocess.Popen(
        [*WORKER, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the run still says until it ends; one that does not end is not left behind."""
    try:
        return process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def batch(folder: Path, *arguments: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, standard output and error of a run that ends by itself."""
    process = start(folder, *arguments, **options)
    out, err = ended(process)
    return process.returncode, out, err


def said(err: str) -> list[str]:
    """Everything on standard error but progress."""
    return [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]


def is_clear(err: str) -> bool:
    """One line with the cause, one with the next step, and no trace of how the program works."""
    told = said(err)
    return (
        [line.split(":")[0] for line in told] == ["error", "hint"]
        and "Traceback" not in err
        and "defect" not in err
    )


def statuses(document: Any) -> dict[str, str]:
    return {cell["model"]: cell["status"] for cell in document["cells"]}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """By what is wrong with them."""
    damaged = placed(tmp_path / "damaged")
    (damaged / WEIGHTS).write_bytes((checkpoint("demo") / WEIGHTS).read_bytes()[:-100])
    nan = placed(tmp_path / "nan")
    raw = bytearray((nan / WEIGHTS).read_bytes())
    raw[-2:] = b"\xc0\x7f"  # a bfloat16 that is no number
    (nan / WEIGHTS).write_bytes(raw)
    large = {**QWEN, "num_hidden_layers": 48}
    hollow(tmp_path / "large", large, qwen_shapes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint("demo") / name, tmp_path / "large")
    return {
        "missing": "./nowhere",
        "damaged": "./damaged",
        "with weights that are no numbers": "./nan",
        "too large": "./large",
    }


def test_models_that_fail_cost_nothing_of_the_others(
    models: dict[str, str], tmp_path: Path
) -> None:
    names = [*models.values(), "demo", "demo-dense"]
    options = [word for name in names for word in ("-m", name)]
    code, out, err = batch(tmp_path, *options, "-o", "result.json")
    assert (code, out) == (1, "result.json\n"), err
    document = json.loads((tmp_path / "result.json").read_text())
    failed = dict.fromkeys(models.values(), "failed")
    assert statuses(document) == {**failed, "demo": "done", "demo-dense": "inconclusive"}
    assert document["cells"][-2]["result"]["sampled"] > 0
    reasons = {record["name"]: record["failure"] for record in document["models"]}
    for name, words in {
        "./nowhere": "no such model",
        "./damaged": "damaged",
        "./nan": "holds 1 values that are NaN",
        "./large": "does not fit into memory",
    }.items():
        assert words in reasons[name]
        assert words in " ".join(err.split())
    assert reasons["demo"] is None and reasons["demo-dense"] is None
    assert "Traceback" not in err


def test_only_the_failed_models_are_run_again_after_they_are_mended(
    models: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["-m", "demo", "-m", models["damaged"], "-o", "result.json"]
    assert batch(tmp_path, *arguments)[0] == 1
    shutil.copy(checkpoint("demo") / WEIGHTS, tmp_path / "damaged")
    code, _, err = batch(tmp_path, *arguments, "--resume", "--progress", "json")
    assert code == 0
    finished = [json.loads(line) for line in err.splitlines() if '"finish"' in line]
    assert all(event["reused"] for event in finished if event["cell"]["model"] == "demo")
    document = json.loads((tmp_path / "result.json").read_text())
    assert set(statuses(document).values()) == {"done"}


@pytest.mark.parametrize(
    "why", ["missing", "damaged", "with weights that are no numbers", "too large"]
)
def test_where_nothing_succeeds_the_error_is_the_models_own(
    why: str, models: dict[str, str], tmp_path: Path
) -> None:
    code, out, err = batch(tmp_path, "-m", models[why], "-o", "result.json")
    assert (code, out) == (2, "")
    assert is_clear(err), err
    assert not (tmp_path / "result.json").exists()


def test_a_model_that_is_none_has_no_null_model_either(tmp_path: Path) -> None:
    code, out, err = batch(tmp_path, "-m", "./nowhere", "-o", "result.json", "--null-model")
    assert (code, out) == (2, "")
    assert is_clear(err) and "no such model" in err


def test_a_null_model_stands_where_the_trained_one_could_not_be_read(
    models: dict[str, str], tmp_path: Path
) -> None:
    name = models["with weights that are no numbers"]
    code, out, _ = batch(tmp_path, "-m", name, "-o", "result.json", "--null-model")
    assert (code, out) == (1, "result.json\n")
    document = json.loads((tmp_path / "result.json").read_text())
    assert statuses(document) == {name: "failed", f"{name} (random weights)": "done"}


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("texts", "is not KEY=JSON"),
        ("texts=", "is not JSON"),
        ("texts=[1", "is not JSON"),
        ("texts=many", "is not JSON"),
        ("other.texts=3", "is not among the suites to run"),
        ("=3", "is not KEY=JSON"),
    ],
)
def test_a_bad_parameter_is_refused_before_any_file_is_made(
    assignment: str, says: str, tmp_path: Path
) -> None:
    code, out, err = batch(tmp_path, "--parameter", assignment, "-o", "folder")
    assert (code, out) == (2, "")
    assert says in err and is_clear(err)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write into; root may into all but the system's own."""
    if os.geteuid() == ROOT:
        yield Path("/proc/self")
        return
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (".", "cannot be written"),
        ("result.json", "cannot be written"),
        ("deeper", "cannot make the folder"),
        ("deeper/result.json", "cannot make the folder"),
    ],
)
def test_a_folder_that_may_not_be_written_is_said_to_be_so(
    output: str, said: str, closed: Path, tmp_path: Path
) -> None:
    code, out, err = batch(tmp_path, "-m", "demo", "-o", str(closed / output))
    assert (code, out) == (2, "")
    assert is_clear(err) and said in err, err


def limit(size: int) -> Callable[[], None]:
    """A disk with room for files of `size` bytes and no more."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_said_to_be_full_and_leaves_no_halves(tmp_path: Path) -> None:
    code, out, err = batch(tmp_path, "-m", "demo", "-o", "result.json", preexec_fn=limit(20))
    assert code != 0 and out == ""
    assert is_clear(err) and "File too large" in err, err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_result_that_does_not_fit_on_the_disk_can_be_had_later(tmp_path: Path) -> None:
    arguments = ["-m", "demo", "-o", "result.json"]
    code, out, err = batch(tmp_path, *arguments, preexec_fn=limit(1200))
    assert code != 0 and out == ""
    assert is_clear(err) and "File too large" in err, err
    assert not (tmp_path / "result.json").exists()
    code, _, err = batch(tmp_path, *arguments, "--resume", "--progress", "json")
    assert code == 0
    assert '"reused":true' in err and '"reused":false' not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_standard_output_on_a_full_disk_is_said_to_be_so(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = batch(tmp_path, "-m", "demo", "-o", "-", stdout=full)
    assert code == 1
    assert is_clear(err) and "No space left" in err, err


def cells(folder: Path) -> int:
    return len(list(folder.glob(".cells/*.cell")))


def interrupted(folder: Path, number: int, event: str, *arguments: str) -> tuple[int, str, str]:
    """A run whose process group gets the signal `number` at its third `event`."""
    process = start(folder, "-m", "demo", "-o", "result.json", "--progress", "json", *arguments)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if sum(f'"event":"{event}"' in one for one in seen) == 3:
            os.killpg(process.pid, number)
            break
    out, err = ended(process)
    return process.returncode, out, "".join(seen) + err


LONG = ["--parameter", "texts=4000"]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    code, out, err = interrupted(tmp_path, signal.SIGINT, "finish", *LONG)
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert "interrupted: finished cells are in .cells" in err and "--resume" in err
    assert not (tmp_path / "result.json").exists()
    assert 3 <= cells(tmp_path) < 1000


def test_ctrl_c_does_not_wait_for_the_cell_to_end(tmp_path: Path) -> None:
    endless = ["--parameter", "texts=0", "--parameter", "endless=true"]
    process = start(tmp_path, "-m", "demo", "-o", "r.json", "--progress", "json", *endless)
    assert process.stderr is not None
    next(line for line in process.stderr if '"step"' in line)
    os.killpg(process.pid, signal.SIGINT)
    _, err = ended(process)
    assert process.returncode == 130 and "Traceback" not in err


def test_ctrl_c_while_the_model_loads_ends_the_run(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "demo", "-o", "r.json", "--progress", "json", *LONG)
    assert process.stderr is not None
    next(line for line in process.stderr if '"plan"' in line)
    os.killpg(process.pid, signal.SIGINT)
    _, err = ended(process)
    assert process.returncode == 130, err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_from_outside_goes_on_from_its_cells(
    number: int, tmp_path: Path
) -> None:
    few = ["--parameter", "texts=200"]
    code, out, err = interrupted(tmp_path, number, "finish", *few)
    assert code in (-number, 128 + number) and out == ""
    assert "Traceback" not in err
    kept = cells(tmp_path)
    assert kept >= 3 and not (tmp_path / "result.json").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".json")]
    code, _, err = batch(tmp_path, "-m", "demo", "-o", "result.json", "--progress", "json",
                         "--resume", *few)  # fmt: skip
    assert code == 0
    # The model's own description is a cell too, and none that is announced.
    assert err.count('"reused":true') == kept - 1


def test_a_reader_that_closes_the_pipe_is_no_failure(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, err = batch(tmp_path, "-m", "demo", "-o", "-", "--progress", "off", stdout=writing)
    os.close(writing)
    assert "Traceback" not in err and said(err) == []
    assert code == 0
