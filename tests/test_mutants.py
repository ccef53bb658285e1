"""The list of mutants: each is where it is said to be, and a mutant is planted in memory only."""

from __future__ import annotations

import re

import mutants
import pytest
from mutants import MUTANTS, TESTS, Mutant


def test_every_mutant_can_be_planted() -> None:
    assert len(MUTANTS) >= 60
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    rooms = {mutant.file().relative_to(mutants.ROOT).parts[1] for mutant in MUTANTS}
    assert rooms >= {"text", "talker", "codec", "speaker", "speech", "checkpoint", "compiled", "qwen3tts_np_kernels"}
    for mutant in MUTANTS:
        changed = mutant.file().read_text(encoding="utf-8").replace(mutant.line, mutant.instead)
        compile(changed, mutant.place, "exec")  # or every test would fail, whatever it looks at


def test_every_test_of_a_mutant_is_there() -> None:
    for name in {name for mutant in MUTANTS for name in mutant.tests}:
        file, _, test = name.partition("::")
        source = (TESTS / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test.partition('[')[0]}\(", source, re.M), name


def test_a_line_that_is_not_there_once_is_reported() -> None:
    for line in ("no such line", "import"):
        with pytest.raises(LookupError, match=r"the line is there \d+ times; it must be once"):
            Mutant("qwen3tts_np/text", line, "", ()).file()


def test_a_planted_mutant_is_killed_and_the_file_stays_as_it_is() -> None:
    mutant = next(m for m in MUTANTS if "dialect" in m.line)
    before = mutant.file().read_bytes()
    outcome = mutants.in_a_process("--plant", str(MUTANTS.index(mutant)))
    assert outcome.status == 1
    assert "test_prompt.py" in outcome.output
    assert mutant.file().read_bytes() == before


@pytest.mark.parametrize(
    ("statuses", "result"), [((0, 1, None), 0), ((0, 0, 1), 1), ((0, 1, 2), None), ((1, 1, 1), None)]
)
def test_what_survives_is_printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statuses: tuple[int | None, ...],
    result: int | None,
) -> None:
    """Statuses of pytest without a mutant and with each of two; 2 means that tests could not run."""
    chosen = [m for m in MUTANTS if "dialect" in m.line][:2]
    unchanged, *planted = (mutants.Outcome(status, 1.0, "what pytest printed") for status in statuses)
    monkeypatch.setattr(mutants, "MUTANTS", chosen)
    monkeypatch.setattr(mutants, "in_a_process", lambda *arguments, **options: unchanged)
    monkeypatch.setattr(mutants, "outcome_of", lambda mutant: planted[chosen.index(mutant)])
    monkeypatch.setattr("sys.argv", ["mutants.py", "--jobs", "1"])
    if result is None:
        with pytest.raises(RuntimeError, match="what pytest printed"):
            mutants.main()
        return
    assert mutants.main() == result
    printed = capsys.readouterr().out
    assert f"{result} of 2 mutants survive" in printed
    assert (f"SURVIVES   1.0 s  {chosen[0].name}" in printed) == bool(result)
