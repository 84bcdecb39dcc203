"""Formats that a bundle is exported to: one folder a target; `registry` lists them."""
