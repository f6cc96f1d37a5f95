"""The demo model's forward pass written in numpy from its checkpoint: a second opinion.

Nothing of moetui or mlx is used, only the weights file, the tokenizer file and OLMoE's definition
(arXiv 2409.02060; Hugging Face `modeling_olmoe.py`).
"""

import json
import struct

import numpy as np
from tokenizers import Tokenizer


class Olmoe:
    """The weights of an OLMoE checkpoint folder, as float64."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.weights = _bfloat16_weights(folder / "model.safetensors")

    def streams(self, text):
        """Residual stream of the last token: what each layer received, what attention and the
        experts added: three arrays [layers, hidden]."""
        entered, attended, mixed = self.all_streams(text)
        return entered[:, -1], attended[:, -1], mixed[:, -1]

    def all_streams(self, text):
        """The same of every token: three arrays [layers, T, hidden]."""
        ids = self.tokenizer.encode(text).ids
        h = self.weights["model.embed_tokens.weight"][ids]
        entered, attended, mixed = [], [], []
        for layer in range(self.config["num_hidden_layers"]):
            entered.append(h)
            a = self._attention(layer, self._norm(h, f"layers.{layer}.input_layernorm"))
            u = self._norm(h + a, f"layers.{layer}.post_attention_layernorm")
            m = np.stack([sum(self.chosen(layer, row).values()) for row in u])
            attended.append(a)
            mixed.append(m)
            h = h + a + m
        return np.array(entered), np.array(attended), np.array(mixed)

    def router(self, layer):
        """[E, H]."""
        return self._matrix(f"layers.{layer}.mlp.gate")

    def gain(self, layer):
        """The weight of the norm before the router, [H]."""
        return self._matrix(f"layers.{layer}.post_attention_layernorm")

    def _matrix(self, name):
        return self.weights[f"model.{name}.weight"]

    def _norm(self, x, name):
        scale = np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / scale * self._matrix(name)

    def _attention(self, layer, x):
        return self._heads(layer, x).sum(axis=1)

    def heads(self, layer, entered):
        """[T, heads, H]: what every head adds to the stream for streams entering the layer."""
        return self._heads(layer, self._norm(entered, f"layers.{layer}.input_layernorm"))

    def _heads(self, layer, x):
        name, heads, T = f"layers.{layer}.self_attn", self.config["num_attention_heads"], len(x)
        q = self._norm(x @ self._matrix(f"{name}.q_proj").T, f"{name}.q_norm")
        k = self._norm(x @ self._matrix(f"{name}.k_proj").T, f"{name}.k_norm")
        v = x @ self._matrix(f"{name}.v_proj").T
        q, k, v = (a.reshape(T, heads, -1).transpose(1, 0, 2) for a in (q, k, v))
        q, k = self._rotated(q), self._rotated(k)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        o = self._matrix(f"{name}.o_proj")
        blocks = o.reshape(len(o), heads, -1).transpose(1, 2, 0)
        return ((weights @ v) @ blocks).transpose(1, 0, 2)

    def _rotated(self, x):
        T, half = x.shape[1], x.shape[-1] // 2
        frequency = self.config["rope_theta"] ** (-np.arange(half) / half)
        angle = np.arange(T)[:, None] * frequency
        first, second = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def read(self, layer, h):
        """The router's input for a stream h [H]."""
        return self._norm(h, f"layers.{layer}.post_attention_layernorm")

    def chosen(self, layer, u):
        """{expert: what it adds to the stream [H]} for a router's input u [H]."""
        z = self.router(layer) @ u
        p = np.exp(z - z.max())
        p /= p.sum()
        added = {}
        for e in np.argsort(-z)[: self.config["num_experts_per_tok"]]:
            name = f"layers.{layer}.mlp.experts.{e}"
            gate, up = (self._matrix(f"{name}.{part}_proj") @ u for part in ("gate", "up"))
            output = self._matrix(f"{name}.down_proj") @ (gate / (1 + np.exp(-gate)) * up)
            added[int(e)] = p[e] * output
        return added


def _bfloat16_weights(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        assert entry["dtype"] == "BF16"
        start, stop = entry["data_offsets"]
        # A bfloat16 is the upper half of a float32.
        bits = np.frombuffer(data[start:stop], "<u2").astype(np.uint32) << 16
        found[name] = bits.view(np.float32).astype(np.float64).reshape(entry["shape"])
    return found
