"""The web interface of the Materials Project with the user's key, and how often anything is asked for.

Source: https://api.materialsproject.org/docs. Plain HTTP instead of the package mp-api, which brings much
that is not needed for two routes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from defectgen.errors import DefectgenError, UsageError

ATTEMPTS = 4
BACKOFF_S = 0.5
"""Wait before the second attempt; it doubles with every further one."""
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
TIMEOUT_S = 120.0
LARGEST_ANSWER = 300_000_000
"""Bytes of one page; a page of 500 documents has some millions."""

KEY_VARIABLE = "MP_API_KEY"
"""Environment variable with the user's key, the one that mp-api reads; the key is never written anywhere."""
URL_VARIABLE = "MP_API_ENDPOINT"
"""Environment variable with another address of the interface, the one that mp-api reads."""
URL = "https://api.materialsproject.org"
KEY_PAGE = "https://next-gen.materialsproject.org/api"


class KeyRefusedError(DefectgenError):
    """The Materials Project does not accept the user's key, whatever is asked."""


def wait_before(attempt: int) -> None:
    """Wait before a further attempt; not before the first, which is number 0."""
    if attempt:
        time.sleep(BACKOFF_S * 2 ** (attempt - 1))


@dataclass(frozen=True)
class Page:
    """Some documents of a query.

    Attributes:
        documents: as they came.
        total: how many the query has on all pages.
        version: of the database.
    """

    documents: list[dict[str, Any]]
    total: int
    version: str


@dataclass(frozen=True)
class MaterialsProject:
    """The web interface of the Materials Project.

    Attributes:
        key: of the user.
        url: of the interface.
    """

    key: str = field(repr=False)
    url: str = URL

    @classmethod
    def from_environment(cls) -> MaterialsProject:
        """With the key and the address of the environment.

        Raises:
            UsageError: there is no key, or the address is none.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key:
            raise UsageError(
                f"the Materials Project needs your key, and {KEY_VARIABLE} is not set.", f"Get one at {KEY_PAGE}"
            )
        url = os.environ.get(URL_VARIABLE, "").strip().rstrip("/") or URL
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"got {URL_VARIABLE}={url!r}, expected an address that starts with http:// or https://.")
        return cls(key, url)

    def page(self, route: str, query: Mapping[str, str | int | bool], skip: int, limit: int) -> Page:
        """Documents number `skip` to `skip` + `limit` of a query, with a few attempts.

        Args:
            route: e.g. ``materials/thermo``.
            query: what is asked, fields included.
            skip: documents to leave out.
            limit: most documents.

        Raises:
            KeyRefusedError: a key that is not accepted.
            DefectgenError: no connection, or an answer of another form.
        """
        import httpx

        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
        texts |= {"_limit": str(limit), "_skip": str(skip)}
        problem = ""
        for attempt in range(ATTEMPTS):
            wait_before(attempt)
            try:
                status, content = self._get(route, texts)
            except httpx.HTTPError as error:
                problem = " ".join(str(error).split()) or type(error).__name__
                continue
            if status in (401, 403):
                raise KeyRefusedError(
                    f"the Materials Project does not accept the key in {KEY_VARIABLE}.", "Check the key."
                )
            if status in TRANSIENT_STATUS:
                problem = f"status {status}"
                continue
            if status != httpx.codes.OK:
                raise DefectgenError(f"the Materials Project answered {status} at {self.url}.", "Try later.")
            return self._read(content)
        raise DefectgenError(
            f"the Materials Project gave nothing at {self.url} in {ATTEMPTS} attempts ({problem:.100}).",
            "Check the connection, and run the same command again.",
        )

    def foreign(self) -> DefectgenError:
        """The error of an answer of another form."""
        return DefectgenError(f"the answer of {self.url} is not the Materials Project's.", f"Check {URL_VARIABLE}.")

    def _get(self, route: str, query: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and content of one answer, which is not read beyond `LARGEST_ANSWER`."""
        import httpx

        content = bytearray()
        with httpx.stream(
            "GET",
            f"{self.url}/{route}/",
            params=dict(query),
            headers={"X-API-KEY": self.key},
            timeout=TIMEOUT_S,
            follow_redirects=True,
        ) as answer:
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > LARGEST_ANSWER:
                    raise DefectgenError(
                        f"{self.url} sends more than {LARGEST_ANSWER} bytes.", f"Check {URL_VARIABLE}."
                    )
            return answer.status_code, bytes(content)

    def _read(self, answer: bytes) -> Page:
        try:
            content = json.loads(answer)
            documents, total = content["data"], int(content["meta"]["total_doc"])
            if all(isinstance(document, dict) for document in documents):
                return Page(documents, total, str(content["meta"].get("db_version", "of unknown version")))
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise self.foreign()
