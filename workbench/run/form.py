"""The parameters as a form, in the cell after the parameters cell.

    wb.form(globals())

In JupyterLab a change in the form changes the notebook's variable, if the contract allows it, and stays when the
parameters cell is run again with the same default; a restart of the kernel forgets it, and `Save` keeps it as a file
for `workbench run -f`. Elsewhere the cell prints the parameters as a table.
"""

import json
import math
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from workbench import context, files
from workbench.errors import UsageError
from workbench.run import params as contracts
from workbench.run.runs import NAME
from workbench.run.variables import declared_contract, parameter_values

_EDITS = "_form_edits"  # in the notebook's own variables: {name: (default, value)}
_WRAP = {"flex_flow": "row wrap"}
_RED = "var(--jp-error-color0, #b3261e)"

Accept = Callable[[Any], str]  # takes a value, or Text: sets the variable and returns "", or returns what is wrong
Reset = Callable[[], None]


def form(values: MutableMapping[str, Any]) -> None:
    """Show the notebook's parameters, for a person to set; `values` is the notebook's `globals()`.

    Raises UsageError outside a notebook, and for values that break the notebook's contract.
    """
    contract = declared_contract(values, "form(globals())")
    if context.in_jupyterlab():
        _keep_edits(contract, values)
        parameter_values(contract, values, "form")
        _display(_build(contract, values), table(contract, values))
    else:
        print(table(contract, parameter_values(contract, values, "form")))


def table(contract: type[BaseModel], current: Mapping[str, Any]) -> str:
    """The parameters as lines of text: name, value, help."""
    rows = [(row["name"], repr(current[row["name"]]), row["help"]) for row in contracts.describe(contract)]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    return "\n".join(
        f"{name:{widths[0]}}  {value:{widths[1]}}  {help_text}".rstrip() for name, value, help_text in rows
    )


def _keep_edits(contract: type[BaseModel], values: MutableMapping[str, Any]) -> None:
    """Set again what the form has set, where the parameters cell still has the default of that time."""
    defaults = contracts.resolve(contract, {})
    for name, (default, value) in values.setdefault(_EDITS, {}).items():
        if name in defaults and defaults[name] == default and not _refusal(contract, name, value):
            values[name] = value


def _display(widget: Any, text: str) -> None:
    from IPython.display import display

    from workbench.run.widget import bundle

    display(bundle(widget, text), raw=True)


def _build(contract: type[BaseModel], values: MutableMapping[str, Any]) -> Any:
    """The form as an ipywidgets.VBox: a line a parameter, what was changed, and the buttons."""
    import ipywidgets as widgets

    described = contracts.describe(contract)
    defaults = contracts.resolve(contract, {})
    status = widgets.HTML()

    def say_what_changed() -> None:
        changed = [
            row["name"] if row["type"] == "Secret" else f"{row['name']} = {values[row['name']]!r}"
            for row in described
            if values[row["name"]] != defaults[row["name"]]
        ]
        hint = f"Set here or below: {', '.join(changed)}. Run the cells below to use it." if changed else ""
        status.value = escape(hint or "Every parameter has its default.")

    def accept(name: str, value: Any) -> str:
        refusal = _refusal(contract, name, value)
        if not refusal:
            values[name] = contracts.resolve(contract, {name: value})[name]
            values[_EDITS][name] = (defaults[name], values[name])
            say_what_changed()
        return refusal

    rows, resets = [], []
    for row in described:
        declared = contract.model_fields[row["name"]].annotation
        shown, reset = _row(row, declared, values, partial(accept, row["name"]))
        rows.append(shown)
        resets.append(reset)
    again = widgets.Button(description="Defaults", tooltip="Give every parameter its default")
    again.on_click(lambda _: [reset() for reset in resets])
    say_what_changed()
    saving = _saving(lambda: {name: values[name] for name in defaults})
    return widgets.VBox([*rows, status, widgets.HBox([again, *saving], layout=_WRAP)])


def _row(row: dict[str, Any], declared: Any, values: Mapping[str, Any], accept: Accept) -> tuple[Any, Reset]:
    """(a parameter's line in the form, what gives it its default)."""
    import ipywidgets as widgets

    value = values[row["name"]]
    slider = _slider(row, declared, value)
    field = _field(declared, value, "8em" if slider else "22em")
    refused = widgets.HTML(layout={"display": "none", "margin": "0 0 4px 10.5em"})
    setting = False  # what this function itself sets is no input

    def take(given: Any) -> None:
        nonlocal setting
        if setting:
            return
        refusal = accept(given)
        refused.value = f'<span style="color:{_RED}">{escape(refusal)}</span>'
        refused.layout.display = None if refusal else "none"
        setting = True
        try:
            if not refusal:
                now = values[row["name"]]
                field.value = _text(now) if isinstance(field, widgets.Text) else now
                if slider:
                    slider.value = now
            elif row["type"] == "Secret":
                field.value = ""  # what was typed may be the secret itself
        finally:
            setting = False

    def take_field(change: Any = None) -> None:
        take(_typed(field.value, declared) if isinstance(field, widgets.Text) else field.value)

    field.observe(take_field, "value")

    def take_slider(change: Any) -> None:
        place = math.log10 if row["log"] else float
        if abs(place(slider.value) - place(values[row["name"]])) > 0.99 * slider.step:  # less is the browser's rounding
            take(_rounded(slider.value, row))

    if slider:
        slider.observe(take_slider, "value")
    name = widgets.HTML(f"<b>{escape(row['name'])}</b>", layout={"width": "10em"})
    told = row["help"] + ("" if row["low"] is None else f" [{row['low']}..{row['high']}]")
    about = widgets.HTML(f'<span style="opacity:0.75">{escape(told)}</span>')
    line = widgets.HBox([name, *([slider] if slider else []), field, about], layout=_WRAP)
    return widgets.VBox([line, refused]), lambda: take(row["default"])


def _field(declared: Any, value: Any, width: str) -> Any:
    """A dropdown, a checkbox, or a line of text that is read when Enter is pressed or it is left."""
    import ipywidgets as widgets

    inner = contracts.inner_type(declared)
    options = list(get_args(inner)) if get_origin(inner) is Literal else [True, False] if inner is bool else []
    if inner is not declared and options:
        options.append(None)
    if declared is bool:
        return widgets.Checkbox(value=value, indent=False, layout={"width": width})
    if options:
        named = [("none" if option is None else str(option), option) for option in options]
        return widgets.Dropdown(options=named, value=value, layout={"width": width})
    return widgets.Text(_text(value), continuous_update=False, layout={"width": width})


def _slider(row: dict[str, Any], declared: Any, value: Any) -> Any:
    """A slider for a number with a range, else None."""
    import ipywidgets as widgets

    if row["low"] is None or declared not in (int, float):
        return None
    low, high, shared = row["low"], row["high"], {"readout": False, "layout": {"width": "14em"}}
    if row["log"]:
        low, high = math.log10(low), math.log10(high)
        return widgets.FloatLogSlider(value, min=low, max=high, step=(high - low) / 200, **shared)
    if declared is int:
        return widgets.IntSlider(value, min=low, max=high, **shared)
    return widgets.FloatSlider(value, min=low, max=high, step=(high - low) / 200, **shared)


def _rounded(value: float, row: dict[str, Any]) -> int | float:
    """What a slider says, without the digits that nobody meant."""
    number: int | float = float(f"{value:.3g}") if isinstance(row["low"], float) else round(value)
    return min(max(number, row["low"]), row["high"])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _typed(text: str, declared: Any) -> contracts.Text:
    """What a person typed, for the contract to read; nothing means None where the type allows it."""
    optional = contracts.inner_type(declared) is not declared
    return contracts.Text("null" if optional and not text.strip() else text)


def _refusal(contract: type[BaseModel], name: str, value: Any) -> str:
    """The contract's own words on a value that it refuses, else nothing."""
    try:
        contracts.resolve(contract, {name: value})
    except UsageError as error:
        return str(error).split("\n", 1)[-1].strip()
    return ""


def _saving(read: Callable[[], dict[str, Any]]) -> list[Any]:
    """A field, a button and an answer: the parameters as params/NAME.yaml."""
    import ipywidgets as widgets

    field = widgets.Text("mine", description="params/", style={"description_width": "auto"}, layout={"width": "14em"})
    button = widgets.Button(description="Save", tooltip="Write these values as params/NAME.yaml")
    answer = widgets.HTML()
    asked: list[Path] = []  # the file that the next click may replace

    def save(_: Any) -> None:
        name = field.value.strip().removesuffix(".yaml")
        path = context.project_root() / "params" / f"{name}.yaml"
        if not NAME.fullmatch(name):
            answer.value = escape(f"got {name!r}, expected a name of letters, digits, '.', '_' or '-'")
        elif path.exists() and asked != [path]:
            asked[:] = [path]
            answer.value = escape(f"params/{path.name} exists; Save again to replace it")
        else:
            asked.clear()
            answer.value = escape(_write(path, read()))

    button.on_click(save)
    return [field, button, answer]


def _write(path: Path, values: dict[str, Any]) -> str:
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_text(path, contracts.dump(values))
    except OSError as error:
        return f"params/{path.name} cannot be written ({error.strerror}); nothing has changed"
    return f"Saved: workbench run NOTEBOOK -f params/{path.name}"
