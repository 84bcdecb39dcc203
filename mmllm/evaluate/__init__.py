"""Runtime answers -> numbers: metrics, the benchmark over the test splits, baselines, reports."""
