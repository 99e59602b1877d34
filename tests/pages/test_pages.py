"""What pages share: their policy, escaped texts, tables and galleries."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from oiyolo.pages import inline, template
from oiyolo.pages.gallery import ImageCredit, Item, Overlay, filters_of, kinds_of

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
BOX = Overlay("tp", HOSTILE, (0.1, 0.2, 0.5, 0.6))


def item(image_id: str = "0" * 16, **more: Any) -> Item:
    return Item(image_id, "data:image/jpeg;base64,AAAA", (40, 20), "1 TP", **more)


def test_a_policy_admits_only_the_given_scripts_and_styles() -> None:
    digest = inline.hash_source("alert(1)")
    policy = inline.policy(
        scripts=[digest, "blob:"], styles=["'unsafe-inline'"], more="img-src data:; "
    )
    assert digest == "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"  # CSP 3, section 8.1
    assert f"script-src {digest} blob:; style-src 'unsafe-inline'; img-src data:; " in policy
    assert policy.startswith("default-src 'none'; ")
    assert "style-src 'none'" in inline.policy()


def test_json_cannot_end_its_element() -> None:
    assert "<" not in inline.json_data({"name": HOSTILE})


def test_modules_become_one_script() -> None:
    script = template.page_script()
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    assert "class Viewer" in script


def test_tags_become_filters_unless_they_have_one_value() -> None:
    items = [item(tags={"class": ["Boat", "Oar"], "split": ["test"]}), item(tags={"class": []})]
    assert filters_of(items) == {"class": ["Boat", "Oar"]}
    assert items[0].tag_list == ["class:Boat", "class:Oar", "split:test"]
    assert kinds_of([item(overlays=[BOX])]) == {"tp": "true positive"}


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", HOSTILE, ""])
def test_only_addresses_of_the_web_become_links(url: str) -> None:
    page = render([item(credit=ImageCredit("A", "free", url, url))])
    assert "<a href" not in page.split('<ul class="items">')[1]
    page = render([item(credit=ImageCredit("A", "free", "https://x.org/l", "https://x.org/p"))])
    assert 'href="https://x.org/p" rel="noreferrer"' in page


def test_texts_of_others_are_only_text() -> None:
    credit = ImageCredit(HOSTILE, HOSTILE)
    page = render(
        [item(HOSTILE, overlays=[BOX], tags={HOSTILE: [HOSTILE, "b"]}, credit=credit,
              history=[HOSTILE])]
    )  # fmt: skip
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert html.unescape(page).count(HOSTILE) > 5
    tags = re.search(r'data-tags="([^"]*)"', page)
    assert tags is not None
    assert "alert" in html.unescape(tags[1])


def render(items: list[Item]) -> str:
    return template.render(
        "tests.pages", "sample.html.j2", items=items, filters=filters_of(items),
        kinds=kinds_of(items), rows=[("a", "1"), ("b", "2")],
    )  # fmt: skip


def test_every_inline_script_and_style_has_its_hash() -> None:
    page = render([item()])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for tag in ("script", "style"):
        for text in re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL):
            assert inline.hash_source(text) in policy[1]
    assert " style=" not in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
