"""The commands on registered models: versions, labels, history. cli.py adds them to the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from workbench.errors import GateError, UsageError
from workbench.terminal import moment, short, table

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_LABEL = click.option("--label", default="stable", show_default=True, metavar="L", help="Which label is moved.")
_BECAUSE = click.option("--because", metavar="TEXT", help="The reason, for the history.")


@click.command()
@click.argument("run")
@click.option("--name", metavar="MODEL", help="The model's name, if not the run's.")
def register(run: str, name: str | None) -> None:
    """Make RUN, which is verified, the next version of its model.

    Its files are checked against what the run has recorded, and for what is not safe to open. The same run is the same
    version. RUN is a run's directory, its id, or a name, which means its newest run.
    """
    from workbench.operate import registry
    from workbench.run.runs import find_run

    found = find_run(run)
    version = registry.register(found, name)
    entry = next(v for v in registry.versions(name or found.name) if v["version"] == version)
    print(f"{name or found.name} {version} is {entry['run']}: {', '.join(entry['formats'])}; {_bytes(entry['bytes'])}")
    print(f"  {short(entry['path'])}, with its card.md")
    print(f"next: workbench promote {name or found.name} {version}")


@click.command()
@click.argument("name", required=False)
@click.option("--prune", is_flag=True, help="Delete versions without a label, after asking, but the newest ones.")
@click.option("--keep", type=click.IntRange(0), default=5, show_default=True, metavar="N", help="How many those are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def versions(name: str | None, prune: bool, keep: int, yes: bool, as_json: bool) -> None:
    """List the versions of the model NAME, newest first; without NAME, the models and their labels.

    --prune also keeps what a label would be taken back to.
    """
    from workbench.operate import moves, registry

    if name is None:
        if prune:
            raise UsageError("--prune: expected the NAME of a model")
        labels = {model: registry.labels(model) for model in moves.models()}
        if as_json:
            print(json.dumps(labels, indent=2))
        else:
            table(["model", "labels"], [[model, _labels(found)] for model, found in labels.items()])
        return
    if prune and (yes or click.confirm(f"Delete the versions of {name} beyond {keep}?", abort=True, err=True)):
        gone = registry.prune(name, keep)
        print(f"deleted: {', '.join(map(str, gone)) or 'none'}", file=sys.stderr)
    found = registry.versions(name)
    if as_json:
        print(json.dumps(found, indent=2, default=str))
        return
    from workbench.run.runs import format_metrics

    table(
        ["version", "labels", "registered (UTC)", "run", "formats", "size", "metrics"],
        [
            [
                str(v["version"]),
                ", ".join(v["labels"]),
                moment(v["registered"]),
                v["run"],
                ", ".join(v["formats"]),
                _bytes(v["bytes"]),
                format_metrics(v["metrics"]),
            ]
            for v in found
        ],
    )


@click.command()
@click.argument("name")
@click.argument("version", type=int)
@_LABEL
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="One more rule; may be given again.")
@click.option("--force", is_flag=True, help="Even if a rule is broken; needs --because.")
@_BECAUSE
def promote(name: str, version: int, label: str, rules: tuple[str, ...], force: bool, because: str | None) -> None:
    """Let a label point at VERSION of the model NAME, if it keeps to the rules.

    The rules are those of params/gates.yaml, and of --rule, as in "test_accuracy >= stable - 0.005". A broken one ends
    with exit code 3 and the figures of all. What is served follows models.config.
    """
    from workbench.operate import registry

    before = registry.labels(name).get(label)
    judgement = registry.promote(name, version, label, rules, force, because)
    if judgement is None:
        print(f"{name} {version} is {label} already")
        return
    print("\n".join(judgement.lines()))
    forced = "" if judgement.passed else ", forced"
    print(f"{name} {version} is {label}{forced}" + (f"; before: {before}" if before else ""))


@click.command()
@click.argument("name")
@_LABEL
@_BECAUSE
def rollback(name: str, label: str, because: str | None) -> None:
    """Take a label of the model NAME back to the version it pointed at before.

    Again, to the one before that. A label without an earlier version is removed, but never `stable`.
    """
    from workbench.operate import registry

    before = registry.labels(name).get(label)
    version = registry.rollback(name, label, because)
    print(f"{name} {version or 'nothing'} is {label}; before: {before}")


@click.command()
@click.argument("name")
@click.option("--at", metavar="TIME", help="Who served then: ISO 8601, in UTC without an offset.")
@_JSON
def history(name: str, at: str | None, as_json: bool) -> None:
    """Show who changed what of the model NAME, when and why, oldest first.

    The whole history is checked before anything of it is shown. --at tells which version each label had, from which
    run, and by which rules and figures it was promoted.
    """
    from workbench.operate import registry
    from workbench.operate.ledger import describe

    if at is not None:
        found = registry.serving(name, at)
        if as_json:
            print(json.dumps(found, indent=2))
        for served in [] if as_json else found:
            moved = served["moved"]
            print(f"{served['label']} {served['version']}, of run {served['run']}")
            print(f"  {describe(moved)}, {moment(moved['time'])} by {moved['by']}{_why(moved) and ': ' + _why(moved)}")
            for verdict in served["promoted"]["judged"]:
                print(f"  {'passed' if verdict['passed'] else 'BROKEN'}  {verdict['rule']}: {verdict['figures']}")
        if not (found or as_json):
            print(f"no version of {name} had a label then")
        return
    entries = registry.history(name)
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    table(
        ["time (UTC)", "by", "what", "why"],
        [[moment(entry["time"]), entry["by"], describe(entry), _why(entry)] for entry in entries],
    )


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--restore", is_flag=True, help="First write labels.json and models.config anew from the histories.")
@click.option("--head", metavar="HASH", help="That this was once the hash of NAME's history, too.")
@_JSON
def audit(names: tuple[str, ...], restore: bool, head: str | None, as_json: bool) -> None:
    """Check every file of every registered version, the histories, the labels and models.config.

    Ends with exit code 3 if anything is not as it was written. The hash that is printed stands for a model's whole
    history: noted elsewhere, it shows later that nothing was cut off.
    """
    from workbench.operate import moves, registry
    from workbench.operate.audit import audit as audit_models

    for name in names:
        moves.find_model(name)
    if head and len(names) != 1:
        raise UsageError(f"--head: got {len(names)} names; expected the NAME of the model whose history had that hash")
    findings = audit_models(names, restore, head)
    if as_json:
        print(json.dumps(findings, indent=2))
    if findings:
        raise GateError("\n".join(findings))
    for name in [] if as_json else names or moves.models():
        print(f"{name}: {len(registry.versions(name))} versions as they were registered; history {registry.head(name)}")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def scan(path: Path) -> None:
    """Say whether PATH, a model that somebody else made, is safe to open; nothing of it is run."""
    from workbench.operate.foreign.scan import refuse_unsafe

    refuse_unsafe(path)
    print(f"{path}: nothing in it reaches out of the model")


@click.command()
def mirror() -> None:
    """Send to MLflow what it does not have yet, at the address in MLFLOW_TRACKING_URI.

    Runs and registered versions are sent by themselves, too, in the background; this waits, and tells what failed.
    """
    from workbench.operate.mirror.catch_up import catch_up, describe, refuse_failures

    report = catch_up()
    print(describe(report))
    refuse_failures(report)


def _labels(pointing: dict[str, int]) -> str:
    return ", ".join(f"{label} {version}" for label, version in pointing.items())


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _why(entry: dict[str, Any]) -> str:
    """The reason that was given, and the rules that were broken, or what of the run was registered."""
    broken = [f"{v['rule']}: {v['figures']}" for v in entry.get("judged", []) if not v["passed"]]
    return "; ".join(filter(None, [entry.get("because"), *broken]))


COMMANDS = (register, versions, promote, rollback, history, audit, scan, mirror)
