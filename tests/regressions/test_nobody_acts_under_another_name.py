"""``LOGNAME=somebody direct-gateway message show`` was written to the audit log as a reading by somebody."""

from __future__ import annotations

import os
import pwd

import pytest

from gateway.cli.session import actor


@pytest.mark.parametrize("variable", ["LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"])
def test_the_environment_does_not_say_who_acts(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "somebody")
    assert actor() == f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_017)
    monkeypatch.setenv("LOGNAME", "somebody")
    assert actor() == "cli:uid 2000000017"
