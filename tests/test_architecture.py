"""The shape of the package: which way imports go, what stays light, who reads the environment."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "workbench").rglob("*.py"))


def test_import_arrows_go_one_way() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "workbench",
        "workbench.cli",
        "workbench.run",
        "workbench.run.regress",
        "workbench.exports.convert",
        "workbench.operate",
        "workbench.operate.foreign",
        "workbench.operate.monitor",
        "workbench.operate.quality",
        "workbench.profiles",
    ],
)
def test_light_modules_load_no_tensorflow(module: str) -> None:
    code = f"""
import importlib, pkgutil, sys
import papermill  # it imports our engine
package = importlib.import_module({module!r})
for info in pkgutil.iter_modules(getattr(package, "__path__", []), {module!r} + "."):
    if not info.ispkg and {module!r} != "workbench":
        importlib.import_module(info.name)
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_context_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT / "workbench").as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and node.names[0].name in ("environ", "getenv"))
    }
    # The zygote takes the environment of whoever asks for a kernel; it can import no module of ours.
    assert readers == {"context.py", "run/zygote.py"}


def test_the_table_of_contents_is_true() -> None:
    code = """
import workbench
assert all(callable(getattr(workbench, name)) for name in dir(workbench)), dir(workbench)
import workbench.exports.verify, workbench.exports.artefacts
assert callable(workbench.export) and callable(workbench.verify)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    import workbench

    with pytest.raises(AttributeError, match="workbench has no 'trian'; its names are Run, start_run"):
        workbench.trian  # noqa: B018


def test_no_file_outgrows_a_reader() -> None:
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert {name: length for name, length in lengths.items() if length > 340} == {}
