"""The page: whole, offline, and nobody's names are markup."""

from __future__ import annotations

import base64
import re

from pipeline.report.page import Card, Contact, Contacts, Note, Page, Picture, Section, Table, render

EVIL = '<script>alert("x")</script>'


def page() -> Page:
    contact = Contact(EVIL, EVIL, "models", EVIL, (EVIL,), b"\xff\xd8jpeg")
    missing = Contact("b", "r", "damaged", "u", missing=EVIL)
    table = Table(EVIL, ("a", EVIL), (("1", EVIL), ("2", "y")), frozenset({0}), frozenset({1}), EVIL)
    blocks = (table, Note(EVIL), Picture(EVIL, "<svg><g/></svg>", EVIL), Contacts("", (contact, missing)))
    return Page(
        title=EVIL,
        subtitle=EVIL,
        cards=(Card(EVIL, EVIL, (EVIL,), "good", "#one"), Card("b", "2")),
        first=(Contacts("first", (contact,), brief=True),),
        sections=(Section("one", EVIL, blocks, EVIL),),
        facts=((EVIL, EVIL),),
    )


def test_names_are_text_and_figures_are_figures() -> None:
    html = render(page())
    assert "<script" not in html and html.count("&lt;script&gt;") >= 14
    assert "<svg><g/></svg>" in html
    assert base64.b64encode(b"\xff\xd8jpeg").decode() in html
    assert '<tr class="strong">' in html and '<td class="number">1</td>' in html


def test_nothing_is_fetched() -> None:
    html = render(page())
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", html) == []
    assert (
        "@import" not in html and "url(" not in html and "http" not in html.replace("http://www.w3.org", "")
    )


def test_what_is_linked_is_there() -> None:
    html = render(page())
    assert set(re.findall(r'href="#([\w-]+)"', html)) <= set(re.findall(r'id="([\w-]+)"', html))


def test_an_empty_page_is_a_page() -> None:
    html = render(Page("t", "s", (), (), ()))
    assert html.lstrip().startswith("<!doctype html>") and html.rstrip().endswith("</html>")
