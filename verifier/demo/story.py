"""The demo: one job from posted to paid, driven by the commands that a user would type."""

import json
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from safetensors.torch import load_file

from market.chain.client import Chain, connect
from market.chain.deployment import read_deployment
from market.chain.devnet import get_account
from market.chain.events import LeaseSettled, OperatorRegistered, ShardsClaimed
from market.chain.keys import write_key
from market.chain.ledger import Ledger
from market.chain.structs import Role
from market.protocol.errors import MarketError
from market.protocol.lifecycle import LeaseStatus
from market.protocol.spec import JobSpec, decode_spec
from market.storage.blobs import BlobStore
from trainer.jobs import fetch_job
from trainer.models import Llama, generate
from trainer.prepare import read_recipe
from trainer.reference import compute_held_out_loss
from verifier.demo.cast import (
    AUDITORS,
    CHEAT,
    EVERYBODY,
    PROVIDERS,
    REQUESTER,
    Party,
    Scene,
)
from verifier.demo.figures import DemoFigures, Sources, name_operators, write_figures
from verifier.demo.plot import plot_losses
from verifier.demo.processes import Stage, get_peak_memory, wait_until
from verifier.demo.reference import (
    HELD_OUT_ROWS,
    ReferenceLosses,
    read_held_out,
)
from verifier.demo.screen import Screen, show_path, show_report, show_step

STAKE: Final = "0.08ether"
HONEST_STAKE: Final = "0.32ether"  # of four shards; the cheat stakes for one
TICKETS: Final = "3"
PROMPT: Final = b"    def "
SAMPLE_BYTES: Final = 300
TEMPERATURE: Final = 0.7
SAMPLE_SEED: Final = 1
_START_TIMEOUT_S: Final = 60
_WORK_TIMEOUT_S: Final = 1800
_CLI: Final = "market.cli"


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the demo is: the options of `job init`."""

    preset: str = "demo"
    batch: int = 8
    learning_rate: float = 3e-3
    warmup: int = 10
    rounds: int = 2
    slots: int = 3
    segments: int = 8
    steps: int = 20

    @property
    def options(self) -> list[str]:
        """The command line of `job init`."""
        pairs = (
            (f"--{name.replace('_', '-')}", str(value)) for name, value in asdict(self).items()
        )
        return [part for pair in pairs for part in pair]


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Demo:
    """Plays the demo in ``home``, which it empties first."""

    def __init__(
        self, home: Path, figures: Path | None, *, keep: bool, scale: Scale | None = None
    ) -> None:
        if home.exists() and any(home.iterdir()) and not (home / "demo.log").exists():
            raise MarketError(f"{home} is not empty, and no demo was played in it")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "demo.log").touch()
        self._home = home
        self._figures = figures
        self._keep = keep
        self._scale = scale or Scale()
        self._scene = Scene(home, _find_free_port(), _find_free_port())
        self._stage = Stage(home / "logs")
        self._seconds: dict[str, float] = {}

    def run(self) -> None:
        """Play it, print what came of it, and end every process, whatever happens."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        begin = time.monotonic()
        try:
            self._play(begin)
        finally:
            self._stage.stop()

    def _play(self, begin: float) -> None:
        with self._time("set-up"):
            self._open()
        with self._time("lowering and posting"):
            spec, job_id = self._post()
        with connect(self._scene.rpc_url, read_deployment(self._home / "deployment.json")) as chain:
            with self._time("operators, stakes and tickets"):
                self._hire()
            ledger = Ledger(chain)
            self._train(chain, ledger, spec, job_id)
            with self._time("settlement"):
                self._settle(chain, ledger, spec)
            show_step("the same training in ordinary torch fp32 runs to its end")
            with self._time("waiting for the fp32 run"):
                self._stage.wait_for("reference", _WORK_TIMEOUT_S)
            with self._time("receipt and evaluation"):
                figures = self._report(chain, ledger, spec, job_id)
        if not self._keep:
            self._stage.stop()
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        figures = figures.model_copy(
            update={
                "seconds": self._seconds,
                "total_seconds": time.monotonic() - begin,
                "peak_memory_bytes": max(own, get_peak_memory()),
            }
        )
        show_report(figures)
        if self._figures:
            write_figures(figures, self._figures)
        if self._keep:
            self._wait()

    @contextmanager
    def _time(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[phase] = time.monotonic() - start

    def _command(self, party: Party, *arguments: str) -> str:
        """Run `touchstone` ``arguments`` as ``party``; return what it printed."""
        environment = self._scene.build_environment(party.name)
        return self._stage.run([_CLI, *arguments], environment)

    # -- the acts

    def _open(self) -> None:
        show_step("a chain, the contracts and the web API")
        scene = self._scene
        passphrase = "demo"
        (self._home / "passphrase").write_text(passphrase)
        (self._home / "passphrase").chmod(0o600)
        ports = ["--port", str(scene.chain_port), "--api", "--api-port", str(scene.api_port)]
        self._stage.start("devnet", [_CLI, "devnet", *ports], scene.build_environment("devnet"))
        for party in EVERYBODY:
            key = self._home / party.name / "key.json"
            key.parent.mkdir(parents=True, exist_ok=True)
            write_key(key, get_account(party.account), passphrase)
        arithmetic = json.loads(self._command(REQUESTER, "conformance", "--json"))
        show_step(f"this machine's arithmetic is the release's: {arithmetic['digest'][:16]}...")
        wait_until(self._is_open, _START_TIMEOUT_S, "the API's first answer")

    def _is_open(self) -> bool:
        self._stage.require_healthy()
        try:
            return httpx.get(f"{self._scene.api_url}/health").is_success
        except httpx.TransportError:
            return False

    def _post(self) -> tuple[JobSpec, int]:
        show_step("the requester lowers its model to a program and posts the job")
        spec_file = str(self._home / "spec.json")
        files = ["--out", spec_file, "--held-out", str(self._home / "held-out")]
        named = ["--name", "demo", "--stake", STAKE]
        self._command(REQUESTER, "job", "init", *named, *files, *self._scale.options)
        posted = json.loads(self._command(REQUESTER, "job", "post", spec_file, "--json"))
        return decode_spec(Path(spec_file).read_bytes()), posted["job_id"]

    def _hire(self) -> None:
        show_step("two auditors list tickets; three providers stake. mallory will cheat")
        for auditor in AUDITORS:
            self._command(auditor, "operator", "register")
            self._command(auditor, "tickets", "buy", TICKETS)
            self._start(auditor, [_CLI, "auditor", "run", "--threads", "1"])
        for provider in PROVIDERS:
            self._command(provider, "operator", "register")
            self._command(provider, "stake", STAKE if provider is CHEAT else HONEST_STAKE)
            honest = [_CLI, "provider", "run", "--threads", "1"]
            self._start(provider, ["verifier.demo.rogue"] if provider is CHEAT else honest)

    def _start(self, party: Party, arguments: list[str]) -> None:
        self._stage.start(party.name, arguments, self._scene.build_environment(party.name))

    def _train(self, chain: Chain, ledger: Ledger, spec: JobSpec, job_id: int) -> None:
        steps = spec.rounds * spec.slots * spec.steps
        show_step(f"training: {spec.rounds} rounds of {spec.slots} shards, {steps} steps in all")
        with Screen(self._scene, chain, ledger, spec.segments) as screen:
            with self._time("seed"):
                self._watch(screen, lambda: chain.get_job(job_id).seeded, "the seed's draw")
            self._start_reference(chain, job_id)
            for round_index in range(spec.rounds):
                with self._time(f"round {round_index + 1}, audits included"):
                    is_over = partial(self._is_round_over, chain, job_id, round_index)
                    self._watch(screen, is_over, f"the end of round {round_index + 1}")

    def _is_round_over(self, chain: Chain, job_id: int, round_index: int) -> bool:
        return chain.get_job(job_id).round > round_index

    def _start_reference(self, chain: Chain, job_id: int) -> None:
        files = [str(self._home / "spec.json"), str(chain.get_seed(job_id))]
        files += [str(self._home / "held-out"), str(self._home / "reference.json")]
        environment = self._scene.build_environment("reference")
        self._stage.start("reference", ["verifier.demo.reference", *files], environment)

    def _watch(self, screen: Screen, holds: Callable[[], bool], what: str) -> None:
        def is_done() -> bool:
            self._stage.require_healthy()
            screen.refresh()
            return holds()

        wait_until(is_done, _WORK_TIMEOUT_S, what)

    def _settle(self, chain: Chain, ledger: Ledger, spec: JobSpec) -> None:
        window = chain.get_config().challenge_window
        show_step(f"the devnet's clock is turned {window} s on, past the challenge window")
        chain.rpc.call("evm_increaseTime", [window])
        chain.rpc.call("anvil_mine", ["0x1"])
        shards = spec.rounds * spec.slots

        def is_settled() -> bool:
            ledger.refresh()
            settled = [event.lease_id for event in ledger.iterate(LeaseSettled)]
            return sum(ledger.get(ShardsClaimed, lease).count for lease in settled) == shards

        wait_until(is_settled, _START_TIMEOUT_S, "the settlement of every shard")
        operators = {event.owner: event.operator for event in ledger.iterate(OperatorRegistered)}
        for party in (*AUDITORS, *PROVIDERS):
            operator = operators[party.address]
            if any(chain.get_account(operator, role, 0).earned for role in Role):
                self._command(party, "payout")
        ended = {chain.get_status(claimed.lease_id) for claimed in ledger.iterate(ShardsClaimed)}
        assert ended <= {LeaseStatus.SETTLED, LeaseStatus.SLASHED}

    def _report(self, chain: Chain, ledger: Ledger, spec: JobSpec, job_id: int) -> DemoFigures:
        show_step("the model, its receipt, and what they are worth")
        home, job = self._home, str(job_id)
        model, receipt, plot = (home / n for n in ("model.safetensors", "receipt.json", "loss.png"))
        self._command(REQUESTER, "job", "model", job, "--out", str(model))
        self._command(REQUESTER, "receipt", "make", job, "--out", str(receipt))
        self._command(REQUESTER, "receipt", "verify", str(receipt), "--model", str(model))
        store = BlobStore(home / "store", 2**34)
        files = fetch_job(store, spec)
        sources = Sources(chain, ledger, store, home, files, job_id, name_operators(ledger))
        losses = ReferenceLosses.model_validate_json((home / "reference.json").read_bytes())
        plot_losses(plot, sources.list_curves(), losses.training, spec.steps_per_segment)
        gas, lifecycle = sources.measure_gas()
        slashes = sources.list_slashes()
        before, after, sample, parameters = self._evaluate(spec, model)
        return DemoFigures(
            parameters=parameters,
            loss_before=before,
            loss_after=after,
            loss_after_fp32=losses.after,
            sample=sample,
            leases=sources.list_leases(),
            slashed=[slash.provider for slash in slashes],
            slashes=slashes,
            paid=sources.sum_payments(),
            escrow_in=sources.get_escrow(),
            audit_coverage=sources.compute_coverage(),
            gas=gas,
            gas_lifecycle=lifecycle,
            seconds={},
            total_seconds=0,
            peak_memory_bytes=0,
            model=show_path(model),
            receipt=show_path(receipt),
            receipt_holds=True,  # else the command above would have ended the demo
            plot=show_path(plot),
        )

    def _evaluate(self, spec: JobSpec, path: Path) -> tuple[float, float, str, int]:
        """Return the held-out loss before and after, a sample and the number of parameters."""
        held_out = read_held_out(self._home / "held-out")
        model = read_recipe(spec).build_model()
        assert isinstance(model, Llama)  # a preset's
        length = model.config.length
        before = compute_held_out_loss(model, held_out, length, HELD_OUT_ROWS)
        model.load_state_dict(load_file(path))
        after = compute_held_out_loss(model, held_out, length, HELD_OUT_ROWS)
        text = PROMPT + generate(model, PROMPT, SAMPLE_BYTES, TEMPERATURE, SAMPLE_SEED)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return before, after, text.decode(errors="replace").rstrip(), parameters

    def _wait(self) -> None:
        show_step(
            f"still running: API at {self._scene.api_url}/docs, node at {self._scene.rpc_url}"
        )
        show_step("Ctrl-C ends it")
        try:
            signal.pause()
        except KeyboardInterrupt:
            show_step("ended")
