"""`polymodal doctor`: checks of everything that a service depends on, in one table."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from polymodal.app.commands.bundles import bundle_folder
from polymodal.app.commands.command import FAILED, AsJson, command, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polymodal.app.doctor.result import CheckResult

KEY_VARIABLE = "PM_API_KEY"  # not POLYMODAL_…, the prefix of the service's settings, which refuse unknown names

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
        typer.Option(
            help="A running service to check too.", show_default="the one that listens on the port, if there is one"
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="An API key for it.", envvar=KEY_VARIABLE)] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each of its responses.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Check installation, machine, settings, bundles, indexes, port and a running service, and advise what to do.

    Exit code 1 if a check fails, not for warnings. Checks change nothing, and send data to the service only.
    """
    from polymodal.app.commands.terminal import show_results
    from polymodal.app.doctor.result import State

    results = list(_results(bundle, url, key, timeout))
    failed = any(result.state is State.FAIL for result in results)
    if as_json:
        print_json({"ok": not failed, "findings": [asdict(result) for result in results]})
    else:
        show_results(results)
    if failed:
        raise typer.Exit(FAILED)


def _results(bundle: str | None, url: str | None, key: str | None, timeout_s: float) -> "Iterator[CheckResult]":
    from polymodal.app.doctor import bundle as bundles
    from polymodal.app.doctor import index as indexes
    from polymodal.app.doctor import installation, machine, port, service
    from polymodal.app.doctor.result import State, ok
    from polymodal.app.settings import BundleSource
    from polymodal.model import Description

    yield from installation.check()
    settings, results = installation.read_settings(os.environ)
    yield from results
    yield from machine.check(settings, os.environ)
    sources = settings.bundles
    if bundle:
        folder = bundle_folder(bundle)
        sources = (BundleSource(folder.name, folder),)
    loaded: list[Description] = []
    for source in sources:
        yield from bundles.check(source, settings, loaded)
    for index in settings.indexes:
        yield from indexes.check(index, loaded)
    if loaded:
        yield machine.memory(settings, machine.resident_bytes())
    ports = [(settings.host, settings.port)]
    if settings.admin_port is not None:
        ports.append((settings.admin_host, settings.admin_port))
    for host, number in ports:
        result, address = port.check(host, number), port.address_of(host, number)
        if result.state is State.FAIL and service.is_polymodal(address):
            result, url = ok(result.area, result.check, f"{result.found}: a Polymodal service"), url or address
        yield result
    if url:
        yield from service.check(url, key, loaded, timeout_s)
