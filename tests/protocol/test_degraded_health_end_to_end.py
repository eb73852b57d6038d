"""A gateway whose trust needs a person: its health says so in words, and mail goes on all the while."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
from typing import Any

import pytest

from gateway.store.made_anew import NOTE
from tests.support.gateway_process import Practice, wait_for


def readyz(practice: Practice) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", practice.http_port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def reload(practice: Practice) -> None:
    assert practice.process is not None
    os.kill(practice.process.pid, signal.SIGHUP)


def reloads(practice: Practice) -> list[Any]:
    return list(practice.json("audit", "list", "--action", "gateway.reloaded", "--ascending"))


def test_a_reload_that_fails_degrades_health_and_stops_no_mail(practice: Practice) -> None:
    """Until it is mended and read again."""
    assert readyz(practice)[1]["status"] == "ready"
    assert practice.run("health").returncode == 0
    damaged = practice.directory / "certs" / "anchors" / "damaged.pem"
    damaged.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    reload(practice)
    wait_for(lambda: readyz(practice)[1]["status"] == "degraded", what="degraded health")
    status, answer = readyz(practice)
    assert status == 200, "mail goes on"
    assert set(answer["checks"].values()) == {"ok"}
    assert practice.process is not None
    told = answer["warnings"]["trust_files"]
    assert "could not read the trust anchors" in told
    assert f"kill -HUP {practice.process.pid}" in told
    assert "damaged.pem" not in json.dumps(answer)
    asked = practice.run("health", check=False)
    assert asked.returncode == 1
    assert b"degraded: mail goes on" in asked.stdout
    assert practice.run("health", "--ready").returncode == 0
    damaged.unlink()
    reload(practice)
    wait_for(lambda: readyz(practice)[1]["status"] == "ready", what="good health")
    # Both are on record (ON-10): whose trust is in force follows from what was read.
    wait_for(lambda: len(reloads(practice)) == 2, what="two events")
    assert [event["detail"]["not_reloaded"] for event in reloads(practice)] == [["anchors"], []]


def test_a_trust_bundle_that_cannot_be_refreshed_degrades_health(practice: Practice, partner_ca: Any) -> None:
    published = practice.directory / "bundle.p7b"
    published.write_bytes(partner_ca.pem)
    practice.run("bundle", "add", "partners", str(published))
    assert practice.run("health").returncode == 0
    published.write_bytes(b"no bundle")
    assert practice.run("bundle", "refresh", "partners", check=False).returncode == 1
    status, answer = readyz(practice)
    assert (status, answer["status"]) == (200, "degraded")
    assert "bundle partners could not be refreshed" in answer["warnings"]["trust_bundles"]
    published.write_bytes(partner_ca.pem)
    practice.run("bundle", "refresh", "partners")
    assert readyz(practice)[1]["status"] == "ready"


def test_a_new_database_in_the_place_of_a_lost_one_is_told_everywhere(practice: Practice) -> None:
    practice.stop()
    data = practice.directory / "data"
    shutil.rmtree(data)
    refused = practice.run("serve", check=False)
    assert refused.returncode == 2
    assert b"restore a backup" in refused.stderr
    practice.run("user", "add", "somebody", "--inbox", *practice.addresses)
    practice.start()
    log = practice.log.read_text()
    ready = next(line for line in reversed(log.splitlines()) if line.startswith("direct-gateway is ready"))
    assert "WARNING: the database" in ready
    assert "warning database_was_missing" in log
    status, answer = readyz(practice)
    assert (status, answer["status"]) == (200, "degraded")
    assert "made anew" in answer["warnings"]["lost_database"]
    (data / NOTE).unlink()
    assert readyz(practice)[1]["status"] == "ready"


def test_a_key_file_that_is_gone_degrades_health_while_there_is_time(practice: Practice) -> None:
    """The gateway has the keys in its memory; after a restart nobody could read a message again."""
    assert readyz(practice)[1]["warnings"]["body_keys"] == "ok"
    keys = practice.directory / "certs" / "store" / "bodies.keys"
    kept = keys.rename(keys.with_name("elsewhere"))
    status, answer = readyz(practice)
    assert (status, answer["status"]) == (200, "degraded")
    told = answer["warnings"]["body_keys"]
    assert "the file of store.key_file is gone" in told
    assert "do not stop the gateway" in told
    assert "put the file back" in told
    log = practice.log.read_text()
    assert "error   body_key_file_lost" in log
    assert "bodies.keys" not in log + told
    reload(practice)
    wait_for(lambda: "body_keys_reload_failed" in practice.log.read_text(), what="a reload that fails")
    kept.rename(keys)
    status, answer = readyz(practice)
    assert (status, answer["status"]) == (200, "degraded"), "until it is read again"
    assert "the last reload could not read the keys of stored messages" in answer["warnings"]["body_keys"]
    reload(practice)
    wait_for(lambda: readyz(practice)[1]["status"] == "ready", what="good health")
    keys.write_text("key other nonsense\n")
    assert "cannot be read any more" in readyz(practice)[1]["warnings"]["body_keys"]


@pytest.mark.slow
def test_a_folder_of_heads_that_takes_nothing_is_told(practice: Practice) -> None:
    heads = practice.directory / "audit-heads"
    wait_for(lambda: heads.is_dir() and any(heads.iterdir()), what="the first head")
    heads.rename(heads.with_name("elsewhere"))
    heads.write_text("no folder")
    wait_for(lambda: readyz(practice)[1]["status"] == "degraded", what="degraded health")
    assert "cannot be written to audit.heads_dir (not a directory)" in readyz(practice)[1]["warnings"]["audit_heads"]
    assert "audit_heads_dir_not_writable setting=audit.heads_dir reason=enotdir" in practice.log.read_text()
    heads.unlink()
    heads.with_name("elsewhere").rename(heads)
    wait_for(lambda: readyz(practice)[1]["status"] == "ready", what="good health")
