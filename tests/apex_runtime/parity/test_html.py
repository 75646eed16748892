"""The page stands alone, escapes what it is told, says what the report says, and is written in one step."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from apex_runtime.cli.main import main
from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity import subjects
from apex_runtime.parity.html import page, write_page
from apex_runtime.parity.panels import Panel
from apex_runtime.parity.worst import Badness, Sight

EVIL = "<script>alert('x')</script>\" onerror=\"x&y"


class Reader(HTMLParser):
    """Tags with their attributes, and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words += data


@pytest.fixture
def run(fake, tmp_path, monkeypatch):
    """The command on two stand-ins of which the second may be faulty; gives (exit code, page, report)."""
    (tmp_path / "images").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number} & co.png"), pixels)
    for name in ("a.onnx", "b & <i>.onnx"):
        (tmp_path / name).write_text(name)

    def go(fault=None, info: ModelInfo | None = None):
        def open_session(path, *_, **__):
            return fake(fault if Path(path).name.startswith("b") else None, **({"info": info} if info else {}))

        monkeypatch.setattr(subjects, "open_session", open_session)
        target = tmp_path / "new" / "page.html"
        against = ["--against", str(tmp_path / "b & <i>.onnx"), "--images", str(tmp_path / "images"), "--budget", "2,4"]
        more = ["-o", str(tmp_path / "r.json"), "--html", str(target)]
        result = CliRunner().invoke(main, ["parity", str(tmp_path / "a.onnx"), *against, *more])
        return result.exit_code, target.read_text("utf-8"), json.loads((tmp_path / "r.json").read_text())

    return go


def test_a_page_says_what_the_report_says_and_shows_pictures(run) -> None:
    def fault(outputs) -> None:
        outputs["mask_prototypes"] += 1

    code, text, report = run(fault)
    read = Reader(text)
    assert code == 1 and read.open == []
    assert read.words.count("fail") >= 4 and report["reference"]["sha256"] in read.words
    for comparison in report["comparisons"]:
        assert comparison["candidate"]["path"] in read.words and comparison["candidate"]["sha256"] in read.words
        assert all(reason in read.words for reason in comparison["reasons"])
        for budget in comparison["budgets"]:
            for name, output in budget["tensor"].items():
                assert name in read.words and f"{output['max_abs']:.2e}" in read.words
    task = report["comparisons"][0]["budgets"][0]["task"]
    assert "mean mask IoU" in read.words and f"{task['mean_mask_iou']}" in read.words
    pictures = [attrs["src"] for tag, attrs in read.tags if tag == "img"]
    assert len(pictures) == 6 * 4 and all(source.startswith("data:image/jpeg;base64,/9j/") for source in pictures)


def test_a_page_needs_no_other_file_and_runs_nothing(run) -> None:
    code, text, _ = run()
    assert code == 0
    tags = Reader(text).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on") or name in ("href", "srcset")]
    assert not re.findall(r"https?:|url\(|@import|javascript:", re.sub(r'base64,[^"]+', "", text))
    (policy,) = [attrs["content"] for tag, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert len(text) < 6_000_000


def test_whatever_comes_from_outside_is_escaped(run, fake) -> None:
    info = fake().info.model_copy(update={"classes": (fake().info.classes[0].model_copy(update={"name": EVIL}),)})
    _, text, report = run(info=info)
    spoiled = json.loads(json.dumps(report).replace("quality", html.unescape("&lt;b&gt;")))
    panels = (Panel(EVIL, b"x"),)
    sight = Sight(EVIL, EVIL, 1, Badness(True, 0.0, 1.0), (EVIL,), panels)
    comparison = spoiled["comparisons"][0]
    comparison["reasons"], comparison["notes"] = [EVIL], [EVIL]
    comparison["candidate"]["path"] = comparison["candidate"]["hashed"] = spoiled["reference"]["path"] = EVIL
    comparison["backends"]["candidate"] = spoiled["tools"]["numpy"] = EVIL
    comparison["budgets"][0]["asked"] = EVIL
    comparison["budgets"][0]["tensor"][EVIL] = comparison["budgets"][0]["tensor"]["boxes"] | {"reasons": [EVIL]}
    spoiled_text = page(spoiled, [[sight]])
    for one in (text, spoiled_text):
        read = Reader(one)
        assert {tag for tag, _ in read.tags}.isdisjoint({"script", "i"})
        assert not [attrs for _, attrs in read.tags if any(name.startswith("on") for name in attrs)]
    assert Reader(spoiled_text).words.count(EVIL) >= 14


def test_a_candidate_that_never_ran_is_on_the_page(run, fake) -> None:
    code, _, report = run(info=fake().info)
    report["comparisons"][0] |= {"budgets": [], "reasons": ["model_load_failed: no"], "verdict": "fail", "images": []}
    assert code == 0 and "model_load_failed: no" in Reader(page(report, [[]])).words


def test_a_page_that_cannot_be_written_leaves_nothing_behind(run, tmp_path) -> None:
    _, _, report = run()
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "r.json" / "page.html", tmp_path / "folder"):
        with pytest.raises(UsageError, match="--html"):
            write_page(target, report, [[]])
    assert not list((tmp_path / "folder").iterdir())
