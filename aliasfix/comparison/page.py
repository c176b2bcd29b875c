"""Write a comparison as one self-contained HTML file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from aliasfix.comparison.figures import drawings
from aliasfix.comparison.filter_sweep import FilterSweep, cells, headers
from aliasfix.comparison.result import Comparison, Measure
from aliasfix.comparison.stages import Stages, heads, rows
from aliasfix.files import saving
from aliasfix.measure.drawing import ONE, TWO, Drawing, Panel, Table
from aliasfix.measure.metric import metrics
from aliasfix.planning.plan import Plan

_CSS = """
:root{color-scheme:light dark;--ink:#1c1f23;--soft:#5c6570;--line:#d9dee4;--back:#fff;--card:#f5f7f9;
--good:#1a7f4b;--bad:#b3402a}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa5b1;--line:#343b44;--back:#14171b;--card:#1c2127;
--good:#5cc98f;--bad:#ef8a72}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:70rem;background:var(--back);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.05rem;color:var(--soft);font-weight:600;margin:0}
.verdict{font-size:1.35rem;line-height:1.4;margin:.4rem 0 1.5rem;font-weight:600}
h2{font-size:1.2rem;margin:2.5rem 0 .3rem}
p.caption,p.note{color:var(--soft);margin:.2rem 0 .8rem;max-width:48rem}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:right;padding:.45rem .7rem;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:normal}
thead th{border-top:0;color:var(--soft);font-weight:600}
th:first-child,td:first-child,.text td,.text th{text-align:left}
td small{color:var(--soft);display:block;white-space:nowrap}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
tr.taken td{font-weight:600}
.key{display:inline-block;width:1.1em;height:.25em;vertical-align:middle;margin:0 .35em 0 0;border-radius:2px}
.of{white-space:nowrap;margin-right:.5em}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:1rem}
.panels.few{grid-template-columns:minmax(0,34rem)}
figure{margin:0;padding:.8rem;border:1px solid var(--line);border-radius:8px;background:var(--card)}
figure svg{width:100%;height:auto;display:block}
figcaption{font-size:.85rem;display:flex;gap:.6rem;align-items:center;margin-bottom:.4rem}
figcaption img{width:44px;height:44px;border-radius:4px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0}
summary{cursor:pointer;margin-bottom:.5rem}
@media (max-width:40rem){body{padding:1rem .7rem 3rem}.verdict{font-size:1.15rem}
table.stack thead{display:none}table.stack tr{display:block;padding:.5rem 0;border-top:1px solid var(--line)}
table.stack tr:first-child{border-top:0}table.stack td{display:flex;justify-content:space-between;gap:1rem;border:0;
padding:.15rem .7rem}table.stack td:first-child{font-weight:600;display:block}
table.stack td::before{content:attr(data-of);color:var(--soft);font-weight:400}
table.stack td:first-child::before{content:none}table.stack td small{display:inline}}
"""


def write(path: Path, found: Comparison, sweep: FilterSweep | None = None, stages: Stages | None = None) -> Path:
    """Write the page. An existing file is replaced as a whole or not at all.

    Raises:
        AliasfixError: the file cannot be written, or matplotlib is not installed.
    """
    text = page(found, sweep, stages)
    with saving.replacing(check_page(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def check_page(path: Path) -> Path:
    """Check whether the page can be written, before anything is measured.

    Raises:
        AliasfixError: the folder is missing or not writable, or the path is a folder.
    """
    return saving.check_place(path)


def page(found: Comparison, sweep: FilterSweep | None = None, stages: Stages | None = None) -> str:
    """Return the HTML text; that of a sweep of filters, or of a network's stages, opens with them.

    Raises:
        AliasfixError: matplotlib is not installed.
    """
    one, two = found.names
    parts = [
        f"<h1>aliasfix compare: {escape(one)} and {escape(two)}</h1>",
        f'<p class="verdict">{escape((sweep or stages or found).verdict)}</p>',
        *([f'<p class="note">{escape(found.verdict)}</p>'] if sweep and not found.doubt else []),
        *(f'<p class="note">{escape(note)}</p>' for note in found.notes),
        *([_stages(stages)] if stages else []),
        _measures(found),
        *([_filters(sweep)] if sweep else []),
        *(_drawing(drawing, found) for drawing in drawings(found, sweep)),
        *(_metric_table(table) for table in _tables(found)),
        *([_kernels(found)] if found.kernels else []),
        *([_plan(found.plan)] if found.plan else []),
        _made_with(found),
    ]
    title = f"aliasfix: {one} and {two}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n" + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )  # fmt: skip


def _measures(found: Comparison) -> str:
    heads = ["measure", *found.names, "difference"]
    rows = []
    for measure in found.measures:
        title = escape(measure.kind.title)
        if measure.failed is not None:
            rows.append(f'<tr><td>{title}</td><td colspan="3">not measured: {escape(measure.failed)}</td></tr>')
            continue
        word = {True: ' <span class="good">better</span>', False: ' <span class="bad">worse</span>', None: ""}
        texts = [_estimate(measure, "a"), _estimate(measure, "b")]
        texts.append(_estimate(measure, "difference") + word[measure.better])
        rows.append(f"<tr>{_cells([title, *texts], heads)}</tr>")
    confidence = found.setting.get("confidence", 0.95)
    text = (
        f"{found.images} images, {'with' if found.labelled else 'without'} labels; below each mean its "
        f"{confidence:.0%} interval by the paired bootstrap. Differences of percentages are in points; better or worse "
        "is said where the interval leaves out 0."
    )
    return f'<h2>Measures</h2><p class="caption">{text}</p>{_table(heads, rows, stack=True)}'


def _estimate(measure: Measure, which: str) -> str:
    signed = which == "difference"
    whole = measure.text(getattr(measure, which), signed)
    mean, bracket, rest = whole.partition(" [")
    return escape(mean) + (f" <small>{escape(f'[{rest}')}</small>" if bracket else "")


def _filters(sweep: FilterSweep) -> str:
    rows, heads = [], headers(sweep)
    for row in (sweep.original, *sweep.rows):
        kind = ' class="taken"' if row.filter == sweep.taken else ""
        rows.append(f"<tr{kind}>{_cells([escape(cell) for cell in cells(sweep, row)], heads)}</tr>")
    text = "Every filter, converted and not retrained, the most consistent first; × is the ratio to the original."
    return f'<h2>Filters</h2><p class="caption">{text}</p>{_table(heads, rows, stack=True)}'


def _stages(stages: Stages) -> str:
    names = heads(stages)
    body = [f"<tr>{_cells([escape(cell) for cell in row], names)}</tr>" for row in rows(stages)]
    text = "Each network on the same images; in brackets the interval of each mean."
    return f'<h2>What is kept, and what is gained</h2><p class="caption">{text}</p>{_table(names, body, stack=True)}'


def _drawing(drawing: Drawing, found: Comparison) -> str:
    figures = [f'<figure id="figure-{panel.name}">{_head(panel)}{panel.svg()}</figure>' for panel in drawing.panels]
    key = ""
    if drawing.legend:
        names = zip((ONE, TWO), found.names, strict=True)
        key = " ".join(
            f'<span class="of"><span class="key" style="background:{c}"></span>{escape(name)}</span>'
            for c, name in names
        )
    few = " few" if len(figures) == 1 else ""
    return (
        f'<section id="{drawing.name}"><h2>{escape(drawing.title)}</h2>'
        f'<p class="caption">{escape(drawing.caption)} {key}</p>'
        f'<div class="panels{few}">{"".join(figures)}</div></section>'
    )


def _head(panel: Panel) -> str:
    if not panel.head:
        return ""
    picture = ""
    if panel.picture is not None:
        file = io.BytesIO()
        panel.picture.save(file, format="PNG")
        picture = f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}" alt="">'
    return f"<figcaption>{picture}<span>{escape(panel.head)}</span></figcaption>"


def _tables(found: Comparison) -> list[Table]:
    """Return the tables of the metrics, sorted by title."""
    made = (metric.table(found) for metric in metrics().values() if metric.table is not None)
    return sorted((table for table in made if table is not None), key=lambda table: table.title)


def _metric_table(table: Table) -> str:
    rows = [f"<tr>{_cells(map(escape, row), table.heads)}</tr>" for row in table.rows]
    caption = f'<p class="caption">{escape(table.caption)}</p>'
    return f"<h2>{escape(table.title)}</h2>{caption}{_table(table.heads, rows)}"


def _kernels(found: Comparison) -> str:
    heads = ["convolution", *found.names]
    text = "Normalised total variation of the kernels: smooth ones have little. "
    if all(one == two for one, two in found.kernels.values()):
        text += "It is the same in both networks: a conversion keeps the weights, and only training changes it."
        heads = heads[:2]
    rows = [
        f"<tr>{_cells([escape(path or '(model)'), *(f'{value:.2f}' for value in pair[: len(heads) - 1])], heads)}</tr>"
        for path, pair in found.kernels.items()
    ]
    table = f"<details><summary>{len(rows)} convolutions</summary>{_table(heads, rows)}</details>"
    return f'<h2>Learned filters</h2><p class="caption">{escape(text)}</p>{table}'


def _plan(plan: Plan) -> str:
    heads = ["path", "operation", "stride", "action", "blur, or why it is left alone"]
    rows = []
    for step in plan:
        action = step.action if step.form is None else f"{step.action} ({step.form})"
        texts = [step.path or "(model)", step.op, "×".join(map(str, step.stride)), action]
        rows.append(f"<tr>{_cells([escape(t) for t in [*texts, step.placement or step.reason or '']], heads)}</tr>")
    return f'<h2>Plan</h2><p class="caption">{escape(plan.summary)}.</p>{_table(heads, rows, stack=True, text=True)}'


def _made_with(found: Comparison) -> str:
    recipe = {} if found.plan is None else json.loads(found.plan.recipe.to_json())
    lists = {"Recipe": recipe, "Setting": found.setting, "Versions": found.versions}
    parts = []
    for title, values in lists.items():
        items = "".join(
            f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape('–' if value is None else str(value))}</dd>"
            for key, value in values.items()
        )
        parts.append(f"<h2>{title}</h2><dl>{items}</dl>" if items else "")
    return "".join(parts)


def _table(heads: Sequence[str], rows: Iterable[str], stack: bool = False, text: bool = False) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    kind = " ".join([*(["stack"] if stack else []), *(["text"] if text else [])])
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _cells(texts: Iterable[str], heads: Sequence[str]) -> str:
    return "".join(
        f'<td data-of="{escape(of)}"><span>{text}</span></td>' for text, of in zip(texts, heads, strict=True)
    )
