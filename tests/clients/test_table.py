"""The table of docs/compatibility.md is that of the pinned versions; `make test-clients` writes it."""

from tests.clients.run import BEGIN, END, PAGE, clients


def test_the_table_has_every_client_at_its_pinned_version():
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = [[cell.strip() for cell in line.split(" | ")[:2]] for line in table.splitlines()[2:]]
    pinned = {(f"| {client.package} ({client.language})", client.version) for client in clients()}
    assert {(name, version) for name, version in rows} == pinned
    assert len(rows) >= 40
