"""A C-CDA that gave 9999 as the year of birth made every decision on its message fail: it was tried for ever in vain.

The days of that year were counted one beyond the last that there is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.matching.index import PatientIndex
from gateway.matching.query import Fields, in_fields
from gateway.matching.search import search
from tests.unit.evidence.evidence_messages import cda, message, part
from tests.unit.pipeline.test_link_by_index import QUIMBY, practice
from tests.unit.pipeline.test_onward import Linking

ROLE = '<id root="1.2.3.4" extension="77"/><patient><birthTime value="{}"/></patient>'


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "step by step"])
@pytest.mark.parametrize("born", ["9999", "999912"])
async def test_the_message_is_filed_and_decided(tmp_path: Path, born: str, at_once: bool) -> None:
    with practice(tmp_path, Linking(), at_once=at_once) as own:
        own.add(QUIMBY)
        state, detail = await own.take(message(part(cda(ROLE.format(born)).encode(), "text/xml")))
        assert own.works.jobs() == []
    assert (state, detail["decision"]) == (State.FILED, "unlinked")


@pytest.mark.parametrize("text", ["9999", "9999-12"])
def test_it_can_be_searched_for(text: str) -> None:
    assert search(PatientIndex(), in_fields(Fields(dob=text))).hits == ()
