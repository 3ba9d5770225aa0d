"""Every model of the tests' zoo in every format: how close, how large, how fast, or why not.

python benchmarks/zoo.py                                  # about six minutes on two cores
python benchmarks/zoo.py cnn lstm --format tfjs           # some of it

Each cell is an artefact that answered the sample in its own runtime as the model did, or the sentence with which it was
refused. Milliseconds are those of one call with 1 and with 256 examples; the difference is that from `predict`, as a
share of the output's largest value.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from harness import scratch_run

from workbench.errors import GateError
from workbench.exports.artefacts import export
from workbench.exports.convert import add_formats
from workbench.exports.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]


def results(make: Any, formats: list[str]) -> dict[str, dict[str, Any] | str]:
    """The figures of each format, or the sentence of its refusal."""
    run = scratch_run()
    model, sample = make()
    found: dict[str, dict[str, Any] | str] = dict(export(run, model, sample))
    for name in formats:
        try:
            found |= add_formats(run, [name])
        except GateError as refusal:
            found[name] = str(refusal).partition(": ")[2]
    return found


def line(figures: dict[str, Any]) -> str:
    milliseconds = figures["latency_ms"]
    agreement = figures["top1_agreement"]
    return (
        f"{figures['max_rel_difference']:8.1e}  {'' if agreement is None else f'{agreement:.1%}':>6}  "
        f"{figures['bytes'] / 1024:8.1f}  {milliseconds['1']:8.3f}  {milliseconds.get('256', ''):>8}  {figures['note']}"
    )


def main() -> None:
    sys.path.append(str(ROOT))  # where the tests have the models
    from tests.exports.zoo import ZOO

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(ZOO))
    parser.add_argument("--format", action="append", choices=list(FORMATS), dest="formats")
    arguments = parser.parse_args()
    formats = arguments.formats or [name for name in FORMATS if name != "saved_model"]
    verified = refused = 0
    for model in arguments.models or ZOO:
        with contextlib.redirect_stdout(io.StringIO()):
            found = results(ZOO[model], formats)
        print(f"\n{model:<22} difference   top-1        kB      1, ms   256, ms")
        for name, result in found.items():
            print(f"  {name:<20} " + (f"refused: {result}" if isinstance(result, str) else line(result)), flush=True)
            refused += isinstance(result, str)
        verified += sum(not isinstance(result, str) for result in found.values())
    print(f"\n{verified} verified, {refused} refused, of {verified + refused}")


if __name__ == "__main__":
    main()
