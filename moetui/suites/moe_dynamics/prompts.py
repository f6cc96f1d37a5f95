"""The published runs' own prompts."""

from __future__ import annotations

PROMPTS = (
    "127 * 89 = ",
    "456 + 789 = ",
    "1000 - 357 = ",
    "What is 45 times 37?",
    "def fibonacci(n):",
    "import numpy as np",
    "class Database:",
    "for i in range(10):",
    "The capital of France is",
    "A synonym for happy is",
    "The opposite of cold is",
    "Shakespeare wrote",
    "Calculate 45 * 37 and explain",
    "Paris is to France as Tokyo is to",
    "Translate 'hello' to Spanish",
    "The quick brown fox jumps",
    "In the beginning, there was",
    "Once upon a time",
    "To be or not to be",
    "Hello, my name is",
)
"""Twenty, of the run on cold experts; predictors were fitted to such prompts too."""
