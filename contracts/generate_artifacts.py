"""Write ABI and bytecode of what is deployed to where market.chain reads them; ``--check`` compares.

`Market` runs the code of `Annex` over its own storage: its ABI is both of theirs, and both must lay it
out alike."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONTRACTS = Path(__file__).resolve().parent
FORGE = CONTRACTS / "node_modules" / "@foundry-rs" / "forge-linux-amd64" / "bin" / "forge"
ARTIFACTS = CONTRACTS.parent / "market" / "chain" / "artifacts"
SOURCES = {
    "Market": ("Market", "Annex"),
    "Offers": ("Offers",),
    "Vouchers": ("Vouchers",),
    "Registry": ("Registry",),
}


def read_built(name: str) -> dict[str, Any]:
    """Return what forge made of the contract ``name``."""
    built: dict[str, Any] = json.loads(
        (CONTRACTS / "out" / f"{name}.sol" / f"{name}.json").read_text()
    )
    return built


def merge_abi(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return every entry of the contracts' ABIs once; of constructors, the first's."""
    entries: dict[str, dict[str, Any]] = {}
    for name in names:
        for entry in read_built(name)["abi"]:
            if entry["type"] in ("constructor", "fallback", "receive") and name != names[0]:
                continue
            entries.setdefault(json.dumps(entry, sort_keys=True), entry)
    return [entries[key] for key in sorted(entries)]


def require_equal_layouts() -> None:
    """Raise unless the storage of `Market` is where `Annex` looks for it."""
    market, annex = (read_layout(name) for name in SOURCES["Market"])
    if annex[: len(market)] != market:
        raise SystemExit(f"storage of Market and Annex differs: {market} and {annex}")


def read_layout(name: str) -> list[tuple[str, str, int]]:
    """Return the label, slot and offset of every storage variable of ``name``."""
    return [
        (v["label"], v["slot"], v["offset"]) for v in read_built(name)["storageLayout"]["storage"]
    ]


def build_artifact(names: tuple[str, ...]) -> str:
    """Return the artifact's text, which depends on the contracts' code alone."""
    artifact = {"abi": merge_abi(names), "bytecode": read_built(names[0])["bytecode"]["object"]}
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Return 1 if ``--check`` was given and a committed artifact is not what the code compiles to."""
    subprocess.run([FORGE, "build", "--skip", "test"], cwd=CONTRACTS, check=True, stdout=sys.stderr)
    require_equal_layouts()
    stale = []
    for name, sources in SOURCES.items():
        path, text = ARTIFACTS / f"{name}.json", build_artifact(sources)
        if "--check" in sys.argv[1:]:
            stale += [] if path.exists() and path.read_text() == text else [path]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{path} is stale: run {Path(__file__).name}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
