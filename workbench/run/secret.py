"""Secrets: a parameter names the environment variable that holds one, and its value stays out of the run.

token: Secret = "SERVICE_TOKEN"                # in the parameters cell; only this name is recorded
key = wb.read_secret(token)                    # in the notebook: the secret itself

mask = Mask(secrets_of(contract, values))      # in the launcher, before anything is written
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from workbench import context
from workbench.errors import UsageError
from workbench.run.mask import SHORTEST
from workbench.run.params import describe

_HIDDEN = "the variable that was passed (not shown here: it may be the secret itself)"


class Secret(str):
    """The annotation of a parameter whose value is the name of an environment variable."""


def read_secret(name: str) -> str:
    """The secret that the environment variable `name` holds. Raises UsageError if it is not set, or empty."""
    value = context.variable(name)
    if not value:
        shown = name if re.fullmatch("[A-Z_][A-Z0-9_]*", name) else _HIDDEN
        raise UsageError(f"read_secret: {shown} is not set; expected an environment variable that holds the secret")
    return value


def secrets_of(contract: type[BaseModel], values: Mapping[str, Any]) -> dict[str, str]:
    """For each parameter of type Secret, the secret that its variable holds; `values` is what `resolve` returned.

    Raises UsageError that lists every variable which is not set, or whose value cannot be masked. It shows the name of
    no variable but the notebook's own: what else was passed could be the secret itself.
    """
    found, problems = {}, []
    for row in describe(contract):
        if row["type"] != "Secret":
            continue
        name, given = row["name"], values[row["name"]]
        secret = context.variable(given) or ""
        shown = given if given == row["default"] else _HIDDEN
        if not secret:
            problems.append(f"{name}: {shown} is not set; expected an environment variable that holds the secret")
        elif len(secret.strip()) < SHORTEST:
            problems.append(f"{name}: {shown} holds too short a secret; expected {SHORTEST} characters or more")
        elif secret != secret.encode(errors="replace").decode():
            problems.append(f"{name}: {shown} holds bytes that are not UTF-8; expected text")
        else:
            found[name] = secret
    if problems:
        raise UsageError("\n  ".join(["the secrets of this run cannot be used", *problems]))
    return found
