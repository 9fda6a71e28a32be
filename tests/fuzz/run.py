"""`make fuzz`: coverage-guided fuzzing of every target of `targets.py` with atheris, for FUZZ_SECONDS in all.

    python -m tests.fuzz.run            all of them, each in a process of its own
    python -m tests.fuzz.run picture …  one of them, with libFuzzer's own options

An exception that is not the domain's own, more than RSS_MIB of memory or more than INPUT_S for one input is a crash. What
crashes is written to build/fuzz/, to become an entry of tests/fuzz/corpus/, which `test_targets` replays.
"""

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS, FOUND = Path(__file__).parent / "corpus", ROOT / "build/fuzz"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "300"))
RSS_MIB, INPUT_S, LONGEST = 1024, 10, 8192
NAMES = {"picture": 5, "text": 1, "form": 2, "document": 2, "message": 1, "conversation": 2}
"""And how large a part of the time each gets."""


def run(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, until libFuzzer ends it."""
    import atheris  # of an extra: replaying the corpus needs none

    with atheris.instrument_imports(include=["polymodal", "PIL", "python_multipart"]):
        from tests.fuzz.targets import TARGETS

    def target(content: bytes) -> None:
        try:
            TARGETS[name](content)
        except BaseException:  # atheris ends the process without writing what it was
            (FOUND / f"{name}-crash-{hashlib.sha256(content).hexdigest()[:16]}").write_bytes(content)
            raise

    logging.disable()  # what readers say of each broken input
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


def say(line: str) -> None:
    """Between what libFuzzer says, in order."""
    sys.stderr.write(f"{line}\n")


def main() -> int:
    """Fuzz all targets one after the other; the exit code is 1 when one crashed."""
    from tests.fuzz.seeds import seeds  # not where atheris is still to see the imports

    crashed = []
    for name, share in NAMES.items():
        work = FOUND / name
        work.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (work / f"seed-{number:03}").write_bytes(seed)
        seconds = max(1, SECONDS * share // sum(NAMES.values()))
        options = [
            f"-max_total_time={seconds}",
            f"-rss_limit_mb={RSS_MIB}",
            f"-timeout={INPUT_S}",
            f"-max_len={LONGEST}",
        ]
        options += [
            f"-artifact_prefix={FOUND}/{name}-",
            "-print_final_stats=1",
            "-verbosity=1",
            str(work),
            *([str(CORPUS / name)] if (CORPUS / name).is_dir() else []),  # git keeps no empty folder
        ]
        say(f"== {name}: {seconds} s")
        done = subprocess.run([sys.executable, "-m", "tests.fuzz.run", name, *options], cwd=ROOT, check=False)
        if done.returncode:
            crashed.append(name)
    say(f"crashed: {', '.join(crashed)}; see {FOUND.relative_to(ROOT)}/" if crashed else "no crash")
    return int(bool(crashed))


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1], sys.argv[2:])
    sys.exit(main())
