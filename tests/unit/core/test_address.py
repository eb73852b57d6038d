"""Direct addresses and their comparison (AS-2, AS-4, AS-9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import normalise, parse_address, parse_domain
from gateway.core.errors import InputError


def test_both_sides_fold_case() -> None:
    """AS-4: peers send to an all-capitals local part."""
    assert normalise("JANE.Doe@Direct.Example.ORG") == "jane.doe@direct.example.org"


@pytest.mark.parametrize(
    "text",
    [
        "", "jane", "@d.example", "jane@", "jane@localhost", "a b@d.example", "jane@d..example", "jane@-d.example",
        ".jane@d.example", "jane.@d.example", "ja..ne@d.example", '"jane"@d.example', "jane@[192.0.2.1]",
        "jane@d.example\n", "jane\x00@d.example", "<jane@d.example>", "jane@d.example.", "j@" + "a" * 250 + ".example",
        "a" * 65 + "@d.example", "jane@*.example", "eve@x.example@d.example",
    ],
)  # fmt: skip
def test_what_is_no_direct_address(text: str) -> None:
    with pytest.raises(InputError):
        parse_address(text)


@pytest.mark.parametrize("text", ["*.example.org", "example", "exa mple.org", "", "a.example\n"])
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(InputError):
        parse_domain(text)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_an_input_error(text: str) -> None:
    try:
        address = parse_address(text)
    except InputError:
        return
    assert parse_address(str(address)) == address
