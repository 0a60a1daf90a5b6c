"""The report begins with the answer, is one file, and treats what users wrote as text."""

import re
import shutil
from pathlib import Path

import pytest

from analysis import analyse, load_runs
from analysis.errors import UserError
from analysis.findings.evidence import read_evidence
from analysis.findings.study import Settings
from analysis.main import main
from analysis.report import figures
from analysis.report.report import write_report
from analysis.simulate import simulate_runs
from tests.analysis.helpers import write_study


@pytest.fixture(scope="module")
def report(full_evidence, tmp_path_factory) -> Path:
    """A report with some of its figures; all of them are drawn elsewhere."""
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DRAWERS", figures.DRAWERS[:1] + figures.DRAWERS[-2:])
        write_report(full_evidence, out)
    return out


def test_the_report_begins_with_the_answer(report):
    html = (report / "report.html").read_text()
    body = html[html.index("<body>") :]
    first = re.search(r'<p class="answer">(.*?)</p>', body, re.S).group(1)
    assert first.startswith("On ") and "is worth" in first
    assert (report / "report.md").read_text().splitlines()[2].startswith("**On ")


def test_the_report_asks_nothing_of_the_outside(report):
    html = (report / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "http://" not in html.replace("http://www.w3.org", "") and "https://" not in html
    assert "<script" not in html


def test_the_report_names_corpus_counts_seeds_versions_and_commands(report):
    for name in ("report.html", "report.md"):
        text = (report / name).read_text()
        for words in ("prose", "10,700,000", "torch 2.13.0", "two cores", "replay-sweep study=made_up", "0/0/0",
                      "How it was computed", "nats per run"):  # fmt: skip
            assert words in text, (name, words)


def test_every_figure_lies_beside_the_report_as_pdf_and_png(report):
    drawn = {path.stem for path in (report / "figures").glob("*.png")}
    assert drawn == {path.stem for path in (report / "figures").glob("*.pdf")}
    linked = set(re.findall(r"\(figures/(\w+)\.png\)", (report / "report.md").read_text()))
    assert linked == drawn and len(drawn) == 3


def test_markdown_tables_keep_their_shape(report):
    lines = [line for line in (report / "report.md").read_text().splitlines() if line.startswith("|")]
    assert lines and all(line.endswith("|") for line in lines)
    head = lines.index(next(line for line in lines if line.startswith("|---")))
    assert lines[head].count("|") == lines[head - 1].count("|") == lines[head + 1].count("|")


def test_a_rerun_writes_the_same_bytes(small_findings, small_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "DRAWERS", figures.DRAWERS[:1])
    outs = [tmp_path / name for name in ("a", "b")]
    for out in outs:
        write_report(read_evidence(small_findings, small_folder), out)
    files = sorted(path.relative_to(outs[0]) for path in outs[0].rglob("*") if path.is_file())
    assert files and all((outs[0] / f).read_bytes() == (outs[1] / f).read_bytes() for f in files)


def test_text_of_the_user_is_escaped(tmp_path, no_figures):
    runs = simulate_runs(replay_tokens=(8192,), seeds=1, target="<script>alert(1)</script>")
    folder = write_study(tmp_path / "s", runs, {"title": "<b>bold</b> & co"})
    findings = analyse(load_runs(folder), Settings(n_resamples=200))
    write_report(read_evidence(findings, folder), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in html and "<b>bold" not in html and "&lt;b&gt;bold" in html


@pytest.mark.parametrize("content", ("{", "[1]"))
def test_a_broken_study_json_is_a_one_line_error(small_findings, tmp_path, content):
    folder = write_study(tmp_path / "s", simulate_runs(replay_tokens=(8192,), seeds=1))
    (folder / "study.json").write_text(content)
    with pytest.raises(UserError, match=r"study\.json"):
        read_evidence(small_findings, folder)


def test_odd_but_harmless_study_json_is_shown_or_passed_over(tmp_path, no_figures):
    folder = write_study(
        tmp_path / "s",
        simulate_runs(replay_tokens=(8192,), seeds=1),
        {"sources": "prose", "versions": ["x"], "machine": None, "command": 7, "base_scores": [1]},
    )
    assert main([str(folder), "--replicates", "200"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", (1280, 390))
def test_a_browser_shows_the_report_without_error_request_or_overlap(full_evidence, tmp_path, width):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    write_report(full_evidence, tmp_path)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        images = page.eval_on_selector_all("img", "all => all.map(i => i.complete && i.naturalWidth > 0)")
        page_width = page.evaluate("document.documentElement.scrollWidth")
        overlaps = page.evaluate(
            """() => {
                const boxes = [...document.body.children].map(e => e.getBoundingClientRect()).filter(b => b.height > 0);
                return boxes.slice(1).filter((b, i) => b.top < boxes[i].bottom - 1).length;
            }"""
        )
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert images and all(images)
    assert page_width <= width and overlaps == 0
