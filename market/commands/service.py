"""Commands that run things: a devnet, a deployment, the API."""

import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from market.chain.client import Chain, connect
from market.chain.deployment import (
    DEVNET,
    MAINNET,
    Deployment,
    deploy,
    deploy_periphery,
    read_deployment,
    write_deployment,
)
from market.chain.devnet import Devnet, DevnetConfig, find_anvil, get_account
from market.chain.rpc import Rpc
from market.chain.transactions import Sender
from market.commands.output import Json, build_facts, emit
from market.protocol.errors import ChainError, MarketError
from market.settings import Settings, read_settings
from market.storage.blobs import BlobStore

api = typer.Typer(no_args_is_help=True, help="The web API.")

Port = Annotated[int, typer.Option(min=1, max=65_535)]


class Preset(StrEnum):
    """Which constants a deployment gets."""

    MAINNET = "mainnet"
    DEVNET = "devnet"


def run_devnet(
    port: Port = 8545,
    block_time: Annotated[int, typer.Option(min=1, help="Seconds between blocks.")] = 1,
    serve: Annotated[bool, typer.Option("--api", help="Serve the API too.")] = False,  # noqa: FBT002
    api_port: Port = 8000,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Run a local chain with the market on it, until it is interrupted; its state is kept.

    A first run deploys the market, with seconds for clocks, and writes the deployment file."""
    if serve:
        _load_web_stack()  # or refuse before anything starts
    settings = read_settings()
    state_file = settings.data_dir / "devnet.json"
    state_file.parent.mkdir(parents=True, exist_ok=True)
    config = DevnetConfig(find_anvil(settings.anvil), port, state_file, block_time)
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    with Devnet(config) as running:
        deployment = _ensure_deployed(running, settings.deployment_file)
        _emit_deployment(deployment, running.url, settings.deployment_file, as_json=as_json)
        if serve:
            with connect(running.url, deployment) as chain:
                _serve(chain, settings, "127.0.0.1", api_port)
        else:
            status = running.wait()
            raise ChainError(f"Anvil ended with status {status}")


def deploy_market(
    preset: Annotated[Preset, typer.Option(help="Hours or seconds for clocks.")] = Preset.MAINNET,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Create a market with your key and write its deployment file, which must not exist."""
    settings = read_settings()
    if settings.deployment_file.exists():
        raise MarketError(f"{settings.deployment_file} exists: a deployment is never forgotten")
    constants = MAINNET if preset is Preset.MAINNET else DEVNET
    with Sender(Rpc(settings.rpc_url), patience_s=600) as sender:
        account = settings.read_account()
        deployment, _ = deploy(sender, account, constants)
        write_deployment(settings.deployment_file, deployment)  # whatever happens to what follows
        deployment = deploy_periphery(sender, account, deployment)
    write_deployment(settings.deployment_file, deployment)
    _emit_deployment(deployment, settings.rpc_url, settings.deployment_file, as_json=as_json)


@api.command("serve")
def serve_api(host: str = "127.0.0.1", port: Port = 8000) -> None:
    """Serve the API over the deployed market and the local store."""
    settings = read_settings()
    with settings.connect() as chain:
        _serve(chain, settings, host, port)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command("devnet")(run_devnet)
    app.command("deploy")(deploy_market)
    app.add_typer(api, name="api")


def _serve(chain: Chain, settings: Settings, host: str, port: int) -> None:
    create_app, run = _load_web_stack()
    run(create_app(chain, settings.open_store()), host=host, port=port, log_level="warning")


def _load_web_stack() -> tuple[Callable[[Chain, BlobStore], Any], Callable[..., None]]:
    """Return what builds the application and what runs it; a provider installs neither."""
    try:
        import uvicorn

        from market.api.app import create_app
    except ModuleNotFoundError as error:
        raise MarketError(
            f"serving the API needs {error.name}: install touchstone-market[api]"
        ) from error
    return create_app, uvicorn.run


def _ensure_deployed(devnet: Devnet, path: Path) -> Deployment:
    if path.exists():
        deployment = read_deployment(path)
        with connect(devnet.url, deployment) as chain:
            if chain.is_deployed():
                return deployment
    with Sender(Rpc(devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), DEVNET)
        deployment = deploy_periphery(sender, get_account(0), deployment)
    write_deployment(path, deployment)
    return deployment


def _emit_deployment(deployment: Deployment, url: str, path: Path, *, as_json: bool) -> None:
    facts: dict[str, object] = {"node": url, **deployment.model_dump(), "file": path}
    emit(deployment, build_facts("market", facts), as_json=as_json)
    sys.stdout.flush()  # whoever started this waits for the line


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
