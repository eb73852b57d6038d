"""Cuts an import of patients into commits without ever splitting those who share an address.

Between two commits mail may be linked. If one commit documented an address for the first of two patients and the
next one for the second, the address would look unshared in between; and the same the other way round, when a file
takes an address from both. So patients that are joined by an address, that of the file or the one documented before,
directly or over others, always go into the same batch, even when it grows beyond the size asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.ports import Patient


def batches(patients: Sequence[Patient], size: int, before: Mapping[str, Sequence[str]]) -> Iterator[list[Patient]]:
    """Yield every patient once, in batches of at least ``size`` (but for the last) that split no shared address.

    Args:
        patients: with different ids.
        size: 1 or more.
        before: the addresses documented until now, by patient id.
    """
    batch: list[Patient] = []
    for group in _groups(patients, before):
        batch.extend(group)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _groups(patients: Sequence[Patient], before: Mapping[str, Sequence[str]]) -> Iterator[list[Patient]]:
    """The patients by who shares with whom: the connected components, by disjoint sets over positions."""
    parent = list(range(len(patients)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first_with: dict[str, int] = {}
    for position, patient in enumerate(patients):
        for address in (*patient.direct_addresses, *before.get(patient.id, ())):
            other = root(first_with.setdefault(address, position))
            mine = root(position)
            # The lower position stays the root, so that groups come in the order of the file.
            parent[max(other, mine)] = min(other, mine)
    members: dict[int, list[Patient]] = {}
    for position, patient in enumerate(patients):
        members.setdefault(root(position), []).append(patient)
    yield from members.values()
