"""`mlops report --html`: the state of things as one page that opens without a server."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from typing import TYPE_CHECKING

from mlops_dagster.steps.state import LOOK

if TYPE_CHECKING:
    from mlops_dagster.steps.state import Section

_SHORT = 16  # characters that stay on one line: a moment, a version
# On a phone each row becomes a card, in which every value says its column's name.
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; color: #1f2937; background: #f8fafc;
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 .75rem; color: #52606d; } p.none { font-style: italic; }
section { background: white; border: 1px solid #e2e8f0; border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-top: 1px solid #e2e8f0;
  overflow-wrap: break-word; }
th { font-size: .85rem; color: #52606d; font-weight: 600; border: 0; }
td.look { color: #c2410c; font-weight: 600; }
figure { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem;
  margin: 1rem 0 0; }
img { max-width: 100%; height: auto; }
td.short span { white-space: nowrap; }
@media (max-width: 40rem) {
  body { padding: .75rem; } thead { display: none; }
  tr { display: block; padding: .5rem 0; border-top: 1px solid #e2e8f0; }
  td { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: .5rem; border: 0; padding: .1rem 0; }
  td::before { content: attr(data-label); color: #52606d; }
}
"""


def report_page(sections: Sequence[Section], where: str) -> str:
    """Return the page.

    Parameters
    ----------
    where : str
        Whose state it is, a folder or an address.
    """
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mlops: the state of things</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>The state of things</h1>\n<p>{now}, from the tables in {escape(where)}. "
        "To renew it: mlops report --html FILE</p>\n" + "".join(map(_section, sections)) + "</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    head = f"<section>\n<h2>{escape(section.title)}</h2>\n<p>{escape(section.explanation)}</p>\n"
    if not section.rows:
        return f'{head}<p class="none">Nothing yet. {escape(section.begin)}</p>\n</section>\n'
    names = "".join(f"<th>{escape(name)}</th>" for name in section.columns)
    rows = "".join(f"<tr>{_cells(section.columns, row)}</tr>\n" for row in section.rows)
    pictures = "".join(
        f'<img alt="{escape(section.title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">\n'
        for png in section.pictures
    )
    table = f"<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
    return f"{head}{table}{f'<figure>{pictures}</figure>' if pictures else ''}\n</section>\n"


def _cells(columns: Sequence[str], row: Sequence[str]) -> str:
    return "".join(
        f'<td data-label="{escape(name)}" class="{_look(value)}"><span>{escape(value)}</span></td>'
        for name, value in zip(columns, row, strict=True)
    )


def _look(value: str) -> str:
    return "look" if value == LOOK else "short" if len(value) <= _SHORT else ""
