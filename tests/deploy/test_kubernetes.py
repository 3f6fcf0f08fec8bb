"""The Kubernetes manifests: valid, closed, and in step with the image, the server and each other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from server.engine.settings import GRACE_SECONDS
from server.process.flags import add_flags
from server.process.lifecycle import DELIVERY_SECONDS
from tests.deploy.promql import DEPLOY, RULES, exported
from tests.deploy.test_compose import SERVICES
from tests.deploy.test_dashboard import needs_prometheus, prometheus, result, wait_for_scrapes
from tests.deploy.test_image import arguments, stages
from tests.support.servers import Server

FOLDER = DEPLOY / "kubernetes"
SCHEMAS = "1.37"
CUSTOM = {"ServiceMonitor"}
"""Kinds that operators add to a cluster: Kubernetes has no schema of theirs."""


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


KUSTOMIZATION = read("kustomization.yaml")
MANIFESTS = {manifest["kind"]: manifest for manifest in map(read, KUSTOMIZATION["resources"])}
SPEC: dict[str, Any] = {kind: manifest["spec"] for kind, manifest in MANIFESTS.items()}
POD = SPEC["Deployment"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PROBES = {name: CONTAINER[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
(RULE,) = read("prometheus-adapter.yaml")["rules"]
(METRIC,) = SPEC["HorizontalPodAutoscaler"]["metrics"]


@pytest.mark.parametrize("kind", sorted(MANIFESTS.keys() - CUSTOM))
def test_a_manifest_is_valid_and_has_no_unknown_field(kind: str) -> None:
    kubernetes_validate.validate(MANIFESTS[kind], SCHEMAS, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    wrong = MANIFESTS["Service"] | {"spec": SPEC["Service"] | {"port": 8000}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMAS, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_renders_every_manifest() -> None:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], check=True, capture_output=True, text=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    assert {manifest["kind"] for manifest in rendered} == MANIFESTS.keys()
    (deployment,) = (manifest for manifest in rendered if manifest["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == SERVICES["server"]["image"]


def test_every_file_is_used() -> None:
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == others | set(KUSTOMIZATION["resources"])


def test_selectors_find_what_they_are_for() -> None:
    labels = POD["metadata"]["labels"]
    assert SPEC["Deployment"]["selector"] == SPEC["PodDisruptionBudget"]["selector"] == {"matchLabels": labels}
    assert SPEC["Service"]["selector"] == labels
    assert SPEC["ServiceMonitor"]["selector"] == {"matchLabels": MANIFESTS["Service"]["metadata"]["labels"]}
    target = SPEC["HorizontalPodAutoscaler"]["scaleTargetRef"]
    deployment = MANIFESTS["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }


def test_ports_are_those_of_the_image_and_of_each_other() -> None:
    (port,) = CONTAINER["ports"]
    assert [str(port["containerPort"])] == arguments(stages()["cpu"], "EXPOSE")
    (offered,) = SPEC["Service"]["ports"]
    assert (offered["targetPort"], offered["port"]) == (port["name"], port["containerPort"])
    (endpoint,) = SPEC["ServiceMonitor"]["endpoints"]
    assert endpoint["port"] == offered["name"]
    assert {probe["httpGet"]["port"] for probe in PROBES.values()} == {port["name"]}


def test_the_server_knows_the_flags() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    command, model, *flags = CONTAINER["args"]
    parser = make_arg_parser(FlexibleArgumentParser())
    add_flags(parser)
    known, unknown = parser.parse_known_args([model, *flags])
    assert (command, unknown) == ("serve", [])
    assert (known.host, known.port) == ("0.0.0.0", CONTAINER["ports"][0]["containerPort"])
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert {known.model_tag, str(Path(known.api_key_file).parent), "/tmp", "/dev/shm"} == mounts


def test_running_requests_may_finish_before_the_pod_is_killed() -> None:
    program, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert POD["spec"]["terminationGracePeriodSeconds"] > int(seconds) + GRACE_SECONDS + DELIVERY_SECONDS


def test_the_pod_has_no_privileges_and_the_images_user() -> None:
    context = POD["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    user = [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert user == arguments(stages()["cpu"], "USER")
    assert CONTAINER["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["automountServiceAccountToken"] is False


def test_every_volume_is_mounted_and_secrets_are_of_one_secret() -> None:
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes.keys()
    (endpoint,) = SPEC["ServiceMonitor"]["endpoints"]
    assert endpoint["authorization"]["credentials"]["name"] == volumes["keys"]["secret"]["secretName"]
    section = (DEPLOY.parent / "docs" / "deploy.md").read_text().split("## Kubernetes")[1].split("\n## ")[0]
    for name in (volumes["keys"]["secret"]["secretName"], volumes["model"]["persistentVolumeClaim"]["claimName"]):
        assert name in section
    for key in (endpoint["authorization"]["credentials"]["key"], volumes["keys"]["secret"]["items"][0]["key"]):
        assert f"--from-file={key}" in section


def test_alerts_ask_for_the_job_that_the_service_gives() -> None:
    """The operator calls a job as its Service."""
    assert f'job="{MANIFESTS["Service"]["metadata"]["name"]}"' in RULES.read_text()


def test_the_autoscaler_reads_what_the_adapter_offers() -> None:
    assert METRIC["pods"]["metric"]["name"] == RULE["name"]["as"]
    assert RULE["seriesQuery"].startswith(f"{RULE['name']['as']}{{")


@pytest.mark.server
def test_every_path_and_metric_exists(demo: Server) -> None:
    (endpoint,) = SPEC["ServiceMonitor"]["endpoints"]
    for path in {endpoint["path"], *(probe["httpGet"]["path"] for probe in PROBES.values())}:
        assert httpx.get(f"{demo.url}{path}").status_code == 200, path
    assert METRIC["pods"]["metric"]["name"] in exported(httpx.get(f"{demo.url}{endpoint['path']}").text)


@pytest.mark.server
@needs_prometheus
def test_the_adapters_query_finds_the_queue_of_each_pod(demo: Server, tmp_path: Path) -> None:
    query = RULE["metricsQuery"]
    for placeholder, value in {
        "<<.Series>>": METRIC["pods"]["metric"]["name"],
        "<<.LabelMatchers>>": 'namespace="default",pod=~"one|two"',
        "<<.GroupBy>>": "pod",
    }.items():
        query = query.replace(placeholder, value)
    with prometheus(demo, tmp_path, namespace="default", pod="one") as database:
        wait_for_scrapes(database, 2)
        assert result(database, RULE["seriesQuery"])
        (found,) = result(database, query)
    assert found["metric"] == {"pod": "one"}
    assert float(found["value"][1]) >= 0
