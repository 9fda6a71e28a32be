"""`make fuzz`: coverage-guided fuzzing of every target in `targets.py` with atheris, for FUZZ_SECONDS in total.

    python -m tests.fuzz.run            all targets, each in a process of its own
    python -m tests.fuzz.run image …    one target, with libFuzzer's own options

An exception that is no domain error, more than RSS_MIB of memory, or more than INPUT_S for one input is a crash. Inputs that
crash are written to build/fuzz/. Move them to tests/fuzz/corpus/, which `test_targets` replays.
"""

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS, OUT = Path(__file__).parent / "corpus", ROOT / "build/fuzz"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "300"))
RSS_MIB, INPUT_S, MAX_BYTES = 1024, 10, 8192
SHARES = {"image": 5, "text": 1, "sound": 3, "form": 2, "document": 2, "message": 1, "conversation": 2}
"""Targets, and their shares of the time."""


def run(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, until libFuzzer ends it."""
    import atheris  # of an extra, which is not needed to replay the corpus

    with atheris.instrument_imports(include=["polymodal", "PIL", "python_multipart"]):
        from tests.fuzz.targets import TARGETS

    def target(content: bytes) -> None:
        try:
            TARGETS[name](content)
        except BaseException:  # atheris ends the process without writing the input
            (OUT / f"{name}-crash-{hashlib.sha256(content).hexdigest()[:16]}").write_bytes(content)
            raise

    logging.disable()  # log lines about each broken input
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


def main() -> int:
    """Fuzz all targets one after the other; the exit code is 1 when one crashed."""
    from tests.fuzz.seeds import seeds  # not at the top: atheris must instrument the imports

    crashed = []
    for name, share in SHARES.items():
        work = OUT / name
        work.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (work / f"seed-{number:03}").write_bytes(seed)
        seconds = max(1, SECONDS * share // sum(SHARES.values()))
        options = [
            f"-max_total_time={seconds}",
            f"-rss_limit_mb={RSS_MIB}",
            f"-timeout={INPUT_S}",
            f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={OUT}/{name}-",
            "-print_final_stats=1",
            "-verbosity=1",
            str(work),
            *([str(CORPUS / name)] if (CORPUS / name).is_dir() else []),  # git has no empty folders
        ]
        sys.stderr.write(f"== {name}: {seconds} s\n")
        done = subprocess.run([sys.executable, "-m", "tests.fuzz.run", name, *options], cwd=ROOT, check=False)
        if done.returncode:
            crashed.append(name)
    result = f"crashed: {', '.join(crashed)}; see {OUT.relative_to(ROOT)}/" if crashed else "no crash"
    sys.stderr.write(f"{result}\n")
    return int(bool(crashed))


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1], sys.argv[2:])
    sys.exit(main())
