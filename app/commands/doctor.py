"""`polymodal doctor`: everything that a service stands on, in one table."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.bundles import bundle_folder
from app.commands.command import FAILED, AsJson, command, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.doctor.finding import Finding

KEY_VARIABLE = "PM_API_KEY"  # not POLYMODAL_…: these are settings of the service, which refuses unknown ones

commands = typer.Typer()


@command(
    commands,
    "polymodal doctor",
    "polymodal doctor bundles/things",
    "polymodal doctor --url http://127.0.0.1:8000",
    "polymodal doctor --url https://labels.example --key $KEY --json",
)
def doctor(
    bundle: Annotated[
        str | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Folder of a bundle, or illustrations: the embedded one.",
            show_default="those of POLYMODAL_BUNDLES",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="A running service to ask too.", show_default="what listens on the port, if it is one"),
    ] = None,
    key: Annotated[str | None, typer.Option(help="An API key for it.", envvar=KEY_VARIABLE)] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that it gets for each answer.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Look at the installation, the machine, the settings, the bundles, the port and a running service; say what to do.

    Exit code 1 when something fails; a warning is none. Nothing is changed, and nothing is sent anywhere but to the service.
    """
    from app.doctor.finding import State
    from app.terminal import show_findings

    findings = list(_examined(bundle, url, key, timeout))
    failed = any(each.state is State.FAIL for each in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [each.as_json() for each in findings]})
    else:
        show_findings(findings)
    if failed:
        raise typer.Exit(FAILED)


def _examined(bundle: str | None, url: str | None, key: str | None, timeout_s: float) -> "Iterator[Finding]":
    from app.doctor import bundle as model
    from app.doctor import installation, machine, port, service
    from app.doctor.finding import State, ok
    from app.settings import BundleSource
    from model import Description

    yield from installation.look()
    settings, told = installation.read_settings(os.environ)
    yield from told
    yield from machine.look(settings, os.environ)
    sources = settings.bundles
    if bundle:
        folder = bundle_folder(bundle)
        sources = (BundleSource(folder.name, folder),)
    loaded: list[Description] = []
    for source in sources:
        yield from model.look(source, settings, loaded)
    if loaded:
        yield machine.memory(settings, machine.resident_bytes())
    doors = [(settings.host, settings.port)]
    if settings.admin_port is not None:
        doors.append((settings.admin_host, settings.admin_port))
    for door in doors:
        here, address = port.look(*door), port.address_of(*door)
        if here.state is State.FAIL and service.speaks_polymodal(address):
            here, url = ok(here.area, here.check, f"{here.found}: a Polymodal service"), url or address
        yield here
    if url:
        yield from service.look(url, key, loaded, timeout_s)
