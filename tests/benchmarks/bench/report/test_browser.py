"""The report in a real browser: sorting, filtering, keys, a narrow screen, dark mode, names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bench_report_case import browse, write_run

from stablepref.benchmarks.bench.report.gallery import scorer_disagreement
from stablepref.benchmarks.bench.report.page import write_report
from stablepref.benchmarks.bench.score_table import ScoreTable, read_table

TOOLS = """
const by = (id) => document.getElementById(id);
const set = (id, value) => {
  by(id).value = value;
  by(id).dispatchEvent(new Event(id === "text" ? "input" : "change", {bubbles: true}));
};
const key = (name) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
const shown = () => [...document.querySelectorAll("article h3")]
  .map((head) => Number(head.id.slice(7)));
const all = () => {
  const found = shown();
  while (!by("next").disabled) { by("next").click(); found.push(...shown()); }
  return found;
};
const at = () => document.activeElement.querySelector("h3")?.id;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def fault(model: int, place: int) -> str | None:
        return "blanked" if (model, place) == (1, 5) else None

    folder = tmp_path_factory.mktemp("browser") / "run"
    made = write_run(folder, images=2, fault=fault)
    return write_report([made], resamples=20, fits=5)


@pytest.fixture(scope="module")
def table(page: Path) -> ScoreTable:
    return read_table(page.parents[1])


def shares(table: ScoreTable, a: int, b: int, scorer: int) -> list[float | None]:
    """How far a wins over b on each prompt, in loops."""
    found: list[float | None] = []
    for prompt in range(len(table.prompts)):
        won = [
            np.sign(x - y)
            for x in table.scores[a, scorer, prompt]
            for y in table.scores[b, scorer, prompt]
            if not np.isnan(x - y)
        ]
        found.append(float(np.mean(won)) if won else None)
    return found


def ordered(values: list[float | None]) -> list[int]:
    """Places, highest first, those without a number last, equals in the set's order."""
    there = [place for place, value in enumerate(values) if value is not None]
    there.sort(key=lambda place: -float(values[place] or 0))
    return there + [place for place, value in enumerate(values) if value is None]


def test_sorting_filtering_and_keys(page: Path, table: ScoreTable) -> None:
    script = """
      const found = {set: all(), pages: by("page").textContent};
      found.first = document.images.length;
      for (const order of ["disagreement", "won", "a", "b", "clear", "close"]) {
        set("order", order); found[order] = all();
      }
      set("order", "set");
      set("scorer", 1); set("b", 2);
      for (const outcome of ["1", "0", "-1", "split"]) {
        set("outcome", outcome); found[outcome] = all();
      }
      set("outcome", "");
      found.status = by("status").textContent;
      set("group", JSON.stringify(["category", "kind 1"])); found.group = all();
      set("text", "NUMBER 1"); found.text = all();
      set("text", "no such words"); found.nothing = by("prompts").textContent;
      set("group", ""); set("text", "");
      key("j"); found.keys = [at()]; key("j"); found.keys.push(at());
      key("ArrowRight"); found.keys.push(at()); key("k"); found.keys.push(at());
      for (let i = 0; i < 18; i++) key("j");
      found.keys.push(at()); key("j"); found.keys.push(at(), by("page").textContent);
      key("ArrowLeft"); found.keys.push(at());
      key("/"); found.search = document.activeElement.id;
      set("text", "number 7"); key("j"); found.typed = document.activeElement.id;
      key("Escape"); found.after = [by("text").value, at(), shown().length];
      by("pair").click();
      found.pair = document.querySelectorAll("article:first-child .block").length;
      by("pair").click();
      const cell = document.querySelectorAll(".matrix a[data-a='2'][data-b='1']")[1];
      cell.click();
      found.cell = [by("a").value, by("b").value, by("scorer").value, by("order").value];
      found.cells = all();
      set("group", ""); set("order", "set"); set("text", "00005");
      found.missing = document.querySelector("article").innerText;
      const board = document.querySelector("table.sortable");
      const column = (place) => [...board.tBodies[0].rows]
        .map((row) => row.cells[place].textContent.trim());
      const button = board.tHead.querySelectorAll("button")[2];
      button.click(); found.up = [column(1), button.parentElement.getAttribute("aria-sort")];
      button.click(); found.down = [column(1), button.parentElement.getAttribute("aria-sort")];
      return found;"""
    found = browse(page, TOOLS + script)
    assert (found["errors"], found["violations"]) == ([], [])
    count = len(table.prompts)
    assert found["set"] == list(range(count))
    assert found["pages"] == "Page 3 of 3"
    assert found["first"] == 10 * 3 * 2  # the last page; never all images
    first = table.means("first")
    told = [None if np.isnan(x) else float(x) for x in scorer_disagreement(table)]
    assert found["disagreement"] == ordered(told)
    margin = [None if np.isnan(x) else float(x) for x in first[0] - first[1]]
    assert found["a"] == ordered(margin)
    assert found["b"] == ordered([None if x is None else -x for x in margin])
    assert found["clear"] == ordered([None if x is None else abs(x) for x in margin])
    assert found["close"] == ordered([None if x is None else -abs(x) for x in margin])
    assert found["won"] == ordered(shares(table, 0, 1, 0))
    one, other = shares(table, 0, 2, 0), shares(table, 0, 2, 1)
    winners = [np.sign(x) for x in other if x is not None]
    for outcome in (1, 0, -1):
        assert found[str(outcome)] == [p for p, sign in enumerate(winners) if sign == outcome]
    assert found["split"] == [
        p for p in range(count) if np.sign(float(one[p] or 0)) != np.sign(float(other[p] or 0))
    ]
    counts = [winners.count(sign) for sign in (1, 0, -1)]
    assert all(counts)
    assert found["status"] == (
        "50 of 50 prompts; by second, plain wins {}, ties {}, loses {} against <b>other"
    ).format(*counts)
    assert found["group"] == list(range(1, count, 3))
    assert found["text"] == [p for p in found["group"] if "1" in str(p)]
    assert found["nothing"] == "No prompt is like this."
    places = [0, 1, 2, 1, 19, 20]
    assert found["keys"] == [*(f"prompt-{p}" for p in places), "Page 2 of 3", "prompt-19"]
    assert (found["search"], found["typed"]) == ("text", "text")
    assert found["after"] == ["", "prompt-0", 20]
    assert found["pair"] == 2
    assert found["cell"] == ["2", "1", "1", "won"]
    assert found["cells"] == ordered(shares(table, 2, 1, 1))
    assert "there is no" in found["missing"]
    assert "second: blanked" in found["missing"]
    means = dict(zip(table.models, np.nanmean(first, axis=1), strict=True))
    ascending = sorted(means, key=lambda name: float(means[name]))
    assert found["up"] == [ascending, "ascending"]
    assert found["down"] == [ascending[::-1], "descending"]


CHECKS = r"""
const blend = (top, under) => top.slice(0, 3).map((x, i) => x * top[3] + under[i] * (1 - top[3]));
const parse = (text) => {
  const numbers = text.match(/[\d.]+(e-?\d+)?/g).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1;
  return [...numbers.slice(0, 3).map((x) => x * scale), numbers[3] ?? 1];
};
const ground = (element) => {
  if (!element) return [255, 255, 255];
  return blend(parse(getComputedStyle(element).backgroundColor), ground(element.parentElement));
};
const light = (colour) => {
  const [r, g, b] = colour.map((x) => x / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (element) => {
  const under = ground(element);
  const style = getComputedStyle(element);
  const paint = element.closest("svg") ? style.fill : style.color;
  const [a, b] = [light(blend(parse(paint), under)), light(under)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
document.querySelectorAll("details").forEach((one) => { one.open = true; });
const poor = [];
let texts = 0;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || element.closest("script, style, noscript")) continue;
  if (element.closest(":disabled") || !element.checkVisibility()) continue;
  texts += 1;
  const found = contrast(element);
  if (found < 4.5) poor.push([start(element), found]);
}
const name = (element) => (element.getAttribute("aria-label") || element.alt
  || element.getAttribute("aria-labelledby")?.split(" ")
    .map((id) => document.getElementById(id).textContent).join(" ")
  || element.labels?.[0]?.textContent || element.textContent.trim()
  || element.querySelector("img")?.alt || "").trim();
const start = (element) => element.outerHTML.slice(0, 80);
const all = [...document.querySelectorAll(
  "a, button, input, select, img, form, nav, section, article, [role=region], summary")];
const unnamed = all.filter((element) => !name(element)).map(start);
const untabbed = [...document.querySelectorAll(
  "a, button, input, select, article, summary, .scroll")]
  .filter((element) => element.tabIndex !== 0).map(start);
const wide = [...document.querySelectorAll("body *")].filter((element) =>
  !element.closest(".scroll, .said, .skip") && element.checkVisibility()
  && element.getBoundingClientRect().right > innerWidth + 0.5);
const levels = [...document.querySelectorAll("h1, h2, h3, h4")]
  .map((head) => Number(head.tagName[1]));
const skipped = levels.filter((level, place) => place && level > levels[place - 1] + 1);
"""
SEEN = """
return {poor, texts, unnamed, untabbed, skipped, named: all.length,
  wide: wide.map(start),
  scrolls: document.documentElement.scrollWidth > innerWidth,
  ground: ground(document.body).map(Math.round), images: document.images.length,
  lazy: [...document.images].every((image) => image.loading === "lazy"),
  loaded: [...document.images].filter((image) => image.naturalWidth === 24).length};
"""


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)], ids=["wide", "narrow"])
def test_what_people_see_and_hear(width: int, dark: bool, page: Path) -> None:
    script = 'document.querySelector("article img").scrollIntoView();'
    wait = "await new Promise((done) => setTimeout(done, 1000));"
    found = browse(page, script + wait + CHECKS + SEEN, width=width, dark=dark)
    assert (found["errors"], found["violations"]) == ([], [])
    assert found["poor"] == []
    assert found["texts"] > 300
    assert (found["unnamed"], found["untabbed"], found["skipped"]) == ([], [], [])
    assert found["named"] > 100
    assert (found["wide"], found["scrolls"]) == ([], False)
    assert (sum(found["ground"]) < 200) == dark
    assert found["lazy"]
    assert 0 < found["loaded"] < found["images"] == 20 * 3 * 2 - 2


def test_nothing_can_be_fetched(page: Path) -> None:
    script = """
      new Image().src = "http://127.0.0.1:9/a.png";
      await fetch("http://127.0.0.1:9/b").catch(() => null);
      const added = document.createElement("script");
      added.textContent = "window.ran = true";
      document.body.append(added);
      const links = [...document.querySelectorAll("[src], [href]")]
        .map((one) => one.src || one.href.baseVal || one.href);
      await new Promise((done) => setTimeout(done, 100));
      return {links, ran: Boolean(window.ran)};"""
    found = browse(page, script)
    assert sorted(found["violations"]) == [
        "http://127.0.0.1:9/a.png", "http://127.0.0.1:9/b", "inline"
    ]  # fmt: skip
    assert not found["ran"]
    assert all(link.startswith(("file://", "#")) for link in found["links"])


def test_3200_prompts_are_drawn_a_page_at_a_time(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", prompts=3200, scorers=("one",), draw=False)
    page = write_report([made], resamples=5, fits=2)
    script = """
      const few = [document.querySelectorAll("article").length];
      set("order", "clear"); few.push(document.querySelectorAll("article").length);
      by("next").click(); few.push(document.querySelectorAll("*").length);
      return {few, status: by("status").textContent};"""
    found: dict[str, Any] = browse(page, TOOLS + script)
    assert found["few"][:2] == [20, 20]
    assert found["few"][2] < 3000
    assert found["status"].startswith("3,200 of 3,200 prompts; ")
