"""The Grafana dashboard, short of drawing it: its expressions are sound, and find data in a real Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import OpenAI

from tests.deploy.promql import DEPLOY, exported, metrics_in, missing, promtool, run_promtool
from tests.support.ports import free_ports
from tests.support.servers import Server

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "tokenformer.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {"$job": "tokenformer", "$instance": ".*", "$model": ".*", "$__rate_interval": "10s"}
NOTHING_YET = {"tokenformer_rejected_requests_total"}
"""Counters that have no series before their first event, which a healthy server does not have."""

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus; on Debian: apt-get install prometheus"
)


def expressions() -> list[str]:
    """Every panel's, with the dashboard's variables filled in as Grafana would."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def test_panels_have_ids_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_panels_say_what_they_show_and_ask_the_chosen_data_source() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {source["uid"] for source in sources} == {"${datasource}"}, panel["title"]


def test_only_declared_variables_are_used() -> None:
    declared = {f"${variable['name']}" for variable in DASHBOARD["templating"]["list"]}
    assert declared | {"$__rate_interval"} == set(VARIABLES) | {"$datasource"}
    assert [expression for expression in expressions() if "$" in expression] == []


def test_dashboard_and_data_source_are_where_grafana_is_told_to_look() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tokenformer.yml").read_text())["providers"]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    interval = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose


@promtool
def test_expressions_are_sound(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run_promtool("check", "rules", "--lint=none", tmp_path / "panels.yml")


@pytest.mark.server
def test_panels_are_on_metrics_that_the_server_has(demo: Server) -> None:
    assert all(metrics_in(expression) for expression in expressions() if not expression.startswith("up{"))
    assert missing(expressions(), exported(httpx.get(f"{demo.url}/metrics").text)) == []


@contextmanager
def prometheus(server: Server, folder: Path, **labels: str) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes `server` every second, as the job that the dashboard expects, and adds `labels`."""
    (port,) = free_ports(1)
    target = {"targets": [server.url.removeprefix("http://")], "labels": labels}
    jobs = [{"job_name": "tokenformer", "static_configs": [target]}]
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs})
    )
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def result(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def scrapes(client: httpx.Client) -> int:
    try:
        if client.get("/-/ready").status_code != 200:
            return 0  # it reads its files
        found = result(client, "count_over_time(up[1m])")
    except httpx.TransportError:
        return 0  # it starts
    return int(found[0]["value"][1]) if found else 0


def wait_for_scrapes(client: httpx.Client, more: int) -> None:
    deadline, wanted = time.monotonic() + 60, scrapes(client) + more
    while scrapes(client) < wanted:
        assert time.monotonic() < deadline, "Prometheus does not scrape"
        time.sleep(0.2)


@pytest.mark.server
@needs_prometheus
def test_every_panel_finds_data_in_a_prometheus(demo: Server, client: OpenAI, tmp_path: Path) -> None:
    question: Any = {"role": "user", "content": "What is the capital of Peru?"}

    def ask() -> None:
        for chunk in client.chat.completions.create(model="demo", messages=[question], stream=True):
            assert chunk.id

    ask()  # series with labels exist from the first request on
    assert httpx.get(f"{demo.url}/readyz").status_code == 200
    with prometheus(demo, tmp_path) as database:
        wait_for_scrapes(database, 2)
        ask()
        wait_for_scrapes(database, 2)
        without = [expression for expression in expressions() if not result(database, expression)]
    assert [expression for expression in without if not metrics_in(expression) & NOTHING_YET] == []
