"""Whatever comes, changes and leaves: a client that believes the responses knows what is in the mailbox."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.imap.recents import Recents
from gateway.imap.scanner import SAVED, STAR, ParseError, Ranges
from gateway.imap.view import MailboxView
from gateway.inbox.indexer import Indexer
from gateway.inbox.mutable.mailbox import MemoryMailbox, MemoryMessage
from gateway.inbox.readings import Readings
from gateway.inbox.service import Grant
from gateway.ports import Account, Folder
from tests.unit.imap.imap_harness import TestClock, plain_message

MESSAGE = MemoryMessage("m", plain_message(1), Indexer().index(plain_message(1)), TestClock().now())
FLAGS = ("\\Seen", "\\Flagged", "$Word")
_EXPUNGE = re.compile(rb"\* (\d+) EXPUNGE")
_EXISTS = re.compile(rb"\* (\d+) EXISTS")
_RECENT = re.compile(rb"\* (\d+) RECENT")
_VANISHED = re.compile(rb"\* VANISHED ([\d:,]+)")
_FETCH = re.compile(rb"\* (\d+) FETCH \(UID (\d+) FLAGS \(([^)]*)\)(?: MODSEQ \(\d+\))?\)")
_KEYWORDS = re.compile(rb"\* FLAGS \(")


@dataclass
class Client:
    """What a mail client makes of the responses. ``uids`` by message number - 1; None where it was not told."""

    view: MailboxView
    by_uid: bool
    uids: list[int | None] = field(default_factory=list)
    flags: dict[int, frozenset[str]] = field(default_factory=dict)
    recent: int = 0

    def ask(self) -> None:
        """UID FETCH 1:* (FLAGS): the client fills in what it does not know."""
        for number, index in enumerate(self.view.indexes(((1, STAR),), uid=False), 1):
            message = self.view.message(index)
            assert self.uids[number - 1] in {None, message.uid}
            self.uids[number - 1] = message.uid
            self.flags[message.uid] = message.flags - {"\\Recent"}

    def hear(self, response: bytes) -> None:
        if found := _EXPUNGE.fullmatch(response):
            assert not self.by_uid
            assert 1 <= int(found[1]) <= len(self.uids)
            del self.uids[int(found[1]) - 1]
        elif found := _EXISTS.fullmatch(response):
            assert int(found[1]) > len(self.uids), "EXISTS never takes a message away"
            self.uids += [None] * (int(found[1]) - len(self.uids))
        elif found := _RECENT.fullmatch(response):
            self.recent = int(found[1])
        elif found := _VANISHED.fullmatch(response):
            assert self.by_uid
            self._vanish(found[1])
        elif found := _FETCH.fullmatch(response):
            number, uid = int(found[1]), int(found[2])
            assert self.uids[number - 1] in {None, uid}, "a number means another message"
            self.uids[number - 1] = uid
            self.flags[uid] = frozenset(found[3].decode().split()) - {"\\Recent"}
        else:
            assert _KEYWORDS.match(response), response

    def _vanish(self, text: bytes) -> None:
        for part in text.split(b","):
            first, _, last = part.partition(b":")
            for uid in range(int(first), int(last or first) + 1):
                self.uids.remove(uid)


class Sessions(RuleBasedStateMachine):
    """One mailbox, three sessions: one is told by number, one by UID, one has it open for reading only."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = MemoryMailbox(7)
        self.recents = Recents(all_recent=True)
        self.recent_of: dict[int, set[int]] = {}
        self.clients = [self._select(0), self._select(1), self._select(2)]

    def _select(self, which: int) -> Client:
        grant = Grant(Account(1, "a", "x"), Folder("INBOX", 7, "lrswte"), self.mailbox)
        view = MailboxView.of(grant, Readings(), self.recents, read_only=which == 2)
        client = Client(view, by_uid=which == 1, recent=len(view.recent))
        client.uids = [None] * view.exists
        client.ask()
        return client

    # --- what happens in the mailbox ---

    @rule(count=st.integers(1, 3), flags=st.sets(st.sampled_from(FLAGS)))
    def deliver(self, count: int, flags: set[str]) -> None:
        for _ in range(count):
            self.mailbox.add(MESSAGE, frozenset(flags))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        here = self.mailbox.slots()
        if here:
            self.mailbox.remove(sorted(data.draw(st.sets(st.sampled_from(here), min_size=1, max_size=4))))

    @rule(data=st.data(), flags=st.sets(st.sampled_from(FLAGS)))
    def store(self, data: st.DataObject, flags: set[str]) -> None:
        here = self.mailbox.slots()
        if here:
            slots = data.draw(st.sets(st.sampled_from(here), max_size=3))
            self.mailbox.set_flags({slot: frozenset(flags) for slot in slots})

    # --- what the sessions do ---

    @rule(which=st.integers(0, 2))
    def select_again(self, which: int) -> None:
        self.clients[which] = self._select(which)

    @rule(which=st.integers(0, 2), condstore=st.booleans())
    def command_with_numbers(self, which: int, condstore: bool) -> None:
        """FETCH, STORE or SEARCH: every number goes on meaning what it meant."""
        client = self.clients[which]
        before = list(client.uids)
        for response in self._told(client, condstore=condstore, expunges=False):
            assert b"EXPUNGE" not in response
            assert b"VANISHED" not in response
            client.hear(response)
        assert client.uids[: len(before)] == before or None in before
        client.ask()
        assert self._shown(client) == client.uids
        assert not self._missing(client), "what came is told at once"

    @rule(which=st.integers(0, 2), condstore=st.booleans())
    def other_command(self, which: int, condstore: bool) -> None:
        """NOOP and the like: afterwards the client knows the truth."""
        client = self.clients[which]
        for response in self._told(client, condstore=condstore, expunges=True):
            client.hear(response)
        # Flags of what it knew were told; what is new it asks for.
        told = {uid: flags for uid, flags in client.flags.items() if uid in client.uids}
        truth = {self.mailbox.uids[slot]: self.mailbox.flags[slot] for slot in self.mailbox.slots()}
        assert all(truth[uid] == flags for uid, flags in told.items())
        client.ask()
        assert client.uids == list(truth)
        assert client.recent == len(client.view.recent)

    @rule(which=st.integers(0, 2), data=st.data())
    def sets_mean_what_the_rfc_says(self, which: int, data: st.DataObject) -> None:
        client = self.clients[which]
        highest = max(len(self.mailbox) + 1, 1)
        number = st.integers(STAR, highest)
        ranges = data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=4).map(tuple))
        uids = self._shown(client)
        by_uid = [uid for uid in uids if any(_within(uid, pair, uids[-1]) for pair in ranges)]
        assert self._uids(client, ranges, uid=True) == by_uid
        exists = client.view.exists
        # ``9:*`` is the last message when there are fewer, as with UIDs; 9 alone is no number.
        if any(STAR not in pair and max(pair) > exists for pair in ranges):
            with pytest.raises(ParseError):
                self._uids(client, ranges, uid=False)
            return
        by_number = [uid for at, uid in enumerate(uids, 1) if any(_within(at, pair, exists) for pair in ranges)]
        assert self._uids(client, ranges, uid=False) == by_number

    @rule(which=st.integers(0, 2), data=st.data())
    def save_a_search(self, which: int, data: st.DataObject) -> None:
        view = self.clients[which].view
        found = [index for index in view.indexes_shown if data.draw(st.booleans())]
        view.save(found)
        assert list(view.indexes(SAVED, uid=False)) == found
        assert view.spans(SAVED, uid=True) == view.saved

    # --- what is always so ---

    @invariant()
    def numbers_and_slots_agree(self) -> None:
        for client in self.clients:
            view = client.view
            assert view.exists == len(client.uids)
            assert [view.number(index) for index in view.indexes_shown] == list(range(1, view.exists + 1))
            assert set(view.indexes(SAVED, uid=True)) <= set(view.indexes_shown)

    @invariant()
    def a_message_is_recent_in_one_session(self) -> None:
        one, two, _ = (client.view.recent for client in self.clients)
        assert one.isdisjoint(two)

    def _told(self, client: Client, *, condstore: bool, expunges: bool) -> list[bytes]:
        news = client.view.news(condstore=condstore, expunges=expunges, by_uid=client.by_uid)
        return b"".join(news).split(b"\r\n")[:-1]

    def _shown(self, client: Client) -> list[int]:
        return [self.mailbox.uids[index] for index in client.view.indexes_shown]

    def _uids(self, client: Client, ranges: Ranges, *, uid: bool) -> list[int]:
        return [self.mailbox.uids[index] for index in client.view.indexes(ranges, uid=uid)]

    def _missing(self, client: Client) -> set[int]:
        return {self.mailbox.uids[slot] for slot in self.mailbox.slots()} - set(self._shown(client))


def _within(number: int, pair: tuple[int, int], highest: int) -> bool:
    low, high = sorted(highest if end == STAR else end for end in pair)
    return low <= number <= high


Sessions.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSessions = Sessions.TestCase
