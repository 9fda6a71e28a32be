"""`polymodal keys`: the file of API keys that POLYMODAL_API_KEYS_FILE names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polymodal.app.commands.command import AsJson, command, group, print_json, report, show

if TYPE_CHECKING:
    from polymodal.app.access.keys import Key

commands = group("keys", "Create, list and revoke API keys.")

KeysPath = Annotated[
    Path, typer.Option("--file", help="File of keys; POLYMODAL_API_KEYS_FILE names it to the service.", dir_okay=False)
]


@command(
    commands,
    "polymodal keys add shop --file keys.json",
    "polymodal keys add shop --file keys.json --scope classify --expires 90d",
    "KEY=$(polymodal keys add prometheus --file keys.json --scope metrics)",
)
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of its owner; logged with each request made with it.")
    ],
    file: KeysPath,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="A task such as classify, or search, models, metrics or docs; once for each (default: classify and models)."
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="In days from now (90d), or on a day (2027-01-31, UTC).")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key, and print it once: the file has only its hash. A running service accepts it within a second."""
    from polymodal.app.access.keys import KeysError, digest, make_record, new_key, read_keys, write_keys

    key = new_key()
    added = make_record(name, digest(key), scope or ["classify", "models"], expires)
    keys = read_keys(file) if file.exists() else ()
    if any(record.name == name for record in keys):
        raise KeysError(f"{file}: has a key named {name}; allowed: another name, or `polymodal keys remove` first")
    write_keys(file, (*keys, added))
    if as_json:
        print_json({**_as_json(added), "key": key})
    else:
        show(key)
    report(f"{file}: added {name} with the scopes {', '.join(sorted(added.scopes))}; the key is not shown again")


@command(commands, "polymodal keys list --file keys.json", "polymodal keys list --file keys.json --json", name="list")
def list_keys(file: KeysPath, as_json: AsJson = False) -> None:
    """List names, scopes and times of the keys in a file."""
    from polymodal.app.access.keys import read_keys
    from polymodal.app.commands.terminal import show_keys

    keys = read_keys(file)
    if as_json:
        print_json([_as_json(key) for key in keys])
    else:
        show_keys(keys)


@command(commands, "polymodal keys remove shop --file keys.json")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="Of the key.")], file: KeysPath) -> None:
    """Revoke a key: a running service rejects it within a second."""
    from polymodal.app.access.keys import KeysError, read_keys, write_keys

    keys = read_keys(file)
    if all(key.name != name for key in keys):
        names = ", ".join(key.name for key in keys) or "none, as the file has no keys"
        raise KeysError(f"{file}: no key named {name!r}; allowed: {names}")
    write_keys(file, (key for key in keys if key.name != name))
    report(f"{file}: revoked {name}")


def _as_json(key: "Key") -> dict[str, Any]:
    record = key.model_dump(mode="json", exclude={"sha256"})
    return {**record, "scopes": sorted(record["scopes"])}
