"""Where libpq connects to decides whether TLS is asked for, not the name that stands first in the URL (EP-13).

``hostaddr`` wins over ``host``; the environment and a service file name machines as well. Each of them used to pass for
this machine, and libpq's own default would then have sent mail in the clear.
"""

from __future__ import annotations

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import StoreSettings

pytest.importorskip("psycopg")

from gateway.store.postgresql_address import PostgreSQLAddress

ELSEWHERE = [
    ("postgresql:///gateway?host=localhost&hostaddr=192.0.2.7", {}),
    ("postgresql:///gateway?hostaddr=127.0.0.1,192.0.2.7", {}),
    ("postgresql:///gateway", {"PGHOST": "db.example"}),
    ("postgresql:///gateway", {"PGHOSTADDR": "192.0.2.7"}),
    ("postgresql:///gateway?service=mail", {}),
    ("postgresql:///gateway", {"PGSERVICE": "mail"}),
]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("url", "environment"), ELSEWHERE)
def test_tls_is_verified_wherever_the_name_stands(
    url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    address = PostgreSQLAddress.parse(StoreSettings(url=url))
    assert not address.is_here
    assert address.arguments("check")["sslmode"] == "verify-full"
    with pytest.raises(ConfigurationError, match="clear text"):
        PostgreSQLAddress.parse(StoreSettings(url=f"{url}{'&' if '?' in url else '?'}sslmode=prefer"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///gateway",
        "postgresql:///gateway?host=/run/postgresql",
        "postgresql://localhost/gateway",
        "postgresql:///gateway?host=db.example&hostaddr=127.0.0.1",
    ],
)
def test_this_machine_needs_none(url: str) -> None:
    address = PostgreSQLAddress.parse(StoreSettings(url=url))
    assert address.is_here
    assert "sslmode" not in address.arguments("check")
