"""Self-contained HTML pages: inline style, no script."""

from __future__ import annotations

from .markup import Markup, element, lines

STYLE = Markup("""
body { font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em;
  color: #111; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
div { overflow-x: auto } td:last-child { white-space: pre-wrap }
table { border-collapse: collapse; font-size: 13px } th { text-align: left; border-bottom: 2px solid #444 }
td, th { padding: 2px 12px 2px 0; vertical-align: top } td { border-bottom: 1px solid #ddd }
td { white-space: pre; font-variant-numeric: tabular-nums } .n { text-align: right; white-space: nowrap }
tr.wrong { background: #fbe9e7 } tr.first { outline: 2px solid #c0392b }
svg { max-width: 100%; height: auto } p { max-width: 90ch; color: #333 }
""")


def page(title: str, *parts: str) -> str:
    """One file: ``title`` as its heading, then the parts, each markup or text."""
    head = Markup(f'<meta charset="utf-8">{element("title", title)}\n{element("style", STYLE)}')
    body = lines(["", element("h1", title), *parts, ""])
    content = Markup(f"{element('head', head)}\n{element('body', body)}")
    return f"<!DOCTYPE html>\n{element('html', content, lang='en')}\n"


def paragraph(text: str) -> Markup:
    return element("p", text)
