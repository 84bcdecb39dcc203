"""Provenance is filled from the machine, and says so where it cannot be."""

import datetime
import json

import numpy as np

from mmllm.evaluate import provenance


def test_the_record_is_json_with_date_command_device_and_versions():
    record = json.loads(json.dumps(provenance.record()))
    assert datetime.datetime.fromisoformat(record["date"]).tzinfo is not None
    assert record["versions"]["numpy"] == np.__version__
    assert record["device"]["cores"] >= 1
    assert record["device"]["processor"]


def test_the_command_names_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/bin/mmllm", "bench", "--limit", "3"])
    assert provenance.command() == "mmllm bench --limit 3"
    monkeypatch.setattr("sys.argv", ["serving.py", "--litserve", "/opt/lit/bin/python"])
    assert provenance.command() == "serving.py --litserve python"
