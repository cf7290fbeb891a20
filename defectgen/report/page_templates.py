"""The pages' HTML templates, and the style sheets and scripts that are put into them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

SHARED_STYLE = "page.css"
"""The style sheet of all pages."""


@cache
def template(name: str) -> Template:
    """A template of this package; what is put in is escaped, and what is missing is an error.

    Templates may call `asset` and `part`; ``policy`` is `POLICY`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(asset=asset, part=part, policy=POLICY)
    source = resources.files("defectgen.report").joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(source)


def part(name: str) -> Markup:
    """A template that needs no values, as a part of another one."""
    from markupsafe import Markup

    return Markup(template(name).render())


@cache
def asset(name: str = SHARED_STYLE) -> Markup:
    """A style sheet or script of the folder ``assets`` as it stands between its tags; the shared style by default."""
    from markupsafe import Markup

    text = resources.files("defectgen.report").joinpath("assets", name).read_text(encoding="utf-8")
    if "</script" in text.lower() or "</style" in text.lower():
        raise ValueError(f"{name} would end its own tag")
    return Markup(text.strip())


POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a page without scripts may load: nothing."""


def plain_page(heading: str, notes: Sequence[str], body: str, style: str = "") -> str:
    """A page without scripts that needs nothing else, in the shared style.

    Args:
        heading: as text.
        notes: paragraphs below it, HTML already.
        body: what follows, HTML already.
        style: more CSS of this page.
    """
    title = escape(heading)
    paragraphs = "".join(f"<p{' class=soft' if k else ''}>{text}</p>" for k, text in enumerate(notes))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="color-scheme" content="light dark">'
        f"<title>{title} \u2013 defectgen</title><style>{asset()}\n{style}</style></head><body>"
        f"<header><h1>{title}</h1>{paragraphs}</header><main>{body}</main></body></html>\n"
    )


def wide_table(content: str, name: str) -> str:
    """A table that scrolls sideways where it is too wide, also by keyboard.

    Args:
        content: what stands between the tags of the table, HTML already.
        name: what is in it, one a table of the page; as text.
    """
    region = f'class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"'
    return f"<div {region}><table>{content}</table></div>"
