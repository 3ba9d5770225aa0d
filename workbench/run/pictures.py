"""Pictures for people: PNG with a line of text, the same in a batch run's notebook, on GitHub and in a report.

    show(curves_png(read_curves(run)), "training curves of digits")

Drawn by Matplotlib on figures of their own: the notebook's pyplot is left as it is.
"""

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import Any

from workbench.run.curves import Curves, best_epoch

_WIDTH, _HEIGHT, _SCALE = 4.6, 2.9, 2  # inches a panel; pixels drawn for each one shown, for sharp screens
COLORS = ("#1976d2", "#e8710a")


def show(png: bytes | None, text: str) -> None:
    """Display the picture in a notebook, with `text` where there are no pictures; elsewhere print the text."""
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(text)
        return
    data, metadata = bundle(png, text)
    display(data, metadata=metadata, raw=True)


def bundle(png: bytes | None, text: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(data, metadata) of a notebook output."""
    if png is None:
        return {"text/plain": text}, {}
    width = int.from_bytes(png[16:20], "big") // _SCALE  # where a PNG's header has it
    return {"text/plain": text, "image/png": base64.b64encode(png).decode()}, {"image/png": {"width": width}}


def figure(panels: int = 1, width: float = _WIDTH, height: float = _HEIGHT, columns: int = 3) -> tuple[Any, list[Any]]:
    """(figure, its axes) with `panels`, so many `columns` a row; sizes in inches a panel."""
    from matplotlib.figure import Figure

    columns = min(panels, columns)
    rows = -(-panels // columns)
    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(made.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    return made, axes[:panels]


def png(made: Any) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    made.savefig(buffer, dpi=100 * _SCALE, format="png", facecolor="white")
    return buffer.getvalue()


def curves_png(curves: Curves, title: str) -> bytes | None:
    """A panel for each metric, training and validation over epochs; None when no epoch has ended."""
    names = [name for name in curves if not name.startswith("val_") and name != "learning_rate"]
    names.sort(key=lambda name: name != "loss")
    if not names:
        return None
    made, axes = figure(len(names))
    made.suptitle(textwrap.fill(title, 48 * min(len(names), 3)), fontsize="medium", x=0.01, ha="left")
    best = best_epoch(curves)
    for panel, name in zip(axes, names, strict=True):
        lines = ((name, "training", "-"), (f"val_{name}", "validation", "--"))
        for (key, label, style), color in zip(lines, COLORS, strict=True):
            values = floats(curves.get(key, ()))
            if values:
                marker = "o" if len(values) == 1 else None
                panel.plot(range(1, len(values) + 1), values, style, label=label, marker=marker, color=color)
        if best:
            panel.axvline(best[0], color="#999999", linewidth=0.8, linestyle=":", label=f"best epoch, {best[0]}")
        panel.set(title=name, xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize="small")
        panel.grid(alpha=0.25)
    return png(made)


def overlay_png(
    curves: Curves, title: str, scatter: tuple[str, str, Sequence[tuple[float, float]]] | None = None
) -> bytes:
    """One metric of several runs over epochs; `curves` maps a run's label to its values.

    `scatter` is a second panel: the names of its axes, and its points.
    """
    made, (panel, *more) = figure(2 if scatter else 1, _WIDTH if scatter else 7.0, 3.6)
    few = len(curves) <= 12
    for label, values in curves.items():
        marker = "o" if len(values) == 1 else None
        panel.plot(range(1, len(values) + 1), floats(values), label=label, linewidth=1.2 if few else 0.6, marker=marker)
    panel.set(title=title, xlabel="epoch")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(alpha=0.25)
    if few:
        made.legend(fontsize="small", loc="outside lower center", ncols=3)
    if scatter:
        name, metric, points = scatter
        places = [x for x, _ in points]
        more[0].scatter(places, [y for _, y in points], s=16, alpha=0.7, color=COLORS[0])
        if places and min(places) > 0 and max(places) >= 100 * min(places):
            more[0].set_xscale("log")
        more[0].set(title=f"{metric} over {name}", xlabel=name)
        more[0].grid(alpha=0.25)
    return png(made)


def floats(values: Sequence[float | None]) -> list[float]:
    """The values with NaN for None, which Matplotlib leaves out."""
    return [float("nan") if value is None else float(value) for value in values]
