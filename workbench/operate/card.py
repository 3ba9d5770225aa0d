"""card.md: what a version is, in words that a person can check: its data, figures, proofs and limits.

    files.write_text(folder / "card.md", card(folder, "digits", 3))

Its headings are those of Mitchell et al., Model Cards for Model Reporting, 2019, as far as a run knows of them. What a
run does not know, such as for whom the model is meant, is asked for and not made up.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.exports.verify import REPORT, describe
from workbench.run.runs import format_metrics


def card(folder: Path, name: str, version: int) -> str:
    """The text, from run.json, verify.json and notebook.ipynb in the version's folder."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    sections = {
        "Model": _model(record, report),
        "Data": [_data(key, facts) for key, facts in record["data"].items()] or ["- not recorded: not from wb.batches"],
        "Parameters": [f"- `{key}`: {value!r}" for key, value in record["params"].items()] or ["- none"],
        "Metrics": [f"- {format_metrics({key: value})}" for key, value in record["metrics"].items()] or ["- none"],
        "How it was verified": [f"- {key}: {describe(figures)}" for key, figures in report.items()],
        "Limits": [f"- {limit}" for limit in _limits(record, report)],
    }
    body = "\n\n".join(f"## {heading}\n\n" + "\n".join(lines) for heading, lines in sections.items())
    return f"# {name} {version}\n\n{_purpose(folder / 'notebook.ipynb')}\n\n{body}\n"


def _purpose(notebook: Path) -> str:
    """What stands below the notebook's title; a note where there is nothing."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.exists() else []
    text = next(("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"), "")
    below_title = "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    return below_title.partition("\n## ")[0].strip() or "Its notebook does not say what it is for."


def _model(record: Mapping[str, Any], report: Mapping[str, Any]) -> Iterable[str]:
    commit = record["git"] and record["git"]["commit"] + (", with changed files" if record["git"]["dirty"] else "")
    figures = report["saved_model"]
    yield f"- from {record['notebook'] or 'a notebook run by hand'}, run {record['name']}, {record['started'][:10]}"
    yield f"- commit {commit or 'unknown: not in a git repository'}"
    yield f"- by {record['command']}"
    yield "- versions: " + ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    for side in ("inputs", "outputs"):
        for key, (shape, dtype) in figures[side].items():
            yield f"- {side[:-1]} `{key}`: {dtype}, {['any' if n is None else n for n in shape]}".replace("'", "")
    yield f"- weights sha256 {record['weights_sha256']}"


def _data(name: str, facts: Mapping[str, Any]) -> str:
    digest = f"sha256 {facts['sha256']}" if facts["sha256"] else "a ready tf.data.Dataset, of which no hash is known"
    return f"- {name}: {facts['examples'] if facts['examples'] is not None else 'unknown'} examples, {digest}"


def _limits(record: Mapping[str, Any], report: Mapping[str, Any]) -> Iterable[str]:
    """What is known to be missing or weak."""
    yield "A score is no probability unless it was calibrated, and rows unlike the training data get one, too."
    yield "NaN and infinity in an input are answered as if they were numbers; refuse them before they come here."
    if record["reason"]:
        yield record["reason"] + "."
    if not record.get("bit_exact", True):
        yield "The run was resumed after something had changed: it cannot be repeated to the bit."
    if record["git"] is None or record["git"]["dirty"]:
        yield "Its code is not all in a commit."
    if not any(figures.get("metrics") for figures in report.values()):
        yield "Its sample has no targets, so nobody has measured what a format's rounding costs."
    for key, figures in report.items():
        if figures["note"]:
            yield f"{key}: {figures['note']}."
        if (share := figures["top1_agreement"]) not in (None, 1):
            yield f"{key}: its first choice is another than the model's for {1 - share:.1%} of the sample."
