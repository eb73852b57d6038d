"""What follows from whether messages can be deleted, and where the mailboxes in which they can be may run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.inbox.deletion_policy import MUTABLE, NO_DELETE
from gateway.inbox.flags import FlagAction, FlagChange
from gateway.inbox.mutable.permission import check_permitted
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in


@pytest.mark.parametrize("rights", ["", "lr", "lrs", "lrsw", "lrswi", "lrswipkxtea"])
def test_a_client_of_the_gateway_is_never_shown_that_it_could_delete(rights: str) -> None:
    """EP-29, whatever rights somebody was given."""
    assert not {"\\Deleted", "\\Draft"} & set(NO_DELETE.permanent_flags(rights))
    assert not set("texkp") & set(NO_DELETE.supported_rights)
    assert not NO_DELETE.close_expunges
    assert NO_DELETE.capabilities == ()


def test_test_mailboxes_are_those_of_any_mail_server() -> None:
    assert MUTABLE.permanent_flags("lrswipkxtea")[:2] == ("\\Deleted", "\\Draft")
    assert set("texk") <= set(MUTABLE.supported_rights)
    assert MUTABLE.close_expunges


@pytest.mark.parametrize(
    ("action", "flag", "shown"),
    [
        (FlagAction.ADD, "\\Deleted", True),
        (FlagAction.REPLACE, "\\Draft", True),
        (FlagAction.REMOVE, "\\Deleted", False),
        (FlagAction.ADD, "\\Seen", False),
        (FlagAction.ADD, "Word", False),
        (FlagAction.ADD, "$DirectVerified", True),
        (FlagAction.REMOVE, "$DirectVerified", True),
    ],
)
def test_who_asks_for_what_is_never_kept_is_shown_the_true_flags(action: FlagAction, flag: str, shown: bool) -> None:
    assert NO_DELETE.drops(FlagChange(action, frozenset({flag, "\\Flagged"}))) is shown


@pytest.mark.parametrize(
    ("host", "permitted"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
        ("localhost.example.org", False),
    ],
)
async def test_test_mailboxes_are_for_this_machine_alone(tmp_path: Path, host: str, permitted: bool) -> None:
    with SQLStore.open(StoreSettings(url=f"sqlite:///{tmp_path}/gateway.db"), sealer_in(tmp_path)) as store:
        if permitted:
            await check_permitted(host, store)
            return
        with pytest.raises(ConfigurationError, match="must be a loopback address"):
            await check_permitted(host, store)
