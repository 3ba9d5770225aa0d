"""The versions of a model that the disk has.

found = versions(Path("/models/digits"))                    # {3: Path("/models/digits/3")}
likeness(found[3])                                          # differs when its files have changed
damage(found[3])                                            # "" or what is not as it was registered
"""

import hashlib
import json
import os
from pathlib import Path

from workbench import files
from workbench.errors import UsageError

_MANIFEST, _SIGNATURE = "manifest.json", "model.sig"  # of the registry
_LARGEST = 2**63 - 1


def versions(base: Path) -> dict[int, Path]:
    """The folders whose names are numbers, and that are not empty; none where the storage has gone."""
    found = {}
    try:
        for folder in sorted(base.iterdir()):
            name = folder.name
            if name.isascii() and name.isdigit() and int(name) <= _LARGEST and _has_files(folder):
                found[int(name)] = folder
    except OSError:
        return {}  # not what was found so far: a version that was not come to has not gone
    return found


def _has_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # it is there, even if it cannot be read now


def likeness(folder: Path) -> str:
    """What the files of a folder are like, to see whether they have changed."""
    facts = []
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.stat(os.path.join(path, name))
            except OSError:
                continue
            facts.append((os.path.join(path, name), status.st_mtime_ns, status.st_size))
    return hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()


def damage(folder: Path) -> str:
    """What is not as the registry's manifest in the folder lists it, in words; empty if all is, or there is none.

    Raises OSError for what cannot be read.
    """
    manifest, signature = folder / _MANIFEST, folder / _SIGNATURE
    if not manifest.exists():
        return ""
    from workbench.operate import version  # which few servers need, and which takes a while

    entry = {"manifest": files.sha256(manifest), "model_sig": files.sha256(signature) if signature.exists() else None}
    try:
        if "weights_sha256" not in json.loads(manifest.read_text(encoding="utf-8")):
            return ""  # somebody else's
        return "; ".join(version.damage(folder.resolve(), entry)[:3])
    except (ValueError, TypeError, KeyError) as error:
        return f"{manifest} is no manifest of the registry: {error}"
    except UsageError as error:  # the key to check its signature with
        return str(error)
