"""The page in a real browser: keys, narrow and dark, two annotators at once, a killed server."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from helpers.browser import By, Keys, chromium, press, show_as, until
from helpers.forked import Command, command
from helpers.labelling import draw, session_of
from selenium.webdriver import Chrome

from stablepref.data.labels import Label, read_labels
from stablepref.data.read import read_groups
from stablepref.integrations.label.app import create_app
from stablepref.integrations.label.session import Session
from stablepref.integrations.serve.address import listening


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(chrome: Chrome) -> Iterator[Chrome]:
    """The browser with one empty tab."""
    show_as(chrome)
    first = chrome.current_window_handle
    yield chrome
    for window in chrome.window_handles:
        if window != first:
            chrome.switch_to.window(window)
            chrome.close()
    chrome.switch_to.window(first)
    chrome.get("about:blank")


@contextmanager
def served(session: Session) -> Iterator[str]:
    """The address of the page, served by a thread."""
    config = uvicorn.Config(create_app(session), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    with listening("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def begin(browser: Chrome, address: str, name: str) -> None:
    browser.get(address)
    until(browser, "start", "Your name")
    browser.find_element(By.ID, "name").send_keys(name + Keys.ENTER)
    until(browser, "whose", name)


def left_of(label: Label) -> float:
    """The rank of the picture that stood first."""
    return label.ranks[label.shown[0]]


def test_keys(browser: Chrome, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    session = session_of(draw(tmp_path / "pictures"), out)
    with served(session) as address:
        begin(browser, address, "ann")
        # The count says that the answer is on disk and that the next pictures are there.
        for count, key in enumerate(
            ("1", Keys.ARROW_RIGHT, "t", "x", "s", Keys.ARROW_LEFT, Keys.ARROW_DOWN), start=1
        ):
            press(browser, key)
            until(browser, "count", f"{count} of 9")
            assert len(out.read_text().splitlines()) == count
        press(browser, "u")
        until(browser, "count", "6 of 9")
        press(browser, "2")
        until(browser, "count", "7 of 9")
        browser.find_element(By.CSS_SELECTOR, "#pictures button").click()
        until(browser, "count", "8 of 9")
        browser.find_element(By.CSS_SELECTOR, "#answers [data-key=x]").click()
        until(browser, "sum", "ann: 9 answers")
        press(browser, Keys.BACKSPACE)
        until(browser, "count", "8 of 9")
        browser.refresh()  # goes on under the same name
        until(browser, "count", "8 of 9")
        assert browser.get_log("browser") == []
    labels = read_labels(out)
    kinds = [one.answer for one in labels]
    assert kinds == ["ranked", "ranked", "tie", "bad", "skip", "ranked", "ranked", "ranked"]
    assert [left_of(one) for one in labels if one.answer == "ranked"] == [1, 2, 1, 2, 1]
    assert all((one.seconds or 0) > 0 for one in labels)


SEEN = """
const inside = (element) => {
  const box = element.getBoundingClientRect();
  return box.width > 30 && box.height > 20 && box.left >= 0 && box.top >= 0
    && box.right <= innerWidth && box.bottom <= innerHeight;
};
const ground = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
return {
  pictures: [...document.querySelectorAll("#pictures img")].filter(inside).length,
  outside: [...document.querySelectorAll("button")].filter((one) => one.checkVisibility())
    .filter((one) => !inside(one)).map((one) => one.textContent),
  scrolls: document.documentElement.scrollWidth > innerWidth,
  ground,
  unnamed: [...document.querySelectorAll("button, img, progress")]
    .filter((one) => !(one.textContent + (one.alt ?? "") + (one.ariaLabel ?? "")).trim()
      && !one.querySelector("img")).length,
};
"""


def test_a_group_in_a_narrow_dark_window(browser: Chrome, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    session = session_of(draw(tmp_path / "pictures", images=5), out, show="groups")
    show_as(browser, width=390, height=844, dark=True)
    with served(session) as address:
        begin(browser, address, "ann")
        until(browser, "hint", "best picture")
        found = browser.execute_script(SEEN)
        assert (found["pictures"], found["outside"], found["scrolls"]) == (5, [], False)
        assert sum(found["ground"]) < 150
        assert found["unnamed"] == 0
        for key in ("2", "4", "u", "3", "t", "1"):  # 2 is best, then 3 and 1 tied
            press(browser, key)
        until(browser, "hint", "next best")
        press(browser, Keys.ENTER)  # 4 and 5 are last
        until(browser, "count", "1 of 3")
        press(browser, "e")
        until(browser, "count", "2 of 3")
        for number in (5, 4, 3, 2, 1):
            browser.find_element(By.CSS_SELECTOR, f"#pictures [data-key='{number}']").click()
        until(browser, "sum", "3 answers")
        browser.get(address + "agreement")
        assert not browser.execute_script(SEEN)["scrolls"]
    first, second, third = read_labels(out)
    assert [first.ranks[place] for place in first.shown] == [2, 1, 2, 4, 4]
    assert second.answer == "tie"
    assert [third.ranks[place] for place in third.shown] == [5, 4, 3, 2, 1]


def test_two_annotators_at_once(browser: Chrome, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    session = session_of(draw(tmp_path / "pictures"), out)
    with served(session) as address:
        windows = {}
        for name in ("ann", "bob"):
            if windows:
                browser.switch_to.new_window("tab")
            begin(browser, address, name)
            windows[name] = browser.current_window_handle
        for count in range(1, 10):
            for name, window in windows.items():
                browser.switch_to.window(window)
                press(browser, "1" if name == "ann" else "2")
                if count < 9:
                    until(browser, "count", f"{count} of 9")
        until(browser, "sum", "bob: 9 answers")
    labels = read_labels(out)
    assert {one.annotator: left_of(one) for one in labels} == {"ann": 1, "bob": 2}
    groups = list(read_groups(out))
    assert len(groups) == 9
    assert all(group.annotators == ("ann", "bob") for group in groups)


def test_a_second_window_of_the_same_annotator(browser: Chrome, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    session = session_of(draw(tmp_path / "pictures"), out)
    with served(session) as address:
        begin(browser, address, "ann")
        first = browser.current_window_handle
        browser.switch_to.new_window("tab")
        begin(browser, address, "ann")
        press(browser, "1")
        until(browser, "count", "1 of 9")
        browser.switch_to.window(first)
        press(browser, "2")  # an answer to what was answered meanwhile
        until(browser, "note", "answered already")
        until(browser, "count", "1 of 9")
    assert len(read_labels(out)) == 1


def address_of(server: Command) -> str:
    """Where a server that was just started is, once it can be reached."""
    for _ in range(600):
        found = re.search(r"http://\S+", server.stderr())
        if found:
            return found[0]
        assert server.poll() is None, server.stderr()
        time.sleep(0.1)
    pytest.fail(server.stderr())


def test_killed_between_two_clicks(browser: Chrome, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = draw(tmp_path / "pictures")
    words = ("label", folder, "--prompts", folder / "prompts.txt", "--out", out, "--repeats", 0)
    with command(*words, "--port", 0) as server:
        address = address_of(server)
        begin(browser, address, "ann")
        for count in (1, 2):
            browser.find_element(By.CSS_SELECTOR, "#pictures button").click()
            until(browser, "count", f"{count} of 9")
        asked = browser.find_element(By.ID, "prompt").text
        second = command(*words, "--port", 0)
        with second as other:
            other.wait(60)
            assert other.returncode == 2
            assert "is being written by another process" in other.stderr()
        server.send_signal(signal.SIGKILL)
        server.wait(30)
        browser.find_element(By.CSS_SELECTOR, "#pictures button").click()
        until(browser, "note", "does not answer")
    assert len(out.read_text().splitlines()) == 2
    with command(*words, "--port", address.rstrip("/").rpartition(":")[2]) as server:
        assert address_of(server) == address
        browser.refresh()
        until(browser, "count", "2 of 9")
        assert browser.find_element(By.ID, "prompt").text == asked
        browser.find_element(By.CSS_SELECTOR, "#pictures button").click()
        until(browser, "count", "3 of 9")
        server.send_signal(signal.SIGINT)
        server.wait(30)
        assert server.returncode == 0
        assert "2 answers already" in server.stderr()
        assert f"3 answers are in {out}" in server.stderr()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({row["label"] for row in rows}) == 3
    assert all(left_of(one) == 1 for one in read_labels(out))
