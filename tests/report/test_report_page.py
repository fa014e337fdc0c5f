"""The pages as a person sees them: headless Chromium, a phone's width and a desk's, light and
dark.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lockforge.report.comparison import compare, page_of
from lockforge.report.page import page
from tests.report import made_up
from tests.report.browser import Browser, find_browser

PAPER = "getComputedStyle(document.body).backgroundColor"
INK = "getComputedStyle(document.body).color"
WIDTHS = "[innerWidth, document.documentElement.scrollWidth]"
OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
WITHOUT_WORDS = """
[...document.querySelectorAll('svg, [role=img], figure, canvas, img')]
  .filter(one => !one.closest('[aria-hidden=true]'))
  .filter(one => {
    const drawn = one.tagName === 'FIGURE' ? one.querySelector('[role=img]') : one;
    if (!drawn || drawn.getAttribute('role') !== 'img') return true;
    return !(drawn.getAttribute('aria-label') || '').trim();
  }).map(one => one.outerHTML.slice(0, 200))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all pages."""
    program = find_browser()
    if program is None:
        pytest.skip("no chromium here: install Debian's package chromium to look at the pages")
    with Browser(program) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three targets and twelve attackers, a pruned release with its ablations, one that was not
    audited, and two reports side by side.
    """
    folder = tmp_path_factory.mktemp("pages")
    a, b = made_up.report(), made_up.report(targets={"usps": 0.4, "svhn": 0.5, "another": 0.1})
    texts = {
        "report": page(a, made_up.vectors(a)),
        "pruned": page(made_up.pruned_report(stand_in="generated", attackers=2), None),
        "unaudited": page(made_up.report(targets={}), None),
        "compared": page_of(compare(a, b, ("release-a", "release-b")), a, b),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.mark.parametrize("name", ["report", "pruned", "unaudited", "compared"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_is_quiet_and_fits(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    """No console line, no request, no sideways scroll (with every fold open too), a text
    alternative for every figure.
    """
    browser.open(pages[name], width=width, scheme=scheme)
    for _ in range(2):
        wide, needed = browser.look(WIDTHS)
        assert wide == width
        assert needed <= wide
        assert browser.look(WITHOUT_WORDS) == []
        browser.look(OPEN_ALL)
    assert browser.faults == []


@pytest.mark.parametrize("name", ["report", "compared"])
def test_the_two_schemes_differ(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """Dark ink on light paper, light ink on dark paper."""
    seen = {}
    for scheme in ("light", "dark"):
        browser.open(pages[name], width=1280, scheme=scheme)
        seen[scheme] = [
            sum(map(int, browser.look(what).removeprefix("rgb(").removesuffix(")").split(",")))
            / 765
            for what in (PAPER, INK)
        ]
    (light_paper, light_ink), (dark_paper, dark_ink) = seen["light"], seen["dark"]
    assert min(light_paper, dark_ink) > 0.8
    assert max(light_ink, dark_paper) < 0.2


def test_every_attackers_curve_is_drawn(browser: Browser, pages: dict[str, Path]) -> None:
    """Two panels a target, in each a line for every attacker, the envelope and scratch."""
    browser.open(pages["report"], width=1280, scheme="light")
    counts = browser.look(
        "[...document.querySelectorAll('.panel > svg')].map(one => "
        "one.querySelectorAll('path.line').length)"
    )
    assert counts == [len(made_up.ATTACKERS) + 2] * 2 * len(made_up.TARGETS)


def test_the_browser_sees_faults(browser: Browser, tmp_path: Path) -> None:
    """A page with an error, a request, a wide box and a drawing without words fails each of the
    looks above.
    """
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><title>x</title><link rel='icon' href='data:,'><div "
        "style='width:2000px'>x</div><svg></svg>"
        "<script>console.error('oh'); fetch('http://127.0.0.1:9/x').catch(() => 0)</script>"
    )
    browser.open(bad, width=390, scheme="light")
    assert browser.look(WIDTHS)[1] > 390
    assert len(browser.look(WITHOUT_WORDS)) == 1
    kinds = {fault.partition(":")[0] for fault in browser.faults}
    assert {"console", "network"} <= kinds
