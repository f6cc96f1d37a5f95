"""One file per analysis: pure functions from traces to result types."""
