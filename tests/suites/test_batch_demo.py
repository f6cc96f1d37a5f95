"""`moetui batch attention_router` as a user runs it, on the bundled model."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.suites.attention_router import PROMPTS
from tests.suites.olmoe import Olmoe

COMMAND = [sys.executable, "-m", "moetui", "batch", "attention_router"]
LAYERS = (0, 4, 7)

pytestmark = pytest.mark.skipif(
    not (checkpoint("demo") / "model.safetensors").is_file(), reason="no demo checkpoint here"
)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    run = subprocess.run(
        [*COMMAND, "-m", "demo", "-o", "-", "--parameter", "corpus_documents=20",
         "--parameter", "mined_contexts=20", "--parameter", "mined_tokens=1",
         "--parameter", "causal_tokens=3", "--parameter", "shuffles=1", "--progress", "off"],
        capture_output=True, check=True, cwd=tmp_path_factory.mktemp("cwd"), timeout=300,
    )  # fmt: skip
    assert b"Seed rule" in run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def olmoe():
    return Olmoe(checkpoint("demo"))


def result(document, analysis):
    return next(c["result"] for c in document["cells"] if c["analysis"] == analysis)


def test_the_run_is_whole(document):
    # Twenty documents do not hold 200 token ids that five others hold.
    assert [c["analysis"] for c in document["cells"] if c["status"] != "done"] == ["token_identity"]
    assert len(document["cells"]) == 8
    assert document["models"][0]["info"]["num_experts"] == 16
    corpus = result(document, "corpus_decomposition")["corrected"]
    assert corpus["documents"] == 20 and corpus["tokens"] > 1000
    assert document["verdicts"][0]["seed"]["outcome"] in ("H1", "H2", "H3", "unclear")
    assert max(layer["completeness"] for layer in corpus["layers"]) < 1e-5
    for layer in corpus["layers"]:
        attention = next(p for p in layer["parts"] if p["part"] == "attention")
        for measure in ("per_token", "across_tokens", "margin"):
            found = attention[measure]
            assert found["ci_low"] < found["value"] < found["ci_high"]


def test_seed_ratios_equal_numpy_from_the_checkpoint(document, olmoe):
    seed = result(document, "decomposition")["seed"]
    assert [layer["layer"] for layer in seed["layers"]] == list(LAYERS)
    for layer in seed["layers"]:
        W, ratios = olmoe.router(layer["layer"]), []
        for prompt in PROMPTS:
            entered, _, _ = olmoe.streams(prompt)
            e = np.linalg.norm(W @ entered[0])
            d = np.linalg.norm(W @ (entered[layer["layer"]] - entered[0]))
            ratios.append(d / (e + d))
        assert layer["ratio"] == pytest.approx(np.mean(ratios), abs=1e-4)
        assert layer["ratio_std"] == pytest.approx(np.std(ratios), abs=1e-4)
        given = [p["ratio"] for p in layer["prompts"]]
        assert given == pytest.approx(ratios, abs=1e-4)


def test_corrected_shares_equal_numpy_from_the_checkpoint(document, olmoe):
    layers = result(document, "decomposition")["corrected"]["layers"]
    for layer in layers:
        L, shares = layer["layer"], []
        for prompt in PROMPTS:
            entered, attended, mixed = olmoe.streams(prompt)
            parts = np.stack([entered[0], attended[: L + 1].sum(axis=0), mixed[:L].sum(axis=0)])
            scale = np.sqrt((parts.sum(axis=0) ** 2).mean() + olmoe.config["rms_norm_eps"])
            z = parts / scale * olmoe.gain(L) @ olmoe.router(L).T
            z -= z.mean(axis=1, keepdims=True)
            total = z.sum(axis=0)
            shares.append(z @ total / (total @ total))
        expected = np.mean(shares, axis=0)
        given = [part["per_token"]["value"] for part in layer["parts"]]
        assert given == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_readings_of_the_demo_model_pass_every_check(document):
    found = result(document, "sanity")
    assert found["failed"] == [] and found["same_logits"] == found["texts"] == len(PROMPTS)
    for layer in found["layers"]:
        assert layer["reproduced"]["value"] == 1 and layer["completeness"] < 1e-5
        assert layer["ties"]["value"] == 0
    assert found["first_layer_ratio"] == 0 and found["router_bits"] == 16


def test_causal_effects_have_intervals_and_a_band_of_random_directions(document):
    found = result(document, "causal_check")
    assert found["documents"] == 20 and found["tokens"] == 20 * 3
    assert found["reproduced"]["value"] == 1
    for row in [*found["layers"], found["mean"]]:
        for part in row["parts"]:
            change, excess = part["resample"]["change"], part["resample"]["excess"]
            assert 0 <= change["null_low"] <= change["null_mean"] <= change["null_high"] <= 1
            assert excess["value"] == pytest.approx(change["value"] - change["null_mean"])
    first = found["layers"][0]["parts"][2]["resample"]
    assert first["change"]["value"] == first["length"]["value"] == 0  # no expert ran before


def test_sources_sum_to_the_shares_of_their_parts(document):
    corpus = result(document, "corpus_decomposition")
    for router, layer in zip(corpus["sources"], corpus["corrected"]["layers"], strict=True):
        assert router["layer"] == layer["layer"]
        for part in layer["parts"]:
            own = [s for s in router["sources"] if s["part"] == part["part"]]
            total = sum(s["across_tokens"]["value"] for s in own)
            assert total == pytest.approx(part["across_tokens"]["value"], abs=1e-4)
            assert all(s["layer"] is None or s["layer"] <= layer["layer"] for s in own)


def test_replacing_a_part_equals_numpy_from_the_checkpoint(olmoe):
    """The whole answer of a router about one changed stream, written out."""
    model, layer = moetui.load("demo"), 4
    for prompt, donor in zip(PROMPTS[:4], PROMPTS[4:8], strict=True):
        streams, other = olmoe.streams(prompt), olmoe.streams(donor)
        parts, instead = (
            np.stack([e[0], a[: layer + 1].sum(axis=0), m[:layer].sum(axis=0)])
            for e, a, m in (streams, other)
        )
        trace = model.trace(prompt, lens=0, sources=(layer,))
        assert trace.sources.parts[-1, 0] == pytest.approx(parts, abs=1e-4)
        for part in range(3):
            h = parts.sum(axis=0) - parts[part] + instead[part]
            scale = np.sqrt((h**2).mean() + olmoe.config["rms_norm_eps"])
            logits = olmoe.router(layer) @ (h / scale * olmoe.gain(layer))
            expected = sorted(np.argsort(-logits)[: olmoe.config["num_experts_per_tok"]].tolist())
            assert model.routes(layer, h[None].astype(np.float32))[0].tolist() == expected


def test_ctrl_c_exits_130_without_a_result(tmp_path):
    run = subprocess.Popen(
        [*COMMAND, "-o", "out", "--progress", "json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    seen = b""
    while b'"step"' not in seen:
        line = run.stderr.readline()
        assert line, "ended before it began to trace"
        seen += line
    time.sleep(0.2)
    os.kill(run.pid, signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 130 and out == b""
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_dense_model_ends_well(tmp_path):
    run = subprocess.run(
        [*COMMAND, "-m", "demo-dense", "-o", "-"],
        check=False,
        capture_output=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert run.returncode == 0
    assert json.loads(run.stdout)["verdicts"][0]["corrected"]["outcome"] == "inconclusive"
