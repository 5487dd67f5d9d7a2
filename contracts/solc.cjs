#!/usr/bin/env node
// npm's solc (WebAssembly) with the two calls of the native compiler that forge makes.
const { readFileSync } = require("node:fs");
const solc = require("solc");

if (process.argv.includes("--version")) {
  // forge reads the version from this line, and expects a native platform's name.
  console.log(`Version: ${solc.version().replace("Emscripten.clang", "Linux.g++")}`);
} else if (process.argv.includes("--standard-json")) {
  // forge inlines every source, so there is nothing left to import.
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
} else {
  console.error("solc.cjs: only --version and --standard-json are supported");
  process.exit(1);
}
