"""Alarms and dashboard as text: every function is watched, by its own timeout; every metric exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow.jobs.services import METRICS

REPO = Path(__file__).resolve().parents[2]
RESOURCES: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())["Resources"]
FUNCTIONS = {name: body for name, body in RESOURCES.items() if body["Type"] == "AWS::Serverless::Function"}
ALARMS = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::CloudWatch::Alarm"}


def watched(alarm: str) -> dict[str, str]:
    """Function by the id of its metric in an alarm over all functions."""
    found = {}
    for metric in ALARMS[alarm]["Metrics"]:
        if "MetricStat" in metric:
            (dimension,) = metric["MetricStat"]["Metric"]["Dimensions"]
            found[metric["Id"]] = dimension["Value"]["Ref"]
    return found


@pytest.mark.parametrize("alarm", ["NearTimeoutAlarm", "ThrottlesAlarm"])
def test_every_function_is_watched(alarm: str) -> None:
    always = {name for name, body in FUNCTIONS.items() if "Condition" not in body}
    assert set(watched(alarm).values()) == always
    (expression,) = [metric["Expression"] for metric in ALARMS[alarm]["Metrics"] if "Expression" in metric]
    assert set(re.findall(r"\bm\d+\b", expression)) == set(watched(alarm))


def test_near_is_near_each_functions_own_timeout() -> None:
    (expression,) = [m["Expression"] for m in ALARMS["NearTimeoutAlarm"]["Metrics"] if "Expression" in m]
    limits = dict(re.findall(r"FILL\((m\d+), 0\)/(\d+)", expression))
    assert {name: int(limits[metric]) for metric, name in watched("NearTimeoutAlarm").items()} == {
        name: FUNCTIONS[name]["Properties"]["Timeout"] * 1000 for name in watched("NearTimeoutAlarm").values()
    }


def test_alarms_of_our_own_metrics_name_metrics_that_are_counted() -> None:
    own = {body["MetricName"] for body in ALARMS.values() if body.get("Namespace") == "structureflow"}
    assert own == {"JobsFailed", "Fallbacks"}
    assert own <= set(METRICS)


@pytest.mark.parametrize("alarm", ALARMS)
def test_alarms_tell_somebody_and_stay_quiet_without_data(alarm: str) -> None:
    assert ALARMS[alarm]["AlarmActions"] == {
        "Fn::If": ["HasAlarmEmail", [{"Ref": "AlarmTopic"}], {"Ref": "AWS::NoValue"}]
    }
    assert ALARMS[alarm]["TreatMissingData"] == "notBreaching"
    assert len(ALARMS[alarm]["AlarmDescription"]) > 30


def test_the_dashboard_is_json_and_shows_what_there_is() -> None:
    text: str = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    for name in set(re.findall(r"\$\{(\w+)[.}]", text)):
        assert name in RESOURCES, name
    widgets = json.loads(text)["widgets"]
    metrics = [metric for widget in widgets for metric in widget["properties"].get("metrics", [])]
    assert {metric[1] for metric in metrics if metric[0] == "structureflow"} <= set(METRICS)
    shown = {metric[3].strip("${}") for metric in metrics if metric[:2] == ["AWS/Lambda", "Duration"]}
    assert shown == {name for name, body in FUNCTIONS.items() if "Condition" not in body}
    (alarms,) = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    assert {alarm.removeprefix("${").removesuffix(".Arn}") for alarm in alarms} == set(ALARMS)
