"""The service under load, beside baselines, broken on purpose and over a long run."""
