"""A headless Chromium that is driven as a person would, by clicks and keys."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver  # noqa: E402 (skipped without it)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

__all__ = ["By", "Keys", "chromium", "press", "show_as", "until"]
PATIENCE = 30.0


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser; a test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--disable-sync", "--no-first-run"),
        "--hide-scrollbars",
    ):
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def show_as(
    browser: webdriver.Chrome, *, width: int = 1200, height: int = 800, dark: bool = False
) -> None:
    """Give the window a size, and the user a preference for light or dark pages."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def press(browser: webdriver.Chrome, keys: str) -> None:
    """Press keys, whatever has the focus."""
    browser.switch_to.active_element.send_keys(keys)


def until(browser: webdriver.Chrome, id_: str, text: str) -> None:
    """Wait until an element holds a text."""
    WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(
        lambda b: text in b.find_element(By.ID, id_).text, f"{id_} does not show {text!r}"
    )
