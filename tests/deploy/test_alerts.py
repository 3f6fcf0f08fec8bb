"""The alert rules: well-formed, each tested, and on metrics that the server has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.promql import DEPLOY, RULES, exported, metrics_in, missing, promtool, run_promtool
from tests.support.servers import Server

TESTS = RULES.with_name("alerts.test.yml")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    run_promtool("test", "rules", TESTS)


def test_every_alert_is_tested_firing_and_silent() -> None:
    checks = [check for test in yaml.safe_load(TESTS.read_text())["tests"] for check in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules()}
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == alerts
    assert {check["alertname"] for check in checks if not check.get("exp_alerts")} == alerts


@promtool
def test_the_test_of_the_alerts_can_fail(tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(
        RULES.read_text().replace("min_over_time(tokenformer_engine_up[5m]) == 0", "vector(0) > 1")
    )
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    with pytest.raises(AssertionError, match="TokenformerEngineDown"):
        run_promtool("test", "rules", tmp_path / TESTS.name)


@promtool
def test_prometheus_accepts_its_configuration() -> None:
    run_promtool("check", "rules", RULES)
    run_promtool("check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml")


@pytest.mark.server
def test_alerts_are_on_metrics_that_the_server_has(demo: Server) -> None:
    expressions = [rule["expr"] for rule in rules()]
    assert all(metrics_in(expression) for expression in expressions if not expression.startswith("up{"))
    assert missing(expressions, exported(httpx.get(f"{demo.url}/metrics").text)) == []
