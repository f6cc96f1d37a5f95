"""Models as the inventory describes them, on a machine that is the same everywhere."""

from __future__ import annotations

from moetui.model.inventory import FoundModel, Memory


def found(name: str, *, problem: str | None = None, fits: bool | None = True) -> FoundModel:
    memory = Memory(
        context=2048, weights=60 * 10**9, cache=10**9, captures=10**9, total=62 * 10**9,
        available=(70 if fits else 13) * 10**9,
    )  # fmt: skip
    if problem is not None:
        return FoundModel(name=name, path="/x", source="cache", disk_bytes=5, problem=problem)
    return FoundModel(
        name=name, path=f"/x/{name}", source="cache", disk_bytes=17_200_000_000, kind="moe",
        architecture="qwen3_moe", num_experts=128, top_k=8, num_layers=48, moe_layers=48,
        dtype="BF16", router_bits=16, memory=memory, fits=fits,
    )  # fmt: skip


MODELS = (
    found("demo"),
    found("demo-dense"),
    found("org/large", fits=False),
    found("org/small"),
    found("org/torn", problem="model.safetensors is damaged [bold]or\x1b[2J truncated"),
)
