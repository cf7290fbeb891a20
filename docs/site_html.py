"""What the pages of the site need for narrow screens and for screen readers (hook of mkdocs)."""

from __future__ import annotations

import html
import re
from typing import Any

NARROW_PX = 350
"""Width of a table on a phone of 390 pixels, its margins left out."""

LETTER_PX, CELL_PX = 7.6, 16
"""Width of a letter in a table, and the margins of a cell (stylesheets/extra.css)."""

TABLE = re.compile(r"<table>\s*<thead>(?P<head>.*?)</thead>\s*<tbody>(?P<body>.*?)</tbody>\s*</table>", re.DOTALL)
HEAD = re.compile(r"<th(?P<style>[^>]*)>(?P<text>.*?)</th>", re.DOTALL)
ROW = re.compile(r"<tr[^>]*>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<td(?P<style>[^>]*)>(?P<text>.*?)</td>", re.DOTALL)
UNIT = re.compile(r"(\d) (%|(?:s|meV|eV|MB|min|h)\b)")
SECTION = re.compile(
    r'(<nav class="md-nav" data-md-level="\d+") aria-labelledby="__nav_[\d_]+_label"'
    r'([^>]*>\s*<label class="md-nav__title"[^>]*>)(.*?)(</label>)',
    re.DOTALL,
)


def on_page_content(content: str, **_: Any) -> str:
    """Tables that a phone cannot show become a list of rows there."""
    return TABLE.sub(lambda found: table(found["head"], found["body"]), content)


def on_post_page(output: str, **_: Any) -> str:
    """Names for parts of the theme that have none."""
    output = output.replace(
        '<div class="md-search" data-md-component="search" role="dialog">',
        '<div class="md-search" data-md-component="search" role="dialog" aria-label="Search the site">',
    )
    return SECTION.sub(lambda found: f'{found[1]} aria-label="{words(found[3])}"{found[2]}{found[3]}{found[4]}', output)


def table(head: str, body: str) -> str:
    """A table whose cells know the heading of their column; empty headings are cells."""
    titles = [words(found["text"]) for found in HEAD.finditer(head)]
    rows = [[found["text"] for found in CELL.finditer(row[0])] for row in ROW.finditer(body)]
    kind = " data-stacked" if least_px([titles, *rows]) > NARROW_PX else ""

    def labelled(row: re.Match[str]) -> str:
        left = iter(titles)

        def cell(found: re.Match[str]) -> str:
            text = UNIT.sub(r"\1&nbsp;\2", found["text"])
            return f'<td data-label="{html.escape(next(left, ""))}"{found["style"]}>{text}</td>'

        return CELL.sub(cell, row[0])

    head = HEAD.sub(lambda found: found[0] if words(found["text"]) else "<td></td>", head)
    return f"<table{kind}>\n<thead>{head}</thead>\n<tbody>{ROW.sub(labelled, body)}</tbody>\n</table>"


def least_px(rows: list[list[str]]) -> float:
    """Width below which a table cannot be squeezed: the longest words of its columns."""
    columns = [[row[k] for row in rows if k < len(row)] for k in range(max(map(len, rows)))]
    longest = [max(max(map(len, re.split(r"[\s/]", words(text)))) for text in column) for column in columns]
    return sum(LETTER_PX * n + CELL_PX for n in longest)


def words(text: str) -> str:
    """Text without its tags, blanks made one."""
    return " ".join(re.sub(r"<[^>]+>", "", html.unescape(text)).split())
