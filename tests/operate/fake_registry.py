"""What the registry would say, for tests of what becomes of it in MLflow."""

from pathlib import Path
from typing import Any

MODELS: dict[str, list[dict[str, Any]]] = {}
HEADS: dict[str, str] = {}


def models() -> list[str]:
    return list(MODELS)


def versions(name: str) -> list[dict[str, Any]]:
    return MODELS[name]


def head(name: str) -> str:
    return HEADS[name]


def version(number: int, run: str, path: Path, *labels: str) -> dict[str, Any]:
    return {
        "version": number,
        "labels": list(labels),
        "run": run,
        "registered": "2026-01-02T03:04:05.000+00:00",
        "manifest": f"{number:064}",
        "metrics": {"accuracy": 0.5},
        "path": path,
    }
