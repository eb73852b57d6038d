"""The settings of the feed and of an MDM target: what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError
from gateway.hl7.mdm_importer import MDMImporter
from gateway.importing import adapter_for
from gateway.observability.clock import SystemClock
from gateway.settings.reading import from_document

ADT = {"port": 2575, "assigning_authority": "HOSP"}
MDM = {"name": "ehr", "kind": "mdm", "host": "engine.example", "assigning_authority": "HOSP"}


def test_the_feed_is_off_unless_a_port_is_set() -> None:
    assert from_document({}, Path("/")).adt.port == 0
    made = from_document({"adt": ADT | {"allowed_peers": ["10.1.2.3"]}}, Path("/")).adt
    assert (made.port, made.allowed_peers, made.tls) == (2575, ("10.1.2.3/32",), "required")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"assigning_authority": ""}, "assigning_authority"),
        ({"allowed_peers": []}, "allowed_peers"),
        ({"allowed_peers": ["nobody"]}, "allowed_peers"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"tls": "maybe"}, "tls"),
        ({"tls": "none", "client_ca_file": "ca.pem"}, "client_ca_file"),
        ({"direct_addresses": "all"}, "direct_addresses"),
        ({"direct_code": "two words"}, "direct_code"),
        ({"processing_id": ""}, "processing_id"),
        ({"max_message_kib": 0}, "max_message_kib"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused_by_the_name_of_its_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"adt\.{key}"):
        from_document({"adt": ADT | changes}, Path("/"))


def test_an_mdm_target_becomes_its_adapter() -> None:
    [target] = from_document({"importer": [MDM]}, Path("/practice")).importer
    made = adapter_for(target, SystemClock())
    assert isinstance(made, MDMImporter)
    assert made.name == "ehr"
    assert made.capabilities.retract
    assert made.capabilities.preview


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"host": ""}, "host is missing"),
        ({"assigning_authority": ""}, "assigning_authority is missing"),
        ({"tls": "yes"}, "tls must be one of"),
        ({"patient_number": "ssn"}, "patient_number must be one of"),
        ({"retract_event": "T10"}, "retract_event must be one of"),
        ({"certificate_file": "a.pem"}, "go together"),
        ({"url": "https://engine.example/"}, "url means nothing"),
        ({"port": 0}, "port must be between"),
    ],
)
def test_an_mdm_target_that_does_not_fit_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        from_document({"importer": [MDM | changes]}, Path("/"))
