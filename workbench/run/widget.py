"""A picture that lives in the notebook: `state` in the kernel, drawn in the browser by one of the .js files here.

view = Widget(Path("live.js"), state={"epoch": 1})
view.state = {"epoch": 2}              # the browser draws it anew
display(bundle(view, "epoch 1"), raw=True)

The scripts run as they are written, with no build step: anywidget loads charts.js and the view's file as one module.
"""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

_FOLDER = Path(__file__).parent


class Widget(anywidget.AnyWidget):
    """Draws `state`, JSON without NaN, by the `render` that `script` exports."""

    _css = (_FOLDER / "charts.css").read_text(encoding="utf-8")
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, script: Path, state: dict[str, Any]) -> None:
        self._esm = (_FOLDER / "charts.js").read_text(encoding="utf-8") + script.read_text(encoding="utf-8")
        super().__init__(state=state)


def bundle(widget: Any, text: str, png: bytes | None = None) -> dict[str, Any]:
    """The widget as an output, with what stands for it where no widget can be shown: in a diff, on a static page."""
    from workbench.run.pictures import bundle as still

    shown = widget._repr_mimebundle_()  # IPython's protocol; anywidget adds the metadata, ipywidgets does not
    data = shown[0] if isinstance(shown, tuple) else shown
    return {**data, **still(png, text)[0]}
