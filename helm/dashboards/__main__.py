"""Writes the dashboards as JSON into a folder: `python helm/dashboards FOLDER`."""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

import agents
import overview
import workloads

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for module in (overview, workloads, agents):
        text = JSONEncoder(sort_keys=True, indent=2).encode(module.build().build())
        (folder / f"{module.__name__}.json").write_text(text + "\n", encoding="utf-8")
