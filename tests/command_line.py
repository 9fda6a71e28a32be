"""Run the command line in this process."""

from typer.testing import CliRunner

from polymodal.app.cli import app


def polymodal(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def assert_explained(result, *words, code=1):
    """Check the exit code, and that standard error has one message with these words, perhaps after warnings, and no traceback."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert lines[0].startswith("polymodal: ")
    message = " ".join(result.stderr.split())
    assert all(word in message for word in words), message
