"""Write the ABI and bytecode of ``Market`` to where market.chain reads them; ``--check`` compares instead."""

import json
import subprocess
import sys
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parent
FORGE = CONTRACTS / "node_modules" / "@foundry-rs" / "forge-linux-amd64" / "bin" / "forge"
BUILT = CONTRACTS / "out" / "Market.sol" / "Market.json"
ARTIFACT = CONTRACTS.parent / "market" / "chain" / "artifacts" / "Market.json"


def build_artifact() -> str:
    """Compile the contracts; return the artifact's text, which depends on their code alone."""
    subprocess.run([FORGE, "build", "--skip", "test"], cwd=CONTRACTS, check=True, stdout=sys.stderr)
    built = json.loads(BUILT.read_text())
    artifact = {"abi": built["abi"], "bytecode": built["bytecode"]["object"]}
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Return 1 if ``--check`` was given and the committed artifact is not what the code compiles to."""
    artifact = build_artifact()
    if "--check" in sys.argv[1:]:
        if ARTIFACT.exists() and ARTIFACT.read_text() == artifact:
            return 0
        print(f"{ARTIFACT} is stale: run {Path(__file__).name}", file=sys.stderr)
        return 1
    ARTIFACT.parent.mkdir(parents=True, exist_ok=True)
    ARTIFACT.write_text(artifact)
    return 0


if __name__ == "__main__":
    sys.exit(main())
