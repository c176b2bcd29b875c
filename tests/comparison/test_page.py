"""The page: what is in it, that it needs nothing else, and how a browser takes it."""

import dataclasses
import html.parser
import os
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from aliasfix import AliasfixError
from aliasfix.comparison import figures, page

FIGURES = ["shift", "variation", "features", "filters"]


class Reader(html.parser.HTMLParser):
    """The links, ids and text of a page; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.ids, self.words, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_holds_everything_and_needs_nothing(swept):
    text = page.page(swept.comparison, swept)
    reader = Reader(text)
    assert {link[:5] for link in reader.links} <= {"data:"} | {link[:5] for link in reader.links if link[0] == "#"}
    assert not re.search(r"@import|<script|url\((?!#|\"?data:)", text)
    assert len(reader.ids) == len(set(reader.ids))
    assert set(FIGURES) <= set(reader.ids)
    words = " ".join(" ".join(reader.words).split())
    for part in (swept.verdict, swept.comparison.verdict, "Plan", "Recipe", "reflect", "Versions", "torch", "MiB"):
        assert part in words
    for measure in swept.comparison.measures:
        assert measure.kind.title in words
    assert text == page.page(swept.comparison, swept)


def test_labels_give_the_figure_of_accuracy_by_position(labelled):
    text = page.page(labelled)
    assert text.count('<figure id="figure-positions-') == 2
    for low_or_high in (f"{100 * labelled.grid.a.max():.1f}%", f"{100 * labelled.grid.a.mean():.1f}%"):
        assert low_or_high in text
    Reader(text)


def test_names_are_escaped(found):
    named = dataclasses.replace(found, names=("<b>one</b>", 'two & "three"'))
    assert "<b>" not in page.page(named)
    Reader(page.page(named))


def test_a_page_is_replaced_whole_or_not_at_all(found, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    page.write(path, found)
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert os.listdir(tmp_path) == ["report.html"]
    for wrong, message in ((tmp_path / "no" / "r.html", "no such directory"), (tmp_path, "is a directory")):
        with pytest.raises(AliasfixError, match=message):
            page.write(wrong, found)


def test_figures_as_files(swept, tmp_path):
    written = figures.write(swept.comparison, tmp_path / "figures", swept)
    names = {path.stem.partition("-")[0] for path in written}
    assert names == set(FIGURES)
    assert {path.suffix for path in written} == {".svg", ".png"}
    for path in written:
        if path.suffix == ".png":
            assert len(set(Image.open(path).convert("L").tobytes())) > 10
    (tmp_path / "file").write_text("")
    with pytest.raises(AliasfixError, match="cannot be made"):
        figures.write(swept.comparison, tmp_path / "file")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('hidden', name='matplotlib')\n")
    script = "from aliasfix.comparison import figures\ntry: figures.drawings(None)\nexcept Exception as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert 'pip install "aliasfix[report]"' in done.stdout, done.stderr


SCRIPT = """<script>
onload = () => {
  const box = e => e.getBoundingClientRect();
  const drawn = [...document.querySelectorAll('figure svg')];
  const seen = drawn.filter(e => box(e).width > 100 && box(e).height > 50 && e.querySelector('path'));
  const maps = [...document.querySelectorAll('#features svg image')].filter(e => box(e).width > 20);
  const wide = document.documentElement.scrollWidth > innerWidth;
  const ink = getComputedStyle(document.querySelector('figure svg text')).fill;
  document.title = ['RESULT', drawn.length, seen.length, maps.length, wide, ink].join(';');
}
</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_a_real_browser_shows_it(swept, tmp_path, look):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "this test needs Chromium: apt-get install chromium"
    path = tmp_path / "report.html"
    page.write(path, swept.comparison, swept)
    path.write_text(path.read_text() + SCRIPT)
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--window-size={'500' if look == 'phone' else '1200'},2000", "--dump-dom",
        f"--screenshot={tmp_path / 'page.png'}", "--virtual-time-budget=2000",
    ]  # fmt: skip
    if look == "dark":
        command.append("--blink-settings=preferredColorScheme=0")
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"CONSOLE.*", done.stderr)
    drawn, seen, maps, wide, ink = re.search(r"<title>RESULT;(.*?)</title>", done.stdout)[1].split(";")
    assert drawn == seen == str(sum(len(one.panels) for one in figures.drawings(swept.comparison, swept)))
    assert int(maps) >= 2 * len(swept.comparison.layers)
    assert wide == "false"
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 384) == (look == "dark")
    pixel = Image.open(tmp_path / "page.png").convert("L").getpixel((2, 2))
    assert (pixel < 64) if look == "dark" else (pixel > 192)
