#!/usr/bin/env python3
"""Tests the page of `llada serve` and of `llada replay` in headless Chromium.

    pip install playwright                 # tried with 1.65; any Chromium of the last years
    npm pack axe-core && tar xzf axe-core-*.tgz
    python tools/page_test.py --llada target/release/llada --axe package/axe.min.js --screenshots DIR

starts the server on a free port, and checks what a user sees: writing, infilling, the replay, two
settings side by side, errors, Stop, a phone, dark and light, the keyboard alone, Chinese and English,
the code to copy, traces, and a page of `llada replay` from the disk. No page may log an error, ask for
anything in vain, or be wider than its window; axe-core must find nothing. Pictures of it all go into
DIR. Chromium is the one that `--browser` names, else the first on the path, else Playwright's own.
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ACROSTIC = "春□□□□，夏□□□□。秋□□□□，冬□□□□。"
QUATRAIN = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


class Tests:
    """A browser, a server, and what all tests ask of them."""

    def __init__(self, browser, url, args):
        self.browser, self.url, self.args = browser, url, args
        self.axe = Path(args.axe).read_text(encoding="utf-8")
        self.folder = Path(tempfile.mkdtemp(prefix="llada-page-"))

    @contextlib.contextmanager
    def page(self, url=None, allowed=(), viewport=DESKTOP, **options):
        """A fresh page; at its end nothing may have gone wrong but what `allowed` names."""
        options = {"locale": "en-US", "color_scheme": "light"} | options
        context = self.browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(20_000)
        page = context.new_page()
        wrong = []
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status}: {r.url}"))
        page.goto(url or self.url)
        if url is None:
            expect(page.locator("body[data-ready]")).to_be_attached()
        yield page
        found = [line for line in wrong if not any(re.search(part, line) for part in allowed)]
        assert not found, found
        context.close()

    def picture(self, page, name):
        page.screenshot(path=Path(self.args.screenshots) / f"{name}.png", full_page=True)

    def audit(self, page):
        """axe-core finds nothing, and nothing is wider than the window."""
        page.evaluate(self.axe)
        found = page.evaluate("axe.run().then((r) => r.violations)")
        said = [f"{v['id']}: {n['html']} {n['failureSummary']}" for v in found for n in v["nodes"]]
        assert not said, said
        width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window, f"{width} of {window} pixels"

    def llada(self, *arguments):
        """What a command prints."""
        run = subprocess.run([self.args.llada, *arguments], capture_output=True, text=True, check=True)
        return run.stdout


def run(page, state="done"):
    """Presses Run and waits for the end, and for the end of the animation."""
    page.click("#run")
    settle(page, state)


def settle(page, state="done"):
    expect(page.locator(f"#stage[data-state={state}]")).to_be_visible(timeout=60_000)
    expect(page.locator("#player")).to_have_attribute("data-playing", "false", timeout=60_000)


def text(page, pane=0):
    """The text of a canvas, without the sign of its end."""
    return page.locator(".canvas").nth(pane).text_content().removesuffix("∎")


def choose(page, name, value):
    """Chooses one of radio buttons, whose label is what is seen."""
    page.locator(f"label:has(input[name={name}][value={value}])").click()


def figure(page, name, pane=0):
    return float(page.locator(f"[data-figure={name}]").nth(pane).text_content())


def masks(page, pane=0):
    return page.locator(".canvas").nth(pane).locator(".mask").count()


def test_generate(tests):
    with tests.page() as page:
        page.click("[data-example=completion]")
        run(page)
        assert text(page) == QUATRAIN, text(page)
        assert (figure(page, "passes"), figure(page, "tokens")) == (18, 18)
        assert figure(page, "rate") > 0 and 0 < figure(page, "mean") <= 1
        expect(page.locator("#live")).to_have_text(f"Done: {QUATRAIN}")
        expect(page.locator("#plot .token.seen")).to_have_count(18)
        page.click("summary")
        expect(page.locator("#steps-table tr")).to_have_count(19)
        tests.audit(page)
        choose(page, "color", "step")
        tests.audit(page)
        tests.picture(page, "generate")


def test_infill(tests):
    with tests.page() as page:
        tests.audit(page)
        tests.picture(page, "start")
        for example in ["reversal", "middle", "acrostic"]:
            page.click(f"[data-example={example}]")
            asked = page.input_value("#text")
            run(page)
            written = text(page)
            assert len(written) == len(asked), (asked, written)
            assert all(a in ("□", b) for a, b in zip(asked, written)), (asked, written)
            assert written == tests.llada("infill", asked).strip(), written
            tests.picture(page, f"infill-{example}")


def test_instruction(tests):
    with tests.page() as page:
        page.click("[data-example=instruction]")
        expect(page.locator("#model")).to_have_value("poems-instruct")
        run(page)
        assert figure(page, "tokens") > 0
        tests.picture(page, "instruction")


def test_replay(tests):
    with tests.page() as page:
        page.fill("#steps-a", "5")
        run(page)
        slider = page.locator("#slider")
        expect(slider).to_have_value("5")
        whole = text(page)
        slider.focus()
        page.keyboard.press("Home")
        assert text(page) == ACROSTIC and masks(page) == 16
        expect(slider).to_have_attribute("aria-valuetext", re.compile("^Start, 5 steps"))
        page.keyboard.press("ArrowRight")
        expect(page.locator("#position")).to_have_text("Step 1 of 5")
        # 16 masks in 5 steps: the first has one more.
        assert masks(page) == 12 and page.locator(".canvas .new").count() == 4
        tests.audit(page)
        for button, step in [("forward", 2), ("last", 5), ("back", 4), ("first", 0)]:
            page.click(f"#{button}")
            expect(slider).to_have_value(str(step))
        page.click("#play")
        settle(page)
        assert text(page) == whole and masks(page) == 0
        page.select_option("#speed", "400")
        page.click("#play")
        expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
        page.click("#play")
        expect(page.locator("#player")).to_have_attribute("data-playing", "false")
        assert int(slider.input_value()) < 5


def test_compare(tests):
    with tests.page() as page:
        page.locator("label:has(#compare)").click()
        page.fill("#steps-b", "4")
        page.select_option("#remasking-b", "margin")
        page.select_option("#cache-b", "dual")
        expect(page.locator("#settings .other")).to_have_count(3)
        run(page)
        assert (figure(page, "passes"), figure(page, "passes", 1)) == (16, 4)
        a, b = text(page), text(page, 1)
        assert a == tests.llada("infill", ACROSTIC).strip()
        n = sum(x != y for x, y in zip(a, b))
        for pane in [0, 1]:
            expect(page.locator(".pane").nth(pane).locator(".differs")).to_have_count(n)
        said = f"Tokens that differ: {n} of 16" if n else "Both wrote the same tokens."
        expect(page.locator("#differing")).to_have_text(said)
        rows = page.locator("#differences tr[data-row]")
        names = rows.evaluate_all("rows => rows.map((row) => row.dataset.row)")
        assert names == ["steps", "remasking", "cache", "passes", "seconds", "rate", "tokens", "mean"], names
        assert rows.nth(3).inner_text().split() == ["Passes", "16", "4", "×", "0.25"]
        tests.audit(page)
        tests.picture(page, "compare")


def test_errors(tests):
    with tests.page(allowed=["400", "Failed to load resource"]) as page:
        def refused(field, part):
            expect(page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")
            expect(page.locator(f"#{field}-problem")).to_contain_text(part)
            expect(page.locator(f"#{field}")).to_be_focused()
            expect(page.locator("[aria-invalid]")).to_have_count(1)

        page.fill("#threshold-a", "7")
        run(page, "failed")
        refused("threshold-a", "threshold")
        tests.audit(page)
        tests.picture(page, "error")
        page.fill("#threshold-a", "")
        page.fill("#steps-a", "many")
        run(page, "failed")
        refused("steps-a", "many is not a number")
        page.fill("#steps-a", "")
        page.fill("#text", "春眠不觉晓")
        run(page, "failed")
        refused("text", "mask")
        # The one that is wrong of two is marked.
        page.fill("#text", ACROSTIC)
        page.locator("label:has(#compare)").click()
        page.fill("#steps-b", "0")
        run(page, "failed")
        refused("steps-b", "steps")
        page.fill("#steps-b", "2")
        run(page)
        expect(page.locator("[aria-invalid]")).to_have_count(0)


def test_unreachable(tests):
    with tests.page(allowed=["failed: .*infill", "ERR_FAILED"]) as page:
        page.route("**/v1/infill", lambda route: route.abort())
        run(page, "failed")
        expect(page.locator("#form-error")).to_contain_text("cannot be reached")
        page.unroute("**/v1/infill")
        run(page)
        expect(page.locator("#form-error")).to_be_hidden()


def test_stop(tests):
    with tests.page(allowed=["failed: .*completions"]) as page:
        page.click("[data-example=completion]")
        # What the context has room for, a token a step, each twice.
        page.fill("#gen_length-a", "249")
        page.fill("#cfg_scale-a", "1")
        page.click("#run")
        expect(page.locator(".canvas")).to_be_visible()
        page.click("#stop")
        settle(page, "stopped")
        expect(page.locator("#status")).to_contain_text("Stopped after")
        assert page.locator("#slider").evaluate("slider => Number(slider.max)") < 249
        page.click("[data-example=completion]")
        run(page)
        assert text(page) == QUATRAIN


def test_phone(tests):
    for scheme in ["light", "dark"]:
        with tests.page(viewport=PHONE, color_scheme=scheme, has_touch=True) as page:
            tests.audit(page)
            run(page)
            tests.audit(page)
            page.locator("label:has(#compare)").click()
            page.fill("#steps-b", "3")
            run(page)
            tests.audit(page)
            tests.picture(page, f"phone-{scheme}")


def test_dark(tests):
    with tests.page(color_scheme="dark") as page:
        background = "getComputedStyle(document.documentElement).backgroundColor"
        dark = page.evaluate(background)
        tests.audit(page)
        run(page)
        for color in ["confidence", "step"]:
            choose(page, "color", color)
            tests.audit(page)
        tests.picture(page, "dark")
        page.select_option("#theme", "light")
        assert page.evaluate(background) != dark
        tests.audit(page)
        page.reload()
        expect(page.locator("#theme")).to_have_value("light")


def test_keyboard(tests):
    with tests.page() as page:
        def tab_to(name):
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.id") == name:
                    return
            raise AssertionError(f"no way to {name} by the tabulator")

        tab_to("text")
        page.keyboard.press("Control+A")
        page.keyboard.insert_text("□□□□□，低头思故乡。")
        tab_to("steps-a")
        page.keyboard.type("2")
        page.keyboard.press("Control+Enter")
        settle(page)
        assert figure(page, "passes") == 2
        tab_to("play")
        page.keyboard.press("Space")
        settle(page)
        tab_to("slider")
        page.keyboard.press("Home")
        assert masks(page) == 5
        page.keyboard.press("Control+.")
        settle(page)
        assert masks(page) == 0
        page.keyboard.press("Control+/")
        expect(page.locator("#keys")).to_be_visible()
        tests.audit(page)
        page.keyboard.press("Escape")
        expect(page.locator("#keys")).to_be_hidden()
        expect(page.locator("#slider")).to_be_focused()


def test_languages(tests):
    with tests.page(locale="zh-CN") as page:
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect(page.locator("#run")).to_have_text("运行")
        run(page)
        tests.audit(page)
        tests.picture(page, "chinese")
        page.fill("#steps-a", "3")
        page.select_option("#language", "en")
        expect(page.locator("html")).to_have_attribute("lang", "en")
        expect(page.locator("#run")).to_have_text("Run")
        expect(page.locator("#position")).to_have_text("Step 16 of 16")
        expect(page.locator("#steps-a")).to_have_value("3")
        page.reload()
        expect(page.locator("#run")).to_have_text("Run")
        left = page.evaluate("[...document.querySelectorAll('[data-i18n]')].filter((e) => e.textContent === e.dataset.i18n && e.textContent.includes('.')).length")
        assert left == 0, "words are missing"


def test_code(tests):
    with tests.page() as page:
        page.fill("#text", "□□□□□，低头'思\"故乡。")
        page.fill("#steps-a", "2")
        page.select_option("#cache-a", "dual")
        run(page)
        written = text(page)
        asked = page.locator("#snippet").text_content()
        answer = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        answer = json.loads(answer.stdout)["text"]
        # What the model does not know stays in the answer.
        assert answer[:5] == written[:5] and answer.endswith("低头'思\"故乡。"), (answer, written)
        choose(page, "code", "python")
        asked = page.locator("#snippet").text_content()
        told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == answer, told
        choose(page, "code", "rust")
        expect(page.locator("#snippet")).to_contain_text("steps: Some(2)")
        expect(page.locator("#snippet")).to_contain_text("cache: CacheMode::Dual")


def test_traces(tests):
    trace = tests.folder / "trace.jsonl"
    written = tests.llada("infill", ACROSTIC, "--steps", "6", "--trace", str(trace)).strip()
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    # One of a version that wrote less, and one that is broken.
    old, broken = tests.folder / "old.jsonl", tests.folder / "broken.jsonl"
    fewer = [{key: line[key] for key in line if key not in ("texts", "prompt_tokens")} for line in lines]
    old.write_text("\n".join(map(json.dumps, fewer)), encoding="utf-8")
    broken.write_text("\n".join(map(json.dumps, lines[:2])) + '\n{"request": 0,', encoding="utf-8")
    with tests.page() as page:
        for file in [trace, old]:
            page.set_input_files("#file", file)
            settle(page, "opened")
            assert text(page) == written, text(page)
            page.click("#first")
            assert text(page) == ACROSTIC and masks(page) == 16, text(page)
        page.set_input_files("#file", broken)
        expect(page.locator("#trace-problem")).to_have_text("broken.jsonl, line 3: not a JSON object")
        tests.audit(page)
        # What was seen can be kept, and opened again.
        page.locator("label:has(#compare)").click()
        page.fill("#steps-b", "3")
        run(page)
        seen = [text(page), text(page, 1)]
        with page.expect_download() as download:
            page.click("#download")
        kept = tests.folder / "kept.jsonl"
        download.value.save_as(kept)
        page.set_input_files("#file", kept)
        settle(page, "opened")
        assert [text(page), text(page, 1)] == seen
        assert (figure(page, "passes"), figure(page, "passes", 1)) == (16, 3)
    test_replayed(tests, kept, seen)
    test_replayed(tests, trace, [written])


def test_replayed(tests, trace, texts):
    """`llada replay` makes a page that needs no server."""
    html = trace.with_suffix(".html")
    tests.llada("replay", str(trace), "-o", str(html))
    for options in [{}, {"color_scheme": "dark", "viewport": PHONE, "locale": "zh-CN"}]:
        with tests.page(html.as_uri(), **options) as page:
            settle(page, "opened")
            assert [text(page, i) for i in range(len(texts))] == texts
            expect(page.locator("#form")).to_be_hidden()
            tests.audit(page)
            page.click("#first")
            assert masks(page) == 16
            page.select_option("#speed", "40")
            page.click("#play")
            settle(page, "opened")
            assert masks(page) == 0
            tests.picture(page, f"replay-{trace.stem}-{len(options)}")


def serve(llada):
    """A server on a free port, and its address."""
    server = subprocess.Popen([llada, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if found := re.match(r"listening on (http://\S+)", line):
            return server, found[1]
    raise SystemExit(f"{llada} serve ended with {server.wait()} before it was ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llada", required=True, help="the binary")
    parser.add_argument("--axe", required=True, help="axe.min.js of the npm package axe-core")
    parser.add_argument("--screenshots", required=True, help="folder for pictures")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="Chromium")
    parser.add_argument("filter", nargs="*", help="names of tests, or parts of them")
    args = parser.parse_args()
    Path(args.screenshots).mkdir(parents=True, exist_ok=True)
    named = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    chosen = [(name, test) for name, test in named if name != "test_replayed"
              and (not args.filter or any(part in name for part in args.filter))]
    server, url = serve(args.llada)
    failed = []
    try:
        with sync_playwright() as playwright:
            # A container has no user for the sandbox of Chromium.
            browser = playwright.chromium.launch(executable_path=args.browser, args=["--no-sandbox"])
            tests = Tests(browser, url, args)
            for name, test in chosen:
                try:
                    test(tests)
                    print(f"ok      {name}", flush=True)
                except Exception:
                    failed.append(name)
                    print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
            browser.close()
            shutil.rmtree(tests.folder)
    finally:
        server.terminate()
        server.wait()
    print(f"{len(chosen) - len(failed)} of {len(chosen)} passed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
