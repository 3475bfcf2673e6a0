"""The viewer's and the report's pages in a real browser, opened from the disk."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

sys.path.append(str(Path(__file__).parents[1] / "unit"))

import report_help
from viewer_help import EVIL, episode, episodes, make_config, trees, write_run

from depo.cli import main
from depo.report.browse import Source, write_view
from depo.report.html import render
from depo.report.paper import paper_rows
from depo.report.sweep import sweep_view, write_sweep

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESK, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def driver():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    steering = shutil.which("chromedriver")
    if program is None or steering is None:
        pytest.skip("no Chromium with its chromedriver here; requirements/browser.sh tells how to get them")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(steering))
    found.set_page_load_timeout(60)
    yield found
    found.quit()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """The page that the command writes for a run."""
    run = write_run(make_config(tmp_path_factory.mktemp("runs")))
    assert main(["view", str(run)]) == 0
    return run / "view" / "index.html"


class Page:
    """One browser window on the viewer; every wait is for a state, none for a time."""

    def __init__(self, driver: webdriver.Chrome, index: Path) -> None:
        self.driver, self.index = driver, index

    def open(self, link: str = "", size: tuple[int, int] = DESK, dark: bool = False) -> Page:
        """From anew, so that the address alone says what is shown."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(f"{self.index.as_uri()}{link}")
        return self

    def all(self, selector: str) -> list[str]:
        """Texts of the elements, read in one go."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.driver.execute_script(script, selector)

    def script(self, body: str):
        return self.driver.execute_script(f"return {body}")

    def until(self, met, what: str) -> None:
        WebDriverWait(self.driver, 20, poll_frequency=0.02).until(lambda _: met(), what)

    def shows(self, selector: str, *texts: str) -> None:
        """Wait until exactly these elements are there."""
        self.until(lambda: self.all(selector) == list(texts), f"{selector}: {texts}")

    def click(self, selector: str) -> None:
        self.until(lambda: self.all(selector), selector)
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def choose(self, field: str, value: str) -> None:
        option = f"#{field} option[value='{value}']"
        self.until(lambda: self.all(option), option)
        self.driver.find_element(By.CSS_SELECTOR, option).click()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    @property
    def hash(self) -> str:
        return self.script("location.hash")

    def fits(self) -> bool:
        """Nothing is wider than the window."""
        return self.script("document.documentElement.scrollWidth <= window.innerWidth")

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def page(driver, index):
    """Whatever a test does, the console stays silent."""
    yield (page := Page(driver, index))
    assert page.complaints() == []


def rows(page: Page) -> list[str]:
    """Tasks in sight in the list, as "level seed", in the order in which they stand."""
    return page.script(
        "[...document.querySelectorAll('.row')].map((e) => e.dataset.task.slice(7).replace('/', ' '))"
    )


def test_the_list_is_filtered_by_everything_and_sorted(page):
    page.open("#a=depo")
    page.shows("#count", "12 tasks")
    assert rows(page)[:2] == ["GoToRedBall 0", "GoToRedBall 2"]
    page.choose("outcome", "failed")
    page.shows("#count", "2 of 12 tasks")
    assert rows(page) == ["OpenRedDoor 3", "OpenRedDoor 5"]
    page.choose("mark", "malformed")
    page.until(lambda: rows(page) == ["OpenRedDoor 5"], "malformed")
    page.choose("mark", "error")
    page.until(lambda: rows(page) == ["OpenRedDoor 3"], "error")
    page.choose("mark", "")
    page.choose("outcome", "")
    page.choose("level", "GoToRedBall")
    page.shows("#count", "6 of 12 tasks")
    page.choose("sort", "-steps")
    tokens = {f"GoToRedBall {t.task.seed}": (-t.num_steps, t.task.seed) for t in episodes("depo", 0)[::2]}
    page.until(lambda: rows(page) == sorted(tokens, key=tokens.get), "most steps first, ties as they stood")
    page.choose("b", "bc")
    page.choose("sort", "saved")
    page.until(lambda: rows(page)[-1] == "GoToRedBall 4", "what b saves")  # it says most there
    assert "sort=saved" in page.hash and "b=bc" in page.hash


def test_text_is_found_in_thoughts_and_the_label_of_a_round_filters(page):
    page.open("#a=bc")
    page.shows("#count", "12 tasks")
    page.press("/")
    page.press("ball is 5 AHEAD")  # only episodes of five turns say so
    wanted = [t for t in episodes("bc", 2) if t.num_steps >= 5]
    page.shows("#count", f"{len(wanted)} of 12 tasks")
    page.choose("a", "round:teacher")
    page.shows("#count", "0 of 3 tasks")
    page.open("#a=round:teacher&label=D")
    solved = {t.task.id for t in trees() if t.success}
    page.shows("#count", "3 tasks" if len(solved) == 3 else f"{len(solved)} of 3 tasks")


def test_an_episode_is_told_turn_by_turn(page):
    page.open("#a=bc&task=babyai/OpenRedDoor/5")
    told = episodes("bc", 2)[5]
    page.shows(".thought", *(s.thought for s in told.steps))
    assert page.all("code.action") == [s.action for s in told.steps]
    assert page.all(".turn > .seen") == [s.observation for s in told.steps]
    sums = [sum(s.num_tokens for s in told.steps[: i + 1]) for i in range(told.num_steps)]
    assert page.all(".bill span[title='tokens so far']") == [f"Σ {n}" for n in sums]
    assert page.all(".turn .badge") == ["invalid"]
    assert page.all(".outcome .badge") == ["solved", "terminated"]
    assert page.all(".outcome .fact")[0] == f"{told.num_tokens} tokens"
    bars = page.script(
        "[...document.querySelectorAll('.strip i')].map((e) => e.getBoundingClientRect().height)"
    )
    assert len(bars) == told.num_steps and bars == sorted(bars) and bars[0] < bars[-1]
    page.open("#a=depo&task=babyai/OpenRedDoor/5")
    page.shows(".turn .badge", "malformed", "malformed", "repeated")
    page.open("#a=depo&task=babyai/OpenRedDoor/3")
    page.shows(".error", "ConnectionError: the server went away")


def test_two_policies_stand_side_by_side_and_the_link_alone_brings_them_back(page):
    page.open()
    page.choose("b", "depo")
    page.click(".row[data-task='babyai/GoToRedBall/2']")
    page.shows(".side h3", "a: bc, sampled", "b: depo, sampled")
    page.until(lambda: len(page.all(".episode")) == 2, "two episodes")
    a, b = (made(2) for made in (lambda n: episodes("bc", 2)[n], lambda n: episodes("depo", 0)[n]))
    assert page.all(".fact small")[0].strip() == f"−{a.num_tokens - b.num_tokens}"
    assert page.all(".parted") == ["from here on the two differ"] * 2
    link, before = page.hash, page.all(".said")
    assert link == "#a=bc&b=depo&task=babyai/GoToRedBall/2"
    page.open(link)
    page.shows(".said", *before)
    lefts = page.script("[...document.querySelectorAll('.side')].map((e) => e.getBoundingClientRect().left)")
    assert lefts[0] < lefts[1]
    page.open("#a=gone&b=depo")
    page.until(
        lambda: page.all("#about")[0].startswith("This run has no gone."), "an unknown source is named"
    )


def test_keys_go_through_the_tasks_and_the_back_button_returns(page):
    page.open("#a=bc&outcome=solved&task=babyai/GoToRedBall/0")
    page.shows("h2", "babyai/GoToRedBall/0")
    page.press("j")
    page.shows("h2", "babyai/GoToRedBall/2")
    page.press("j", "k")
    page.shows("h2", "babyai/GoToRedBall/2")
    page.driver.execute_script("history.go(-3)")
    page.shows("h2", "babyai/GoToRedBall/0")
    page.press(Keys.ESCAPE)
    page.shows("main", "Choose a task.")
    assert "outcome=solved" in page.hash


def test_a_node_of_the_tree_leads_to_its_rollouts(page):
    page.open("#a=round:teacher&task=toy/toy/1")
    rollouts = [t for t in trees() if t.task.seed == 1]
    seen = {n: (v, q) for t in rollouts for n, v, q in zip(t.nodes, t.visits, t.values, strict=True)}
    through = Counter(n for t in rollouts for n in t.nodes)
    page.until(lambda: len(page.all(".tree circle")) == len(seen) + 1, "a circle a node, and the root")
    for node, (visits, value) in seen.items():
        label = f"{visits}×", f"{value:.2f}"
        assert tuple(page.all(f".node[data-node='{node}'] > :is(.visits, .value)")) == label
    parents = {n: p for t in rollouts for p, n in zip((0, *t.nodes), t.nodes, strict=False)}
    for node, parent in parents.items():
        assert page.all(f"li:has(> .node[data-node='{parent}']) > ul > li > .node[data-node='{node}']")
    assert page.all(".rollout") == [
        f"#{t.index} {'✓' if t.success else '✗'} {t.num_tokens} tok {'D' if t.success else 'U'}"
        for t in rollouts
    ]
    chosen = next(n for n, count in through.items() if count < len(rollouts))
    page.click(f".node[data-node='{chosen}']")
    page.until(lambda: len(page.all(".rollout")) == through[chosen], "the node's rollouts")
    assert f"node={chosen}" in page.hash
    shown = next(t for t in rollouts if chosen in t.nodes)
    assert page.all(".episode .action, .episode .reply") == [s.action or s.text for s in shown.steps]
    other = next(n for n in seen if n != chosen and through[n] != through[chosen])
    page.click(f"circle[data-node='{other}']")
    page.until(lambda: len(page.all(".rollout")) == through[other], "a click in the drawing does the same")


def test_what_an_agent_says_is_text_and_nothing_else(page):
    page.open("#a=depo&b=bc&task=babyai/GoToRedBall/4&q=owned")
    page.shows("#count", "1 of 12 tasks")
    page.until(lambda: len(page.all(".side:first-child .turn")) == 1, "the episode")
    for selector in (".thought", "code.action", ".turn > .seen", ".final", ".system p", ".error"):
        assert page.all(f".side:first-child {selector}") == [EVIL]
    assert page.all("body img, #main script, #rows script") == []
    assert page.script("window.owned ?? null") is None


@pytest.mark.parametrize(
    "link", ["", "#a=bc&b=depo&task=babyai/OpenRedDoor/5", "#a=round:teacher&task=toy/toy/1"]
)
def test_it_fits_a_phone_and_is_dark_where_that_is_wanted(page, link):
    page.open(link, PHONE, dark=True)
    wanted = ".episode" if link else ".row"
    page.until(lambda: page.all(wanted), wanted)
    assert page.fits()
    # One of list and task is in sight, and both sides are within the window.
    assert (
        page.script("[...document.querySelectorAll('aside, main')].filter((e) => e.offsetParent).length") == 1
    )
    edges = "[...document.querySelectorAll('.side')].map((e) => e.getBoundingClientRect().right)"
    assert all(right <= PHONE[0] for right in page.script(edges))
    assert page.script("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"


def test_thousands_of_tasks_make_few_elements_and_stay_quick_to_reach(driver, tmp_path):
    many = [episode("bc", seed, 1 + seed % 2) for seed in range(4000)]
    source = Source("bc", "evaluation", "bc", lambda: many)
    page = Page(driver, write_view(tmp_path, "large", [source]).index).open("#a=bc")
    page.shows("#count", "4,000 tasks")
    assert 5 < len(rows(page)) < 60
    page.driver.execute_script(
        "const list = document.getElementById('list'); list.scrollTop = list.scrollHeight"
    )
    page.until(lambda: rows(page)[-1] == "OpenRedDoor 3999", "the last task")
    assert len(rows(page)) < 60
    page.click(".row[data-task='babyai/OpenRedDoor/3999']")
    page.shows("h2", "babyai/OpenRedDoor/3999")
    assert page.complaints() == []


def test_a_missing_data_file_is_named(driver, index, tmp_path):
    copy = Path(shutil.copytree(index.parent, tmp_path / "view"))
    for file in (copy / "data").iterdir():
        file.unlink()
    page = Page(driver, copy / "index.html").open("#a=bc")
    page.until(lambda: page.all("main .error"), "an error")
    assert "is missing" in page.all("main .error")[0]
    page.complaints()  # the browser's own, of the missing file


def test_the_reports_of_a_run_and_of_a_sweep_fit_a_phone(driver, tmp_path):
    config = report_help.make_config()
    grid = {"alpha_tokens": [0.0, 1.0, 3.0], "alpha_steps": [0.0, 1.0, 3.0]}
    sweep, paper = report_help.make_sweep(grid, failed=[1]), paper_rows("babyai", ["suites", *grid])
    curves, manifests, examples = (
        report_help.make_curves(),
        report_help.make_manifests(),
        report_help.make_examples(),
    )
    of_run = tmp_path / "index.html"
    views = [sweep_view(sweep, ())]
    text = render(report_help.make_results(config), curves, manifests, examples, config, views, paper)
    of_run.write_text(text, encoding="utf-8")
    for report in (of_run, write_sweep(tmp_path / "sweep", sweep, paper)["html"]):
        page = Page(driver, report).open("", PHONE)
        assert page.all("h1") and page.fits()
        page.driver.execute_script("document.querySelectorAll('details').forEach((e) => (e.open = true))")
        assert page.fits()
        assert page.complaints() == []
