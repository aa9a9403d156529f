"""Figures drawn as one page that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from raypool.report import words
from raypool.report.figures import Figures
from raypool.report.view import view

GENERATOR = "raypool report"
"""What the page says of where it comes from, in its head."""


def render(figures: Figures) -> bytes:
    """The page, in UTF-8.

    Its security policy lets a browser run the page's own two scripts and nothing else, and load
    nothing at all, whatever the ledger's texts hold.
    """
    licence = f"/*\n{_asset('uPlot.LICENSE')}*/\n"
    scripts = [licence + _asset("uPlot.iife.min.js"), _asset("page.js")]
    shown = view(figures)
    page = (
        _environment()
        .get_template("page.html")
        .render(
            **shown,
            charts=Markup(_json_for_html(shown["drawn"])),  # noqa: S704 - it has no `<`
            generator=GENERATOR,
            version=version("raypool"),
            policy=_policy(scripts),
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours
            styles=Markup(_asset("uPlot.min.css") + _asset("page.css")),  # noqa: S704 - ours
        )
    )
    return page.encode("utf-8", "replace")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": words.count,
        "short": words.short,
        "dollars": words.dollars,
        "duration": words.duration,
        "moment": _moment,
        "percent": words.percent,
    }
    return environment


def _asset(name: str) -> str:
    return files("raypool.report").joinpath("page", name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json_for_html(value: Any) -> str:
    """JSON that ends no element of HTML and begins none."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
