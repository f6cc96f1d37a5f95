"""Numbers of bytes as people say them."""

from __future__ import annotations


def size_text(size: int) -> str:
    """`81 bytes`, `12 kB`, `84 MB`, `1.3 GB`: powers of 1,000."""
    if size >= 10**9:
        return f"{size / 10**9:.1f} GB"
    if size >= 10**6:
        return f"{size / 10**6:.0f} MB"
    return f"{size / 10**3:.0f} kB" if size >= 10**3 else f"{size} bytes"
