"""A result says where it comes from and stands whole under its kind."""

import json

from experiments import runner
from mmllm.common import config as config_lib
from tests import tiny_run


def test_a_result_holds_its_fields_and_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    path = runner.write("limits", tiny_run.CONFIG, {"rows": [1]})
    result = json.loads(path.read_text())
    assert [each.name for each in tmp_path.iterdir()] == ["limits.json"]
    assert (result["kind"], result["config"], result["rows"]) == ("limits", "tiny", [1])
    assert result["config_sha256"] == config_lib.sha256(tiny_run.CONFIG)
    assert {"date", "command", "git", "device", "versions"} <= set(result)
