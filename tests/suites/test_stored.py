"""A result read back is the result; anything else is refused with its cause."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moetui.suites import result_json, write_result
from moetui.suites.comparison import compare
from moetui.suites.stored import ResultFileError, open_result
from moetui.trace import to_json, trace_document
from tests.builders import make_trace
from tests.suites.sample import make_result


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_result(make_result(), path)
    assert open_result(path) == make_result()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"hello", "is not JSON"),
        (b"\xff\xfe\x00{", "is not JSON"),
        (b'{"suite": "\xff"}', "JSON"),
        (b"[1, 2]", "is JSON, but no result"),
        (b"{}", "is JSON, but no result"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=cause) as caught:
        open_result(path)
    assert caught.value.hint and "\n" not in caught.value.message


def test_a_file_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    whole = result_json(make_result())
    for size in (1, len(whole) // 3, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ResultFileError, match="cut off"):
            open_result(path)


def test_another_version_is_named(tmp_path: Path) -> None:
    document = json.loads(result_json(make_result()))
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**document, "schema_version": 99}))
    with pytest.raises(ResultFileError, match="result format 99; this moetui reads 1"):
        open_result(path)


def test_a_field_that_does_not_fit_is_named(tmp_path: Path) -> None:
    document = json.loads(result_json(make_result()))
    document["measures"][0]["statistic"]["p"] = 7
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ResultFileError, match="permutation p-value"):
        open_result(path)
    del document["measures"][0]["statistic"]
    path.write_text(json.dumps(document))
    with pytest.raises(ResultFileError, match="statistic") as caught:
        open_result(path)
    assert "written by another moetui: run the suite again" in caught.value.hint


def test_what_moetui_writes_beside_results_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(to_json(trace_document(make_trace())))
    with pytest.raises(ResultFileError, match="is JSON, but a trace") as caught:
        open_result(path)
    assert "moetui trace -o" in caught.value.hint
    path.write_bytes(to_json(compare(make_result(), make_result(), names=("a", "b"))))
    with pytest.raises(ResultFileError, match="a comparison"):
        open_result(path)


def test_folders_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="is a folder"):
        open_result(tmp_path)
    with pytest.raises(ResultFileError, match="no such file"):
        open_result(tmp_path / "none.json")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResultFileError, match="no regular file"):
        open_result(tmp_path / "pipe")
