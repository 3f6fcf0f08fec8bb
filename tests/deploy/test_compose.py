"""The compose file: closed to the outside, unprivileged, and consistent with the image and the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from server.engine.settings import GRACE_SECONDS
from tests.deploy.promql import DEPLOY
from tests.deploy.test_image import arguments, stages

COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_ports_are_those_of_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service["ports"]]
    assert len(ports) == len(SERVICES)
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_the_server_has_a_read_only_root_and_room_where_it_writes() -> None:
    server = SERVICES["server"]
    assert server["read_only"] is True
    assert server["tmpfs"] == ["/tmp"]
    assert server["shm_size"] == "1gb"


def test_the_server_is_built_from_a_target_of_the_dockerfile() -> None:
    assert SERVICES["server"]["build"]["target"] in stages()
    (exposed,) = arguments(stages()["cpu"], "EXPOSE")
    assert SERVICES["server"]["ports"] == [f"127.0.0.1:8000:{exposed}"]


def test_running_requests_may_finish_before_the_server_is_killed() -> None:
    assert int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS


def test_secrets_are_files_that_git_ignores() -> None:
    assert [file["file"].split("/")[0] for file in COMPOSE["secrets"].values()] == ["secrets"] * len(COMPOSE["secrets"])
    assert (DEPLOY / ".gitignore").read_text().split() == ["secrets/"]


def after(command: Sequence[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_keys_reach_the_server_and_prometheus_as_mounted_secrets() -> None:
    key_file = after(SERVICES["server"]["command"], "--api-key-file")
    assert key_file == f"/run/secrets/{SERVICES['server']['secrets'][0]}"
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{SERVICES['prometheus']['secrets'][0]}"
    (target,) = job["static_configs"][0]["targets"]
    assert target == f"server:{arguments(stages()['cpu'], 'EXPOSE')[0]}"
    assert "server" in SERVICES


def test_every_secret_and_volume_that_is_used_is_declared() -> None:
    assert {secret for service in SERVICES.values() for secret in service["secrets"]} == set(COMPOSE["secrets"])
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert {source for source in sources if "/" not in source} == set(COMPOSE["volumes"])
    assert all((DEPLOY / source).is_dir() for source in sources if source.startswith("./"))


def test_images_are_pinned_to_a_version() -> None:
    assert all(service["image"].count(":") == 1 for service in SERVICES.values())
    assert not any(service["image"].endswith(":latest") for service in SERVICES.values())
