"""The parameters as a running notebook's variables hold them.

contract = declared_contract(globals(), "digits")       # of the parameters cell that was executed last
values = parameter_values(contract, globals(), "digits")
"""

import linecache
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from workbench.errors import UsageError
from workbench.run import params as contracts


def declared_contract(values: Mapping[str, Any], who: str) -> type[BaseModel]:
    """The contract of the parameters cell that was executed last; `values` is the notebook's `globals()`.

    `who` opens the messages. Raises UsageError outside a notebook, and for a cell that breaks the rules.
    """
    history = values.get("In")
    if history is None:
        raise UsageError(
            f"{who}: no cells have been executed here. Outside a notebook pass the parameters themselves to start_run: "
            "start_run('digits', {'epochs': 5})."
        )
    cells = [*_outside_history(), *history]
    source = next((cell for cell in reversed(cells) if contracts.declares_parameters(cell)), "")
    return contracts.contract(source, who)


def _outside_history() -> list[str]:
    """The cells that were executed without a place in `In`, as by nbval: where tracebacks find their lines."""
    shown = [entry for name, entry in linecache.cache.items() if "ipykernel_" in name]
    return ["".join(entry[2]) for entry in shown if len(entry) == 4]


def parameter_values(contract: type[BaseModel], values: Mapping[str, Any], who: str) -> dict[str, Any]:
    """What the notebook's variables hold for the contract's parameters. Raises UsageError as `resolve` does."""
    missing = [name for name in contract.model_fields if name not in values]
    if missing:
        raise UsageError(f"{who}: {', '.join(missing)} deleted since the parameters cell; run that again")
    return contracts.resolve(contract, {name: values[name] for name in contract.model_fields}, who)
