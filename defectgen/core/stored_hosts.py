"""Hosts in the manifests of records and models: records by name and size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from defectgen.core.host import Host
from defectgen.errors import DefectgenError


def by_title(hosts: Iterable[Host]) -> dict[str, Host]:
    """Hosts by name and size, e.g. ``MoS2 8x8``, sorted.

    Raises:
        DefectgenError: two hosts of one name and size that are not the same.
    """
    found: dict[str, Host] = {}
    for host in hosts:
        if found.setdefault(host.title, host) != host:
            raise DefectgenError(f"got two hosts {host.title} that differ in cell, sites or rules, expected one.")
    return dict(sorted(found.items()))


def dump_hosts(hosts: Mapping[str, Host]) -> dict[str, dict[str, Any]]:
    """The records of hosts by name and size, for a manifest."""
    return {title: host.to_dict() for title, host in hosts.items()}


def read_hosts(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Host]:
    """The inverse of `dump_hosts`.

    Raises:
        DefectgenError: see `Host.from_dict`.
    """
    return by_title(Host.from_json(json.dumps(record)) for record in records.values())


def record_hosts(manifest: Mapping[str, Any]) -> dict[str, Host]:
    """The hosts of instruction records by name and size, from their manifest.

    Raises:
        DefectgenError: the manifest does not say them, or not whole.
    """
    if not manifest.get("hosts"):
        raise DefectgenError("the records do not say their hosts.", "Make them again with `defectgen build-data`.")
    return read_hosts(manifest["hosts"])


def host_title(record: Mapping[str, Any]) -> str:
    """Name and size of the host of an instruction record, e.g. ``MoS2 8x8``: its key in `record_hosts`."""
    return f"{record['host']} {record['supercell']}"
