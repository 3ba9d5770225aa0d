"""Reports: what they show, and that nothing in them can run, which a real Chromium is asked."""

import base64
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from workbench.errors import UsageError
from workbench.exports.runtimes.browser import executable
from workbench.run.report import write_report
from workbench.run.runs import Run, close_run, create_run, update_record

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="9"/></svg>'


def report(run: Run, *cells: Any, **metadata: Any) -> str:
    """The page of a run whose executed notebook has these cells."""
    notebook = new_notebook(cells=list(cells), metadata=metadata)
    (run.path / "notebook.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return write_report(run).read_text(encoding="utf-8")


def code(*outputs: Any, source: str = "1", **metadata: Any) -> Any:
    return new_code_cell(source, outputs=list(outputs), execution_count=1, metadata=metadata)


def display(kind: str, data: Any, **metadata: Any) -> Any:
    return new_output("display_data", {kind: data}, metadata=metadata)


# --- what is shown


def test_a_report_shows_the_run_the_code_and_every_kind_of_output(project: Path) -> None:
    run = create_run("digits", {"epochs": 7, "optimizer": "<adam>"}, command="interactive")
    update_record(run, metrics={"accuracy": 0.98765, "loss": None})
    close_run(run, "completed")
    table = "<style scoped>.dataframe { color: red }</style><table class='dataframe'><tr><td>cell</td></tr></table>"
    page = report(
        run,
        new_markdown_cell(
            "# Title\n\n*words* of $a_b$, [a site](https://example.org/x), [below](#Title)\n\n- [x] done"
        ),
        code(
            new_output("stream", text="10 %\r20 %\r30 %"),
            new_output("stream", text=" done\n\x1b[31mred\x1b[0m"),
            display("text/html", table),
            display("image/png", PIXEL),
            display("image/jpeg", PIXEL),
            display("image/svg+xml", DRAWING),
            display("text/markdown", "**bold**"),
            display("text/latex", "$x < y$"),
            source="for i in range(3):\n    %time i",
        ),
        new_raw_cell("raw <words>"),
    )
    assert run.path / "report.html" == write_report(run)
    for expected in (
        "<h1>digits <small>",
        ">completed<",
        "accuracy 0.9877\nloss nan",
        "<tr><th>epochs</th><td>7</td></tr><tr><th>optimizer</th><td>&lt;adam&gt;</td></tr>",
        '<h1 id="Title">Title<a class="anchor-link" href="#Title">',
        '<em>words</em> of $a_b$, <a>a site</a> (https://example.org/x), <a href="#Title">below</a>',
        "[x] done",
        '<span class="k">for</span>',
        '<pre>30 % done\n<span class="ansi-red-fg">red</span></pre>',
        '<table class="dataframe"><tbody><tr><td>cell</td></tr></tbody></table>',
        f'src="data:image/png;base64,{PIXEL}"',
        f'src="data:image/jpeg;base64,{PIXEL}"',
        f'src="data:image/svg+xml;base64,{base64.b64encode(DRAWING.encode()).decode()}"',
        "<strong>bold</strong>",
        "<pre>$x &lt; y$</pre>",
        "<pre>raw &lt;words&gt;</pre>",
    ):
        assert expected in page
    assert "scoped" not in page
    assert "10 %" not in page
    assert 'class="cell failed"' not in page


def test_a_failing_cell_is_marked_and_its_traceback_coloured(run: Run) -> None:
    close_run(run, "failed", "cell 2 failed: <ZeroDivisionError>")
    error = new_output("error", ename="E", evalue="<e>", traceback=["\x1b[31m<E>\x1b[39m", "line"])
    page = report(run, code(), code(error))
    assert page.count('<div class="cell failed">') == 1
    assert '<pre><span class="ansi-red-fg">&lt;E&gt;</span>\nline</pre>' in page
    assert '<span class="status failed">failed</span> cell 2 failed: &lt;ZeroDivisionError&gt;' in page


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"text/html": "<b>rich</b>", "text/plain": "plain"}, "<b>rich</b>"),
        ({"text/html": "<script>chart()</script><div></div>", "text/plain": "<Chart>"}, "<pre>&lt;Chart&gt;</pre>"),
        (
            {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider()"},
            "<pre>Slider()</pre>",
        ),
        ({"application/javascript": "go()"}, '<span class="unseen">not shown here: application/javascript</span>'),
    ],
)
def test_an_output_is_shown_in_its_richest_form_that_leaves_anything_to_see(
    run: Run, outputs: dict[str, Any], expected: str
) -> None:
    page = report(run, code(new_output("display_data", outputs)))
    assert f'<div class="output">{expected}</div>' in page


@pytest.mark.parametrize(("facts", "attribute"), [({"width": 460}, ' width="460"'), ({"width": "4 x"}, ""), (None, "")])
def test_a_picture_has_the_width_that_the_notebook_gives_it(run: Run, facts: Any, attribute: str) -> None:
    page = report(run, code(display("image/png", PIXEL, **{"image/png": facts})))
    assert f'<img alt=""{attribute} src="data:image/png;base64,{PIXEL}">' in page


def test_an_attachment_is_shown_and_a_missing_one_leaves_the_source(run: Run) -> None:
    there = new_markdown_cell("![alt](attachment:a.png)", attachments={"a.png": {"image/png": PIXEL}})
    empty = new_markdown_cell("![alt](attachment:c.png)", attachments={"c.png": {}})
    page = report(run, there, new_markdown_cell("![alt](attachment:b.png)"), empty)
    assert f'<img src="data:image/png;base64,{PIXEL}" alt="alt">' in page
    assert "<pre>![alt](attachment:b.png)</pre><pre>![alt](attachment:c.png)</pre>" in page


@pytest.mark.parametrize(
    "html", ["</div></div></section>", "<!-- ", "<pre><b>", "<![CDATA[ <![ x", "<textarea>", "<div>" * 999, "\ud800"]
)
def test_no_output_can_swallow_or_break_what_comes_after_it(run: Run, html: str) -> None:
    words = new_markdown_cell(f"[a](http://example.org/{html}) {html}\n\n{html}")
    assert_clean(page := report(run, code(display("text/html", html)), words, code(source="after_all")))
    assert page.endswith('<span class="n">after_all</span>\n</pre></div>\n</div></body></html>\n')


def test_a_run_without_a_notebook_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match=r"has no notebook\.ipynb; expected a batch run.*workbench run"):
        write_report(run)
    (run.path / "notebook.ipynb").write_text("{}")
    with pytest.raises(UsageError, match="not a Jupyter notebook"):
        write_report(run)
    assert not (run.path / "report.html").exists()


# --- what cannot be there


class Violations(HTMLParser):
    """Collects what must not be on a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        attributes = {name: value or "" for name, value in attrs}
        forbidden = "script link iframe frame object embed applet form input button base svg math video audio template"
        if tag in forbidden.split() or (tag == "meta" and "refresh" in attributes.get("http-equiv", "")):
            self.found.append(tag)
        for name, value in attributes.items():
            harmless = value.startswith("#") or (tag == "img" and value.startswith("data:image/"))
            reference = name in ("src", "href", "srcset", "action", "formaction", "background", "poster", "data")
            if name.startswith("on") or (reference and not harmless) or (name == "style" and "url" in value):
                self.found.append(f"{tag} {name}={value}")


def assert_clean(page: str) -> None:
    reader = Violations()
    reader.feed(page)
    assert reader.found == []
    assert reader.opened[:3] == ["html", "head", "meta"]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; "
    assert f'<head><meta http-equiv="Content-Security-Policy" content="{policy}base-uri ' in page


REFERENCES = """<img src="https://example.org/a"> <img src="//example.org/a"> <img src="a.png" srcset="b.png 2x">
<a href="https://example.org">a</a> <a href="data:text/html,x">a</a> <link rel="stylesheet" href="//example.org">
<b style="background: url(https://example.org); cursor: url(//example.org/c), auto">b</b> <base href="//example.org">
<style>@import url(https://example.org); b { background: url(https://example.org/d) }</style> <img src="file:///a">
<meta http-equiv="refresh" content="0;url=https://example.org"> <form action="//example.org"><input name="n"></form>
<video poster="https://example.org"></video> <table background="https://example.org"><tr><td>t</td></tr></table>
<img src="data:text/html;base64,AAAA"> <img src="DATA:image/png;charset=x,y"> <object data="//example.org"></object>"""


def test_a_report_refers_to_nothing_outside_itself(run: Run) -> None:
    kinds = ("text/html", "text/markdown", "text/plain", "text/latex", "image/svg+xml")
    assert_clean(report(run, new_markdown_cell(REFERENCES), code(*(display(kind, REFERENCES) for kind in kinds))))


# --- what a browser does

HTML = {
    "script": "<script>JS</script>",
    "picture": "<img src=x onerror=JS>",
    "svg": "<svg onload=JS></svg>",
    "svg-animation": "<svg><animate onbegin=JS attributeName=x dur=1s></svg>",
    "svg-link": "<svg><a xlink:href=javascript:JS><text y=9>a</text></a></svg>",
    "details": "<details open ontoggle=JS><summary>s</summary></details>",
    "frame": '<iframe srcdoc="<script>JS</script>"></iframe>',
    "frame-address": "<iframe src=javascript:JS></iframe>",
    "object": "<object data=javascript:JS></object><embed src=javascript:JS>",
    "focus": "<input autofocus onfocus=JS>",
    "audio": "<audio src=x onerror=JS></audio>",
    "video": "<video><source src=x onerror=JS></video>",
    "body": "<body onload=JS>",
    "style": "<style>@keyframes k{}</style><b style='animation:k 1s' onanimationstart=JS>b</b>",
    "marquee": "<marquee onstart=JS>m</marquee>",
    "noscript": '<noscript><p title="</noscript><img src=x onerror=JS>"></noscript>',
    "comment": "<!--><img src=x onerror=JS>-->",
    "mutation": "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=JS&gt;'>",
    "refresh": '<meta http-equiv="refresh" content="0;url=javascript:JS">',
    "link": "<a href=javascript:JS>a</a>",
    "link-in-disguise": "<a href='&#1; jAva&Tab;script:JS'>a</a>",
    "form": "<form action=javascript:JS><button>b</button></form>",
    "nested": "<scr<script></script>ipt>JS</scr<script></script>ipt><img src=x onerror=JS ",
    "namesake": '<a href="https://x/<img src=x onerror=JS>">a</a><a href=\'https://x/"><img src=x onerror=JS>\'>a</a>',
}
MARKDOWN = {
    "markdown": "words IMG",
    "markdown-block": "<script>\nJS\n</script>",
    "markdown-link": "[a](javascript:JS) <javascript:JS>",
    "markdown-picture": '![a"onerror="JS](x"onerror="JS "t\\"onerror=JS")',
    "markdown-code": '```"onclick="IMG\nIMG\n```\n\n`IMG` $IMG$ \\begin{a}IMG\\end{a}',
    "markdown-heading": "# </h1>IMG",
    "mermaid": "```mermaid\nIMG\n```",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
OTHER: dict[str, Callable[[str, str], Any]] = {
    "javascript": lambda js, img: code(display("application/javascript", js)),
    "widget": lambda js, img: code(display(WIDGET, {"model_id": f"</script>{img}"})),
    "isolated": lambda js, img: code(display("text/html", img, **{"text/html": {"isolated": True}})),
    "plain": lambda js, img: code(display("text/plain", img)),
    "latex": lambda js, img: code(display("text/latex", f"${img}$")),
    "kind": lambda js, img: code(display(img, img)),
    "drawing": lambda js, img: code(display("image/svg+xml", f"{DRAWING[:-6]}<script>{js}</script></svg>{img}")),
    "png": lambda js, img: code(display("image/png", f'A">{img}')),
    "width": lambda js, img: code(display("image/png", "A", **{"image/png": {"width": f"1 onerror={js}"}})),
    "alt": lambda js, img: code(display("image/png", "A", **{"image/png": {"alt": f'">{img}'}}), alt=f'">{img}'),
    "stream": lambda js, img: code(new_output("stream", text=f"\x1b[31{img}m\x1b[1m{img}")),
    "error": lambda js, img: code(new_output("error", ename=img, evalue=img, traceback=[f"\x1b[31m{img}"])),
    "evalue": lambda js, img: code(new_output("error", ename=img, evalue=img, traceback=[])),
    "source": lambda js, img: code(source=f"</pre>{img}"),
    "tags": lambda js, img: code(tags=[f'">{img}'], magics_language=f'">{img}'),
    "raw": lambda js, img: new_raw_cell(img, metadata={"raw_mimetype": "text/html", "format": "text/html"}),
    "markdown-output": lambda js, img: code(display("text/markdown", f"words {img}")),
    "attachment": lambda js, img: attached({"image/png": f'">{img}'}),
    "attachment-kind": lambda js, img: attached({f'">{img}': ""}),
}


def attached(bundle: dict[str, str]) -> Any:
    return new_markdown_cell("![a](attachment:a)", attachments={"a": bundle})


def hostile() -> list[Any]:
    """One cell a payload; each tries to write its name into the page's title."""

    def code_for(name: str) -> tuple[str, str]:
        js = f"void(top.document.title+=/!{name}!/.source)"  # no quotes and no spaces: it fits in everywhere
        return js, f'<img src=x onerror="{js}">'

    def filled(name: str, text: str) -> str:
        js, img = code_for(name)
        return text.replace("JS", js).replace("IMG", img)

    cells = [code(display("text/html", filled(name, text))) for name, text in HTML.items()]
    cells += [new_markdown_cell(filled(name, text)) for name, text in MARKDOWN.items()]
    return cells + [make(*code_for(name)) for name, make in OTHER.items()]


def hostile_metadata() -> dict[str, Any]:
    text = '"></title><script>document.title+="!metadata!"</script>'
    language = {"name": text, "pygments_lexer": "python", "mimetype": text, "file_extension": text}
    kernel = {"name": text, "display_name": text, "language": "python"}
    return {"title": text, "authors": [{"name": text}], "kernelspec": kernel, "language_info": language}


@pytest.fixture
def hostile_report(project: Path) -> str:
    text = '"></title><script>document.title+="!record!"</script>'
    run = create_run("test", {text: text}, command="interactive")
    update_record(run, status=text, reason=text, started=text, metrics={text: 1.0}, timings={"total": text})
    return report(run, *hostile(), **hostile_metadata())


@pytest.fixture(scope="module")
def unsafe_page() -> str:
    """The same notebook as nbconvert shows it by default; its whole page would load the real jQuery."""
    from nbconvert import HTMLExporter

    notebook = new_notebook(cells=hostile(), metadata=hostile_metadata())
    with pytest.warns(UserWarning, match="not able to be represented"):  # the widget, and the kind that is no kind
        body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    head = "<head><title>page</title><script>$ = () => {}</script></head>"
    return f"<!doctype html><html>{head}<body>{body}</body></html>"


# A reader who clicks on everything; "reader" in the title says that scripts do run on this page.
READER = """<script>document.title += "!reader!"; addEventListener("load", () => setTimeout(() => {
  for (const part of document.querySelectorAll("a, button, summary, img, pre"))
    if (!/^http/.test(part.href)) part.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }))
}, 500))</script></body>"""


def ran(page: str) -> set[str]:
    """The names of the payloads that ran when Chromium opened the page."""
    browser = executable()
    if not browser:
        pytest.skip("no Chromium: make browser installs it")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += "--disable-component-update --disable-sync --virtual-time-budget=3000 --dump-dom"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "page.html")
        path.write_text(page, encoding="utf-8")
        command = [browser, *options.split(), f"--user-data-dir={folder}/profile", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    before, after = (re.search(r"<title>(.*?)</title>", text, re.DOTALL) for text in (page, done.stdout))
    assert before
    assert after, done.stderr
    assert after[1].startswith(before[1])  # this page, and no page of errors
    return set(re.findall(r"!([a-z-]+)!", after[1]))


def without_policy(page: str) -> str:
    bare, removed = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert removed == 1
    return bare


def test_the_payloads_do_run_on_a_page_that_is_not_sanitised(unsafe_page: str) -> None:
    names = ran(unsafe_page.replace("</body>", READER))
    assert "reader" in names
    assert len(names - {"reader"}) >= 20, names  # 26 of the 50 with nbconvert 7.17 and Chromium 156


def test_nothing_runs_on_a_report(hostile_report: str) -> None:
    assert_clean(hostile_report)
    assert ran(hostile_report) == set()


def test_nothing_but_the_reader_runs_when_only_the_sanitiser_guards(hostile_report: str) -> None:
    assert ran(without_policy(hostile_report).replace("</body>", READER)) == {"reader"}


def test_nothing_runs_when_only_the_policy_guards(hostile_report: str, unsafe_page: str) -> None:
    policy = hostile_report[hostile_report.index("<meta") : hostile_report.index("<meta charset")]
    assert ran(unsafe_page.replace("<head>", "<head>" + policy).replace("</body>", READER)) == set()
