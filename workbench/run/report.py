"""A run's executed notebook as one page, safe to open and to pass on: nothing in it runs, and it needs nothing else.

    write_report(run)          # outputs/runs/digits/<time>/report.html

Two layers, each enough alone. Text is escaped, HTML that a cell made goes through Bleach, metadata stays outside; and a
Content-Security-Policy forbids scripts and requests. Of nbconvert only filters are used: its exporter, even with
`sanitize_html`, writes the width that an image's metadata claims unquoted, so `1 onload=...` runs; and breaks tables.
"""

import base64
import re
from html import escape
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import UsageError
from workbench.run.notebook import read_notebook
from workbench.run.runs import Run, format_metrics, read_record

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; "
_POLICY += "base-uri 'none'; form-action 'none'"

# No svg, math, style or noscript: they are parsed by rules of their own, on which sanitisers have tripped.
_TAGS = """a b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s small
span strong sub summary sup table tbody td tfoot th thead tr tt u ul"""
_ATTRIBUTES = "alt align class colspan height id open rowspan start title width"
_REFERENCES = re.compile(r"href=#.*|src=data:image/(png|jpeg|gif|svg\+xml);base64,[\w+/=\s]*")

# For looks only, before Bleach: it would leave the text of these, and no trace of where a link led.
_UNSEEN = re.compile(r"(?is)<(script|style|svg|template|title|textarea|iframe)\b.*?</\1\s*>")
_LINK = re.compile(r"(?is)(<a\b[^<>]*\bhref=\"(https?://[^\"]+)\"[^>]*>)(?!\2<)(.*?)</a>")

_IMAGE = '<img alt=""'

_STYLE = """
body { max-width: 58rem; margin: 2rem auto; padding: 0 2.5rem; font: 16px/1.6 system-ui, sans-serif; color: #1f2328 }
header { display: flow-root; margin-bottom: 2rem; padding-bottom: 1rem; border-bottom: 1px solid #d1d9e0 }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 0.6em } header h1 { margin: 0 0 1rem } .anchor-link { display: none }
small, header th, .number, .unseen { color: #6e7781; font-weight: normal } img { max-width: 100% }
.status { padding: 0.1em 0.7em; border-radius: 1em; background: #ddf4ff } .status.completed { background: #dafbe1 }
table { border-collapse: collapse; margin: 0.8rem 4rem 0.8rem 0; font-size: 0.875rem } header table { float: left }
th, td { padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid #e5e9ed; text-align: left; vertical-align: top }
.dataframe th, .dataframe td { text-align: right; padding-left: 0.8rem } caption { text-align: left; font-weight: 600 }
pre, code, .number { font: 0.8125rem/1.45 ui-monospace, Menlo, Consolas, monospace } pre { margin: 0; overflow-x: auto }
.output > pre, header td { white-space: pre-wrap; overflow-wrap: anywhere } .output pre { line-height: 1.25 }
code, .highlight { background: #f6f8fa; border-radius: 6px } .highlight { padding: 0.7rem 1rem; margin: 1rem 0 0.5rem }
.cell { position: relative } .number { position: absolute; right: 100%; top: 0.7rem; margin-right: 0.7rem }
.output { padding: 0.3rem 1rem; overflow-x: auto } .stderr, .error { background: #fff8e6; border-radius: 6px }
.cell.failed { border-left: 4px solid #d1242f; padding-left: 0.8rem } .error, .status.failed { background: #ffebe9 }
[class^=ansi-green] { color: #116329 } [class^=ansi-cyan] { color: #1b7c83 } [class^=ansi-yellow] { color: #7d4e00 }
.highlight [class^=k], .ow, [class^=ansi-red] { color: #cf222e } .nf, .nc, [class^=ansi-magenta] { color: #8250df }
.highlight [class^=m], .nb, [class^=ansi-blue] { color: #0550ae } .highlight [class^=s] { color: #0a3069 }
.highlight [class^=c], .nd { color: #6e7781 } [class*=-bg] { background: #fff3c4 } .ansi-bold { font-weight: bold }
"""


def write_report(run: Run) -> Path:
    """Write report.html beside the run's notebook.ipynb and return its path. Raises UsageError without a notebook."""
    path, report = run.path / "notebook.ipynb", run.path / "report.html"
    if not path.is_file():
        expected = "expected a batch run, as interactive ones keep no notebook; execute it with `workbench run`"
        raise UsageError(f"{run.name}/{run.id}: has no notebook.ipynb; {expected}")
    notebook = read_notebook(path)

    from nbconvert.preprocessors import CoalesceStreamsPreprocessor  # nbconvert takes two seconds to import

    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    page = f"""<!doctype html>
<html lang="en"><head><meta http-equiv="Content-Security-Policy" content="{_POLICY}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{escape(run.name)}/{escape(run.id)}</title>
<style>{_STYLE}</style></head>
<body>{_header(run)}{"".join(_cell(cell) for cell in notebook.cells)}</body></html>
"""
    files.write_text(report, page.encode(errors="replace").decode())  # JSON can hold half a surrogate pair, UTF-8 not
    return report


def _header(run: Run) -> str:
    record = read_record(run)
    status, metrics = escape(record["status"]), format_metrics(record["metrics"]).replace("  ", "\n")
    started, seconds = record["started"][:19].replace("T", " "), record["timings"].get("total", "not ended")
    facts = {"started": f"{started} UTC", "seconds": seconds, "metrics": metrics}
    return f"""<header><h1>{escape(run.name)} <small>{escape(run.id)}</small></h1>
<p><span class="status {status}">{status}</span> {escape(record["reason"] or "")}</p>
{_table("Run", facts)}{_table("Parameters", record["params"])}</header>"""


def _table(caption: str, rows: dict[str, Any]) -> str:
    lines = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{caption}</caption>{''.join(lines)}</table>"


def _cell(cell: Any) -> str:
    from nbconvert.filters import Highlight2HTML

    if cell.cell_type != "code":
        return _markdown(cell.source, cell.get("attachments")) if cell.cell_type == "markdown" else _text(cell.source)
    failed = "failed" if any(output.output_type == "error" for output in cell.outputs) else ""
    code = f'<span class="number">{escape(str(cell.execution_count or ""))}</span>{Highlight2HTML()(cell.source)}'
    return f'<div class="cell {failed}">{code}{"".join(_output(output) for output in cell.outputs)}</div>'


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return f'<div class="output {escape(output.name)}">{_text(output.text)}</div>'
    if output.output_type == "error":
        return '<div class="output error">' + _text("\n".join(output.traceback) or output.evalue) + "</div>"
    forms = (show(output.data[kind]) for kind, show in _FORMS.items() if kind in output.data)
    unseen = f'<span class="unseen">not shown here: {escape(", ".join(output.data))}</span>'
    form = next(filter(_VISIBLE.search, forms), unseen)
    facts = output.metadata.get("image/png")
    width = facts.get("width") if isinstance(facts, dict) else None
    if isinstance(width, int) and form.startswith(_IMAGE):  # a picture for sharp screens has more pixels than its width
        form = form.replace(_IMAGE, f'{_IMAGE} width="{width:d}"', 1)
    return f'<div class="output">{form}</div>'


def _text(text: str) -> str:
    from nbconvert.filters import ansi2html  # it escapes, then adds the colours

    return f"<pre>{ansi2html(text)}</pre>"


def _markdown(source: str, attachments: Any = None) -> str:
    from mistune.plugins import import_plugin
    from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath

    plugins = map(import_plugin, ("strikethrough", "table", "def_list"))  # not task_lists: its boxes are form fields
    try:
        return _clean(MarkdownWithMath(IPythonRenderer(False, attachments=attachments), plugins=plugins).render(source))
    except (InvalidNotebook, RuntimeError, UnicodeError):  # an attachment missing, or empty; an address not Unicode
        return _text(source)


def _clean(html: str) -> str:
    from bleach import clean

    def allowed(tag: str, name: str, value: str) -> bool:
        return name in _ATTRIBUTES.split() or _REFERENCES.fullmatch(f"{name}={value}") is not None

    html = _LINK.sub(r"\1\3</a> (\2)", _UNSEEN.sub("", html))
    return str(clean(html, tags=set(_TAGS.split()), attributes=allowed, protocols={"data"}, strip=True))


def _png(data: str, kind: str = "png") -> str:
    return f'{_IMAGE} src="data:image/{kind};base64,{escape("".join(data.split()))}">'


# An output is shown in the first of these forms that leaves anything to see. A drawing's scripts do not run in <img>.
_VISIBLE = re.compile(r"<(img|hr)\b|(^|>)\s*[^<\s]")
_FORMS: dict[str, Any] = {
    "text/html": _clean,
    "text/markdown": _markdown,
    "image/svg+xml": lambda svg: _png(base64.b64encode(svg.encode(errors="replace")).decode(), "svg+xml"),
    "image/png": _png,
    "image/jpeg": lambda data: _png(data, "jpeg"),
    "text/plain": _text,
    "text/latex": _text,
}
