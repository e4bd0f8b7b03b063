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

#: Each pair watches all functions: those of jobs, and those that answer screens.
NEAR = ("NearTimeoutAlarm", "ScreensNearTimeoutAlarm")
THROTTLED = ("ThrottlesAlarm", "ScreensThrottledAlarm")


def chosen(node: Any, *, tasks: bool) -> Any:
    """What a value is with a part that orders are left for, the GPU's or Batch's, or without."""
    if isinstance(node, list):
        found = [chosen(item, tasks=tasks) for item in node]
        return [item for item in found if item != {"Ref": "AWS::NoValue"}]
    if isinstance(node, dict):
        if "Fn::If" in node and node["Fn::If"][0] == "HasOrders":
            return chosen(node["Fn::If"][1 if tasks else 2], tasks=tasks)
        return {key: chosen(value, tasks=tasks) for key, value in node.items()}
    return node


def metrics(alarm: str, *, tasks: bool) -> tuple[str, dict[str, str]]:
    """The expression of an alarm over all functions, and the function by the id of its metric."""
    found = {}
    expressions = []
    for metric in chosen(ALARMS[alarm]["Metrics"], tasks=tasks):
        if "MetricStat" in metric:
            (dimension,) = metric["MetricStat"]["Metric"]["Dimensions"]
            found[metric["Id"]] = dimension["Value"]["Ref"]
        else:
            expressions.append(metric["Expression"])
    (expression,) = expressions
    return expression, found


def deployed(*, tasks: bool) -> set[str]:
    return {name for name, body in FUNCTIONS.items() if tasks or body.get("Condition") != "HasOrders"}


def test_the_function_of_the_way_back_is_one_of_them() -> None:
    assert deployed(tasks=True) - deployed(tasks=False) == {"SettleGpuFunction"}


@pytest.mark.parametrize("tasks", [False, True])
@pytest.mark.parametrize("pair", [NEAR, THROTTLED], ids=["near", "throttled"])
def test_every_deployed_function_is_watched_once(pair: tuple[str, str], tasks: bool) -> None:
    named: list[str] = []
    for alarm in pair:
        expression, watched = metrics(alarm, tasks=tasks)
        assert set(re.findall(r"\bm\d+\b", expression)) == set(watched)
        named += watched.values()
    assert sorted(named) == sorted(deployed(tasks=tasks))


@pytest.mark.parametrize("alarm", ALARMS)
def test_no_alarm_has_more_metrics_than_cloudwatch_takes(alarm: str) -> None:
    """A hard limit of alarms on metric math (CloudWatch User Guide, "Limits that apply to alarms …")."""
    queries = chosen(ALARMS[alarm].get("Metrics", []), tasks=True)
    assert sum("MetricStat" in query for query in queries) <= 10


@pytest.mark.parametrize("tasks", [False, True])
@pytest.mark.parametrize("alarm", NEAR)
def test_near_is_near_each_functions_own_timeout(alarm: str, tasks: bool) -> None:
    expression, watched = metrics(alarm, tasks=tasks)
    limits = dict(re.findall(r"FILL\((m\d+), 0\)/(\d+)", expression))
    assert {name: int(limits[metric]) for metric, name in watched.items()} == {
        name: FUNCTIONS[name]["Properties"]["Timeout"] * 1000 for name in watched.values()
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


@pytest.mark.parametrize("tasks", [False, True])
def test_the_dashboard_is_json_and_shows_what_there_is(tasks: bool) -> None:
    text, variables = chosen(RESOURCES["Dashboard"]["Properties"]["DashboardBody"], tasks=tasks)["Fn::Sub"]
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value["Fn::Sub"] if isinstance(value, dict) else value)
    for name in set(re.findall(r"\$\{(\w+)[.}]", text)):
        assert name in RESOURCES, name
    widgets = json.loads(text)["widgets"]
    shown = [metric for widget in widgets for metric in widget["properties"].get("metrics", [])]
    assert {metric[1] for metric in shown if metric[0] == "structureflow"} <= set(METRICS)
    for measure in ("Duration", "Errors", "Throttles"):
        named = {metric[3].strip("${}") for metric in shown if metric[:2] == ["AWS/Lambda", measure]}
        assert named == deployed(tasks=tasks)
    (alarms,) = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    assert {alarm.removeprefix("${").removesuffix(".Arn}") for alarm in alarms} == set(ALARMS)
