"""The only package that imports mlx: loading, capture, lens, generation, the engine thread."""
