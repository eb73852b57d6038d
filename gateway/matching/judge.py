"""Hold what a message says against the patients: the findings on which :func:`gateway.core.matching.decide` decides.

Guarantees: every patient who has a record number, a telephone, an address or a Direct address of the message is
compared, however many there are up to ``MOST_COMPARED``; beyond it the findings say that they are not complete, and
nothing is linked. No other patient can be exact, and none can come near one who is: without a contact nobody reaches
the points that an exact patient has less the distance that the rule asks for.

A contact is evidence only as long as it tells patients apart: not the number of a shelter or of the clinic itself
(``MOST_AT_A_PHONE``, ``MOST_AT_A_HOUSE``), and a Direct address only where one patient alone has it (S42).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from gateway.core.claims import Claim, Evidence, Source, contradictions, given_names_differ
from gateway.core.findings import Agreement, Comparison, Findings
from gateway.matching.candidates import candidates
from gateway.matching.compare import Match, match
from gateway.matching.index import Entry, PatientIndex, house_keys
from gateway.matching.profile import Profile, assigner_key, identifier_key, is_cut, mails_of, of_claim
from gateway.matching.query import Query
from gateway.matching.search import Found, search
from gateway.matching.stored import RECORD_NUMBERS

MOST_COMPARED = 2_000
MOST_CLAIMS = 64
"""Different claims of one message that are compared; beyond them nothing is linked."""
MOST_VALUES = 512
"""Names, telephones and addresses of all of them together, likewise. Honest messages have some ten."""
MOST_AT_A_PHONE = 20
MOST_AT_A_HOUSE = 50
SUGGESTED = 5
"""Patients that are shown to whoever decides (matching policy 4)."""
_SHOWN = 25
Numbers = frozenset[tuple[str, str]]
_WORST_FIRST = (
    Agreement.DIFFERENT,
    Agreement.NEAR,
    Agreement.COMPATIBLE,
    Agreement.PREVIOUS,
    Agreement.EQUAL,
    Agreement.UNKNOWN,
)


def findings(index: PatientIndex, evidence: Evidence, documented: Collection[str] = ()) -> Findings:
    """Compare everything that a message says with every patient who may be meant.

    Args:
        index: the patients; whose record numbers the practice knows is in them: a number counts where the claim and
            the patient have the same assigner.
        evidence: of the message.
        documented: the patients whom the address book names for the sender; they are compared in any case.
    """
    profiles = tuple(dict.fromkeys(of_claim(claim) for claim in evidence.claims))
    said = tuple(profile for profile in profiles if profile != Profile())
    if not said and not evidence.problems and not evidence.claims:
        return Findings()
    compared_with = _affordable(said)
    whole = merged(compared_with)
    sure, complete = _must_compare(index, whole, documented)
    likely, _ = candidates(index, Query(whole))
    claimed = tuple(dict.fromkeys(map(_numbers_of, evidence.claims)))
    numbers = _standing_for_themselves(index, list(dict.fromkeys((*sure, *likely[:_SHOWN]))), documented, claimed)
    inside = _inside(evidence)
    compared = [_compare(index, index.at(number), compared_with, whole, claimed, inside=inside) for number in numbers]
    compared.sort(key=lambda one: (-one.points, one.patient_id))
    certain = {index.at(number).id for number in sure}
    return Findings(
        contradictions=contradictions(evidence.claims),
        givens_differ=given_names_differ(evidence.claims),
        is_complete=evidence.is_complete and compared_with == said and not any(map(is_cut, evidence.claims)),
        all_compared=complete,
        comparisons=tuple(one for at, one in enumerate(compared) if at < _SHOWN or one.patient_id in certain),
    )


def _affordable(said: Sequence[Profile]) -> tuple[Profile, ...]:
    """The first of what the claims say, as far as it may be compared: the writer of the store waits for it."""
    found: list[Profile] = []
    left = MOST_VALUES
    for profile in said[:MOST_CLAIMS]:
        left -= len(profile.names) + len(profile.phones) + len(profile.places)
        if left < 0:
            break
        found.append(profile)
    return tuple(found)


def _standing_for_themselves(
    index: PatientIndex, numbers: Sequence[int], documented: Collection[str], claimed: Iterable[Numbers]
) -> list[int]:
    """Without the records that were merged into one of the others: they are no other patients, whom to mistake."""
    entries = {entry.id: entry for entry in map(index.at, numbers)}
    named = frozenset[tuple[str, str]]().union(*claimed)

    def stands(entry: Entry) -> bool:
        into = entries.get(entry.merged_into)
        if into is None or into is entry or entry.id in documented:
            return True
        # A merge hands no numbers over. The one that is named speaks against everybody but who has taken the place.
        own = named.intersection(entry.profile.identifiers).difference(into.profile.identifiers)
        return bool(own) and into.id not in documented

    return [number for number in numbers if stands(index.at(number))]


def suggestions(index: PatientIndex, evidence: Evidence, limit: int = SUGGESTED) -> Found:
    """The patients to show to whoever decides, the likeliest first, each with the reasons why."""
    profiles = dict.fromkeys(of_claim(claim) for claim in evidence.claims)
    return search(index, Query(merged(tuple(profiles)[:MOST_CLAIMS])), limit)


def merged(profiles: Sequence[Profile]) -> Profile:
    """All that several claims say, as one profile."""
    if len(profiles) == 1:
        return profiles[0]

    def every(values: Iterable[tuple[object, ...]]) -> tuple[object, ...]:
        return tuple(dict.fromkeys(value for group in values for value in group))

    sexes = {profile.sex for profile in profiles} - {""}
    births = every(profile.births for profile in profiles)
    return Profile(
        names=every(profile.names for profile in profiles),  # type: ignore[arg-type]
        births=births,  # type: ignore[arg-type]
        birth_part="" if births else next((one.birth_part for one in profiles if one.birth_part), ""),
        sex=sexes.pop() if len(sexes) == 1 else "",
        phones=every(profile.phones for profile in profiles),  # type: ignore[arg-type]
        emails=every(profile.emails for profile in profiles),  # type: ignore[arg-type]
        direct=every(profile.direct for profile in profiles),  # type: ignore[arg-type]
        identifiers=every(profile.identifiers for profile in profiles),  # type: ignore[arg-type]
        places=every(profile.places for profile in profiles),  # type: ignore[arg-type]
    )


def _must_compare(index: PatientIndex, profile: Profile, documented: Collection[str]) -> tuple[list[int], bool]:
    """The patients who share what can make a link, and whether these are all."""
    found: dict[int, None] = {}
    for patient_id in sorted(documented):
        if (number := index.number(patient_id)) is not None:
            found[number] = None
    groups: list[Collection[int]] = [index.identifiers.get(value) for _, value in profile.identifiers]
    groups += [index.mails.get(mail) for mail in (*profile.direct, *profile.emails)]
    groups += [index.phones.get(phone[3:]) for phone in profile.phones]
    groups += [index.houses.get(key) for place in profile.places for key in house_keys(place)]
    for group in groups:
        found.update(dict.fromkeys(islice(group, MOST_COMPARED)))
    return list(islice(found, MOST_COMPARED)), len(found) < MOST_COMPARED


def _inside(evidence: Evidence) -> frozenset[str]:
    """The mail addresses that the message holds of its patient, without that of whoever sent it."""
    claims = [claim for claim in evidence.claims if claim.source is not Source.SIGNED_FROM]
    return frozenset(mail for claim in claims for mail in mails_of((*claim.direct_addresses, *claim.emails)))


def _compare(
    index: PatientIndex,
    entry: Entry,
    profiles: Sequence[Profile],
    whole: Profile,
    claimed: Sequence[Numbers],
    *,
    inside: frozenset[str],
) -> Comparison:
    matches = [match(profile, entry.profile) for profile in profiles]
    points = matches[0].points if len(matches) == 1 else match(whole, entry.profile).points
    own = set(entry.profile.identifiers)
    same, other = _numbers(claimed, own)
    return Comparison(
        entry.id,
        points=round(points, 2),
        family=_worst(one.family for one in matches),
        given=_worst(one.given for one in matches),
        birth_date=_worst(one.birth_date for one in matches),
        sex=_worst(one.sex for one in matches),
        contact=any(_is_contact(index, one) for one in matches),
        identifier=same,
        direct=not inside.isdisjoint(entry.profile.direct),
        other_identifier=other,
        active=entry.active,
        deceased=entry.deceased,
        merged=bool(entry.merged_into),
    )


def _worst(agreements: Iterable[Agreement]) -> Agreement:
    """What the least favourable claim says that says anything."""
    return min(agreements, key=_WORST_FIRST.index, default=Agreement.UNKNOWN)


def _numbers(said: Iterable[Numbers], own: Collection[tuple[str, str]]) -> tuple[bool, bool]:
    """Whether a claim has a record number of the patient, and whether one has another number of the same assigner."""
    same = other = False
    assigners = {assigner for assigner, _ in own if assigner}
    for numbers in said:
        equal = {assigner for assigner, _ in numbers.intersection(own)}
        same = same or bool(equal)
        other = other or any(assigner in assigners and assigner not in equal for assigner, _ in numbers)
    return same, other


def _numbers_of(claim: Claim) -> Numbers:
    """Assigner and value of the record numbers of a claim whose assigner is known."""
    return frozenset(
        (assigner, identifier_key(one.value))
        for one in claim.identifiers
        if one.kind.upper() in RECORD_NUMBERS and (assigner := assigner_key(one.assigner))
    )


def _is_contact(index: PatientIndex, matched: Match) -> bool:
    if any(len(index.phones.get(phone[3:])) <= MOST_AT_A_PHONE for phone in matched.phones):
        return True
    if any(len(index.mails.get(mail)) == 1 for mail in matched.direct):
        return True
    return any(len(index.houses.get(key)) <= MOST_AT_A_HOUSE for place in matched.places for key in house_keys(place))
