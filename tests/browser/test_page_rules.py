"""What holds of every view: nobody else is asked, nothing of others runs, keys reach all, it fits, it is light."""

from __future__ import annotations

import contextlib
import json
import re
from importlib import resources
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, Page, expect

from structureflow import keys
from structureflow.storage.local import LocalStorage
from structureflow.testing.browser import Watched
from structureflow.testing.jobs import JobRunner
from tests.browser.sites import job_document, put_inputs

#: Every view, and what is there when it is whole.
VIEWS = {
    "jobs": ("#/jobs", ".list tbody tr"),
    "job": ("#/jobs/walk-1?frame=17", "[data-pane=guide][data-shown='17']"),
    "comparison": ("#/jobs/walk-1?with=walk-2", "[data-pane=guide][data-both='0']"),
    "failed job": ("#/jobs/lost", ".failure"),
    "timelines": ("#/timelines", ".list tbody tr"),
    "timeline": ("#/timelines/reel", ".cell.there img"),
    "archives": ("#/archives", ".list tbody tr"),
    "archive": ("#/archives?key=jobs/walk-1/structure_flows_walk-1.npz", ".single .pane[data-shown='0']"),
    "new job": ("#/new", ".verdict p"),
    "nowhere": ("#/nowhere", ".empty"),
}
PAGE_BYTES = 150_000
HOSTILE = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>"


def open_view(page: Page, site: str, name: str) -> None:
    where, sign = VIEWS[name]
    page.goto(site + where)
    expect(page.locator(sign).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_passes_an_accessibility_check(page: Page, made_site: str, name: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    open_view(page, made_site, name)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_fits_a_phone(page: Page, watched: Watched, made_site: str, name: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_view(page, made_site, name)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert watched.errors == []
    assert watched.foreign(made_site) == []


def test_every_view_is_reached_and_left_by_keys_alone(page: Page, made_site: str) -> None:
    page.goto(made_site)
    expect(page.locator(".list tbody tr").first).to_be_visible()

    def press_until(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                """() => {
                  const one = document.activeElement;
                  // behind the last one, before the first; or at the beginning of a new view
                  if (one === document.body || one.id === "main") return null;
                  const style = getComputedStyle(one);
                  const name = one.getAttribute("aria-label") ?? one.textContent.trim();
                  return { name, seen: style.outlineStyle !== "none" };
                }"""
            )
            if focused is None:
                continue
            assert focused["seen"], f"no focus is seen at {focused['name']!r}"
            if focused["name"] == name:
                page.keyboard.press("Enter")
                return
        raise AssertionError(f"{name} is not reached by Tab")

    press_until("walk-1")
    expect(page.locator("h1")).to_have_text("walk-1")
    expect(page.locator(".track")).to_be_visible()
    for name, title in (("Timelines", "Timelines"), ("reel", "reel"), ("Archives", "Archives"), ("New job", "New job")):
        press_until(name)
        expect(page.locator("h1")).to_have_text(title)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("play backward")


def test_what_the_first_view_costs(page: Page, watched: Watched, made_site: str) -> None:
    page.goto(made_site)
    expect(page.locator(".list tbody tr").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert len(watched.requests) <= 12, watched.requests
    loaded = page.evaluate(
        """performance.getEntriesByType("resource").filter((one) => one.name.includes("/page/"))
          .reduce((sum, one) => sum + one.decodedBodySize, 0)"""
    )
    assert 20_000 < loaded < 60_000


def test_a_job_asks_for_each_thing_once(page: Page, watched: Watched, made_site: str) -> None:
    open_view(page, made_site, "job")
    expect(page.locator(".loaded")).to_be_hidden()
    page.wait_for_load_state("networkidle")
    videos = [url for url in watched.requests if ".mp4" in url]
    assert len(videos) == len(set(videos)) == 4
    page.keyboard.press("l")
    page.wait_for_timeout(600)
    page.keyboard.press("k")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert [url for url in watched.requests if ".mp4" in url] == videos
    assert len(watched.requests) < 120


def test_the_page_is_small_and_only_its_own() -> None:
    files = [file for file in (resources.files("structureflow") / "page").iterdir() if file.is_file()]
    assert sum(len(file.read_bytes()) for file in files) < PAGE_BYTES
    for file in files:
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            file
        )
        assert not re.search(r"\s(style|on[a-z]+)=\"", text), f"{file}: the policy refuses inline styles and handlers"
        links = set(re.findall(r"https?://[^\s\"'`]+", text))
        assert links <= {"http://www.w3.org/2000/svg"}, links
        for imported in re.findall(r"(?:from|import\()\s*\"\./([^\"]+)\"", text):
            assert (resources.files("structureflow") / "page" / imported).is_file(), f"{file}: no {imported}"


def test_texts_of_others_are_text(page: Page, watched: Watched, site: str, store: LocalStorage) -> None:
    error = {"code": HOSTILE, "message": HOSTILE, "stage": HOSTILE, "detail": {HOSTILE: HOSTILE}}
    status = {"task_id": "hostile", "run_id": "r1", "state": "failed", "stage": HOSTILE, "error": error}
    store.put(keys.job_request("hostile"), b"{}")
    store.put(keys.job_status("hostile"), json.dumps({**status, "updated_at": "2026-03-01T12:00:00Z"}).encode())
    page.goto(f"{site}#/jobs")
    expect(page.locator(".why")).to_contain_text(HOSTILE)
    page.goto(f"{site}#/jobs/hostile")
    expect(page.locator(".failure dd")).to_have_text(HOSTILE)
    page.goto(f"{site}#/jobs/{HOSTILE.replace('/', '%2F')}?segment={HOSTILE}")
    expect(page.locator(".problem")).to_be_visible()
    page.goto(f"{site}#/timelines/..%2F..%2Fjobs")
    expect(page.locator(".problem")).to_be_visible()
    assert "ran" not in page.title()
    assert watched.foreign(site) == []


def test_manifests_of_others_are_text_too(
    page: Page, watched: Watched, site: str, store: LocalStorage, tmp_path: Any
) -> None:
    put_inputs(store, tmp_path)
    assert JobRunner(store, tmp_path).run("walk-1", job_document("walk-1")).state == "done"
    manifest = json.loads(store.get(keys.job_manifest("walk-1")).data)
    manifest["notices"] = [HOSTILE]
    manifest["engine"] = HOSTILE
    for segment in manifest["segments"]:
        segment["notices"] = [HOSTILE]
        segment["engine"] = HOSTILE
    store.put(keys.job_manifest("walk-1"), json.dumps(manifest).encode())
    open_view(page, site, "job")
    expect(page.locator(".notice").first).to_have_text(HOSTILE)
    expect(page.locator(".facts")).to_contain_text(HOSTILE)
    assert page.locator("main img[src='x'], main script").count() == 0
    assert "ran" not in page.title()


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.xhtml", "x.xml", "report.html"])
def test_nothing_that_lies_in_a_jobs_folder_runs(
    page: Page, watched: Watched, site: str, store: LocalStorage, name: str
) -> None:
    script = "document.title='ran';fetch('/jobs').then(()=>{document.title='asked'})"
    html = f'<html><body><script>{script}</script><img src=x onerror="{script}">seen</body></html>'
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{script}"><script>{script}</script></svg>'
    store.put(f"jobs/mine/{name}", (drawn if name.endswith(("svg", "xml")) else html).encode())
    with page.expect_response(f"{site}jobs?limit=200"):
        page.goto(f"{site}#/jobs")
    with contextlib.suppress(Error):  # of a navigation that a download ends
        page.goto(f"{site}objects/jobs/mine/{name}")
    page.wait_for_timeout(300)
    assert page.title() not in {"ran", "asked"}
    asked = [url for url in watched.requests if url.startswith(f"{site}jobs") or url == f"{site}jobs"]
    assert asked == [f"{site}jobs?limit=200"], "the list of jobs, by the page itself"
