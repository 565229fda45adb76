"""Runs of made-up scores for reports, and what a real browser makes of their pages."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stablepref.benchmarks.bench.row_files import RowFiles

WORDS = ("red", "circle", "house", "sea", "wolf", "portrait", "storm", "old", "blue")
Fault = Callable[[int, int], str | None]


def write_run(
    folder: Path,
    *,
    prompts: int = 50,
    models: Sequence[str] = ("plain", "tuned", "<b>other"),
    scorers: Sequence[str] = ("first", "second"),
    images: int = 1,
    draw: bool = True,
    fault: Fault = lambda _, __: None,
    seed: int = 0,
) -> Path:
    """A run as `bench` leaves it, without a model: later models and scorers tell more.

    Scores are whole numbers over 4, so that there are ties. `fault(model, prompt)` says why a
    model has no image of a prompt. The first words of prompts are the same in every run.
    """
    rng = np.random.default_rng(seed)
    words = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    listed = []
    for place in range(prompts):
        text = f"{' '.join(words.choice(WORDS, 4))} number {place}"
        category = f"kind {place % 3}"
        listed.append({"key": f"{place:05d}", "prompt": text, "labels": {"category": category}})
    for m, model in enumerate(models):
        (folder / "images" / model).mkdir(parents=True)
        for place in range(prompts):
            for number in range(images):
                reason = fault(m, place)
                name = f"{place:05d}-{number}" if number else f"{place:05d}"
                if draw and reason is None:
                    colour = tuple(int(x) for x in rng.integers(0, 256, 3))
                    Image.new("RGB", (24, 16), colour).save(folder / f"images/{model}/{name}.png")
                scores = {
                    scorer: float(round(4 * rng.normal(m * s, 2)) / 4)
                    for s, scorer in enumerate(scorers)
                }
                row = {"model": model, "prompt": place, "image": number}
                faults = {} if reason is None else dict.fromkeys(scorers, reason)
                rows.append({**row, "scores": {} if faults else scores, "faults": faults})
    settings = {scorer: {"unit": f"{scorer} points"} for scorer in scorers}
    config = {
        "prompts": {"name": "made-up", "count": prompts, "digest": "0"},
        "images": images,
        "models": {model: {"source": f"user/{m}"} for m, model in enumerate(models)},
        "scorers": settings,
    }
    (folder / "run.json").write_text(json.dumps(config))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in listed))
    (folder / "leaderboard.json").write_text("{}")
    files = RowFiles(folder / "scores")
    files.folder.mkdir()
    files.write(0, settings, rows)
    return folder


def browse(page: Path, script: str, *, width: int = 1200, dark: bool = False) -> dict[str, Any]:
    """Open a page in chromium and run a script in it, under the page's own security policy.

    Args:
        page: The page; its folder gets a copy with the script, and a page with a frame.
        script: Body of an async function that returns what JSON can hold.
        width: Of the window, in pixels; headless windows cannot be narrower than 500, frames can.
        dark: Whether the user prefers dark pages.

    Returns:
        What the script returned, with the `violations` of the policy, and `errors`.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    head = """
        const violations = [], errors = [];
        document.addEventListener("securitypolicyviolation", (e) => violations.push(e.blockedURI));
        addEventListener("error", (e) => errors.push(String(e.message)));"""
    run = f"""
        addEventListener("load", async () => {{
            let found = {{}};
            try {{ found = await (async () => {{ {script} }})(); }}
            catch (error) {{ errors.push(error.stack); }}
            parent.postMessage(JSON.stringify({{...found, violations, errors}}), "*");
        }});"""
    text = page.read_text()
    policy = "script-src"
    assert text.count(policy) == 1
    for added in (head, run):
        digest = base64.b64encode(sha256(added.encode()).digest()).decode()
        text = text.replace(policy, f"{policy} 'sha256-{digest}'")
    text = text.replace("<style>", f"<script>{head}</script><style>", 1)
    text = text.replace("</body>", f"<script>{run}</script></body>")
    (page.parent / "driven.html").write_text(text)
    frame = page.parent / "frame.html"
    frame.write_text(
        f'<iframe src="driven.html" style="border:0;width:{width}px;height:900px"></iframe>'
        '<script>onmessage = (e) => { document.body.innerHTML = "<pre></pre>";'
        "document.querySelector('pre').textContent = 'found' + e.data + 'end'; };</script>"
    )
    profile = page.parent / "profile"
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={profile}", f"--window-size={max(width, 500)},1000"),
        *("--virtual-time-budget=20000", "--dump-dom"),
        # Without the first, a page that is dumped loads lazy images too.
        f"--blink-settings=lazyLoadEnabled=true,preferredColorScheme={0 if dark else 1}",
    ]
    done = subprocess.run(
        [browser, *options, f"file://{frame}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    shutil.rmtree(profile, ignore_errors=True)
    inside = done.stdout.partition("found{")[2].rpartition("}end")[0]
    assert inside, f"the page said nothing: {done.stdout[-2000:]}"
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        inside = inside.replace(entity, letter)
    found: dict[str, Any] = json.loads("{" + inside + "}")
    return found
