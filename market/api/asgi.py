"""The API as a server starts it: ``uvicorn --factory market.api.asgi:build_app``."""

from fastapi import FastAPI

from market.api.app import create_app
from market.settings import read_settings


def build_app() -> FastAPI:
    """Return the application that the environment describes."""
    settings = read_settings()
    return create_app(settings.connect(), settings.open_store())
