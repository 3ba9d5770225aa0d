"""Is everything that was registered still as it was written, and do labels and server follow the history?

    for finding in audit():
        print(finding)

Nothing is loaded or run. Each finding says which file is wrong, and how.
"""

from collections.abc import Sequence
from pathlib import Path

from workbench.errors import GateError
from workbench.operate import ledger as ledgers
from workbench.operate import models_config, moves, version
from workbench.operate.ledger import HISTORY

_OF_A_MODEL = {HISTORY, moves.LABELS, moves.LOCK, moves.INCOMING, moves.INCOMING_LOCK}


def audit(names: Sequence[str] = (), restore: bool = False, head: str | None = None) -> list[str]:
    """What is wrong with these models, or with all; [] if nothing is.

    restore: first write labels.json and models.config anew, from each history that is sound. head: the hash of a line
    that must be in the history, as it was noted when that line was the last one.
    """
    root = moves.models_folder()
    found: list[str] = []
    for name in names or _folders(root):
        try:
            with moves.opened(name, restore) as model:
                found += _contents(model)
                if head and not ledgers.has(model.ledger, head):
                    found.append(f"{model.folder / HISTORY}: no line has the hash {head}; it was cut off")
        except GateError as error:
            found.append(str(error))
    return found if names else [*found, *_whole(root)]


def _contents(model: moves.Model) -> list[str]:
    """What is wrong in the folder of a model whose history and labels are right."""
    moves.sweep(model.folder)
    registered = ledgers.registrations(model.ledger)
    wanted = {str(number) for number in registered}
    there = {path.name for path in model.folder.iterdir()}
    found = [f"{model.folder / name} was added" for name in sorted(there - wanted - _OF_A_MODEL)]
    for number, entry in registered.items():
        found += version.damage(model.folder / str(number), entry)
    return found


def _whole(root: Path) -> list[str]:
    """What is wrong beside the models' own folders."""
    path = root / models_config.CONFIG
    known = {*moves.models(), models_config.CONFIG, moves.LOCK}
    if not moves.models():
        return [f"{root / name} was added" for name in _names(root) if name not in known]
    with moves.locked(root):
        moves.sweep(root)
        wanted = models_config.text(moves.entries())
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    found = [f"{root / name} was added" for name in _names(root) if name not in known]
    if wanted != text:
        how = "is missing" if text is None else "does not say what the histories say"
        found.append(f"{path} {how}; `workbench audit --restore` writes it anew")
    return found


def _folders(root: Path) -> list[str]:
    return [name for name in _names(root) if (root / name).is_dir()]


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []
