"""The pages in headless Chromium: they open from disk without errors or requests, draw, fit, and can be read and used
in any scheme, on paper, and without a mouse. CI installs Chromium (`.ci/run`) and fails without it."""

import os
import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from splitaudit.report import write_reports
from tests.report.conftest import (
    align,
    bench_rows,
    detection_rows,
    make_over_seeds,
    make_result,
    make_run,
    write_bench,
    write_defense,
    write_metrics,
    write_result,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = ("run", "passive", "seeds", "comparison", "bench")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no Chromium here: install it (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "CI must have Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # CI is root
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind, with something of everything that a page can show."""
    tmp_path, result = tmp_path_factory.mktemp("pages"), make_result()
    run, over_seeds = make_run(tmp_path, result), make_over_seeds(tmp_path, result)
    result["checks"].append({"name": "model-learned", "passed": False, "detail": "It guesses. Train longer."})
    write_result(run, result)
    other = deepcopy(result)
    other["config"]["adversary"] |= {"alpha": 0.0, "shadow": "multi"}
    passive = deepcopy(result)
    align(passive)
    for folder, contents in {"second": other, "passive": passive}.items():
        (tmp_path / folder).mkdir()
        write_result(tmp_path / folder, contents)
        write_metrics(tmp_path / folder)
    write_defense(tmp_path / "passive", name="harden", before=15, after=60, clean=87, share=45)
    folders = {
        "run": [run],
        "passive": [tmp_path / "passive"],
        "seeds": [over_seeds],
        "comparison": [run, tmp_path / "second"],
    }
    pages = {kind: write_reports(paths, tmp_path / f"{kind}.html") for kind, paths in folders.items()}
    defenses = [*bench_rows(0.1, 0, 84.0, 2), *bench_rows(0.2, 0, 70.0, 2)]
    detections = [*detection_rows(0.0, [1.0, 2.0]), *detection_rows(0.1, [11.0, 12.0])]
    return pages | {"bench": write_bench(tmp_path, defenses, detections)}


@pytest.fixture
def opened(browser: Browser) -> Iterator[Any]:
    """Opens a file, in a context of its own, and checks at the end that nothing went wrong meanwhile."""
    contexts, complaints, requests = [], [], []

    def open_file(path: Path, width: int = 1280, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(re.match(r"file:.*\.html$|data:image/png", url) for url in requests)


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", PAGES)
def test_opens_draws_and_fits(files: dict[str, Path], opened: Any, kind: str, width: int) -> None:
    page = opened(files[kind], width)
    charts = page.locator(".chart")
    assert charts.count() == {"run": 5, "passive": 5, "seeds": 1, "comparison": 4, "bench": 1}[kind]
    for chart in charts.all():
        drawn = chart.locator(".main-svg").first.bounding_box()
        assert drawn["width"] > 250
        assert drawn["x"] + drawn["width"] <= width
        assert chart.locator(".main-svg .trace, .main-svg .points path").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_drawn_ladder_has_the_numbers_of_the_result(
    files: dict[str, Path], opened: Any, result: dict[str, Any]
) -> None:
    page = opened(files["run"])
    drawn = {
        text.strip() for text in page.locator("#ladder .annotation-text, #others .annotation-text").all_text_contents()
    }
    drops = {f"{attack['accuracy_drop']:.1f}".replace("-", "−") for attack in result["attacks"]}
    assert drops <= drawn
    assert result["verdict"] in " ".join(page.locator(".verdict > p").all_inner_texts())
    assert page.locator(".keys").get_by_text(f"{result['clean']['accuracy']:.1f}").count() == 1


@pytest.mark.parametrize("kind", PAGES)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(files: dict[str, Path], opened: Any, kind: str) -> None:
    page = opened(files[kind])
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    interactive = page.evaluate(
        """() => {
            const all = [...document.querySelectorAll("a[href], summary, input, select, [tabindex='0']")];
            window.unreached = new Set(all);
            window.invisible = [];
            addEventListener("focusin", ({ target }) => {
              unreached.delete(target);
              if (getComputedStyle(target).outlineStyle === "none") invisible.push(target.outerHTML.slice(0, 80));
            });
            return all.length;
        }"""
    )
    for _ in range(interactive + 1):
        page.keyboard.press("Tab")
    assert interactive > (0 if kind == "bench" else 5)
    assert page.evaluate("[...unreached].map((element) => element.outerHTML.slice(0, 80))") == []
    assert page.evaluate("invisible") == []


@pytest.mark.parametrize("look", ["light", "dark", "paper"])
@pytest.mark.parametrize("kind", PAGES)
def test_is_accessible_and_has_contrast(files: dict[str, Path], opened: Any, kind: str, look: str) -> None:
    page = opened(files[kind], scheme="light" if look == "light" else "dark")
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    if look == "paper":
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
    found = Axe().run(page, options=rules).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:100], rule["nodes"][0]["failureSummary"]) for rule in found] == []
    background, texts = page.evaluate(
        """() => [
            getComputedStyle(document.body).backgroundColor,
            [...document.querySelectorAll(".chart text, .chart tspan")].map((text) => getComputedStyle(text).fill),
        ]"""
    )
    assert (luminance(background) < 0.1) is (look == "dark")
    assert texts
    assert all(contrast(colour, background) >= 4.5 for colour in set(texts))


def test_images_tell_their_predictions_on_hover_and_on_focus(files: dict[str, Path], opened: Any) -> None:
    page = opened(files["run"])
    tile = page.locator(".tile").nth(1)
    says = tile.get_by_role("tooltip")
    assert not says.is_visible()
    tile.hover()
    assert says.is_visible()
    assert "It is one. The model reads one without the attack, six under it." in says.inner_text()
    assert "Largest change of a pixel: 8.0 of 255" in says.inner_text()
    page.mouse.move(0, 0)
    assert not says.is_visible()
    tile.focus()
    assert says.is_visible()
    page.keyboard.press("Escape")
    assert not says.is_visible()


def test_lines_are_chosen_one_by_one_and_by_level(files: dict[str, Path], opened: Any) -> None:
    page = opened(files["run"])
    lines = page.locator("#eps-chart .scatterlayer .trace")
    everything = lines.count()
    page.get_by_role("checkbox", name="Published: SLADV's shadow layers").uncheck()
    assert lines.count() == everything - 2  # the line and its band
    page.get_by_role("checkbox", name="All lines of the level server").uncheck()
    assert lines.count() == everything - 4
    page.get_by_role("checkbox", name="All lines of the level server").check()
    assert lines.count() == everything


def test_a_comparisons_chart_shows_the_attack_and_the_runs_chosen(files: dict[str, Path], opened: Any) -> None:
    page = opened(files["comparison"])
    shown = "document.getElementById('eps').data.map((trace) => trace.y)"
    before = page.evaluate(shown)
    page.get_by_role("combobox", name="Attack").select_option("White box: the whole model")
    assert page.evaluate(shown) != before
    page.get_by_role("checkbox", name="second").uncheck()
    assert [page.evaluate(f"document.getElementById('{name}').data.length") for name in ("eps", "loss")] == [2, 1]


def test_paper_gets_what_is_worth_its_room(files: dict[str, Path], opened: Any) -> None:
    page = opened(files["run"], scheme="dark")
    unfolded = "[...document.querySelectorAll('details')].filter((part) => part.open).length"
    assert page.evaluate(unfolded) == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(unfolded) == page.locator("details[data-print]").count() > 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(unfolded) == 0


def test_without_scripts_the_page_says_where_the_figures_are(files: dict[str, Path], browser: Browser) -> None:
    """The note itself is not drawn in this test: Playwright turns scripts off, but not the parser's scripting flag."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files["run"].as_uri())
    assert '<noscript><p class="note">The charts need JavaScript.' in files["run"].read_text()
    assert page.get_by_role("heading", name="All attacks").is_visible()
    context.close()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, WCAG 2.2."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, WCAG 2.2."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
