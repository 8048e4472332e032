"""Short scripts of commands and faults, drawn from a seed, for the models of tests/simulation and for the real parts.

A script is a tuple of words. It closes one date. Each word is done when what it began has come to rest: the closing has
ended, has paused, or waits for what a blocker holds back. So virtual and real time meet at the same points. After the
last word everything is cleared, and `inv next` is followed until the date is closed.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

# Each holds back a closing at one point until the word "clear". The words in between act on the closing at that point.
BLOCKERS = ("submit stalls", "procedure holds", "slave never starts", "Genius is down", "PostgreSQL is down")
STEPS = ("begin", "submit", "record genius", "ledger", "metrics", "end")
ARMED = (
    *(f"die before {step}" for step in STEPS),
    *(f"die after {step}" for step in STEPS),
    *(f"late {step}" for step in ("begin", "submit", "ledger")),
    "procedure fails",
    "procedure ends with 0",
)
RERUNS = ("rerun", "rerun --from genius", "rerun --adopt")
# Without the databases a closing cannot end, so a script does not wait for its end.
DOWN = ("kill", "restart Restate", "hold")
MEANWHILE = {
    "submit stalls": ("cancel", "kill", "restart Restate", "deploy", "late effect", "hold", "lose Restate"),
    "procedure holds": (
        *("cancel", "kill", "restart Restate", "deploy", "rotate Oracle", "rotate PostgreSQL", "hold", "lose Restate"),
        *("stop-job", "slave dies", *RERUNS),
    ),
    "slave never starts": ("cancel", "kill", "restart Restate", "deploy", "rotate Oracle", "rerun", "lose Restate"),
    "Genius is down": DOWN,
    "PostgreSQL is down": DOWN,
}
AFTER = (
    *("close", *RERUNS, "resolve", "deploy", "resume", "hold", "release"),
    *("late effect", "job dropped", "log purged", "lose Restate", "restart Restate"),
)
COMMANDS = (
    *("close", "cancel", "kill", *RERUNS, "resolve", "stop-job", "resume", "deploy"),
    *("rotate password", "hold", "release"),
)
FAULTS = (
    *("die before a step", "die after a step", "late effect", "Genius is down", "PostgreSQL is down"),
    *("restart Restate", "lose Restate", "slave never starts", "slave dies", "procedure fails"),
    *("procedure ends with 0", "job dropped", "log purged"),
)
TIMES, CANDIDATES = 3, 1500


@dataclass(frozen=True)
class Outcome:
    """The result of a script; model and cloud must agree in all fields but `effective`.

    answers: (command, whether it was accepted), of the script; next: the commands that `inv next` named, without the
    environment, until there was none; runs: the outcomes of the three steps of each run, in the order of their begin;
    starts: of the procedure. effective: the commands and faults that had an effect, as COMMANDS and FAULTS name them.
    """

    answers: tuple[tuple[str, bool], ...]
    next: tuple[str, ...]
    runs: tuple[tuple[str, str, str], ...]
    starts: int
    effective: tuple[str, ...] = ()

    def differences(self, other: Outcome) -> list[str]:
        """Return a line for each field in which two outcomes differ: self is the model's, other the cloud's."""
        fields = ("answers", "next", "runs", "starts")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in fields]
        return [f"{name}: the model {mine}, the cloud {theirs}" for name, mine, theirs in pairs if mine != theirs]


def do_words(player) -> tuple[tuple[str, bool], ...]:
    """Do each word of a player's script, with a rest after it; returns (command, whether it was accepted) of each."""
    done = []
    for word in player.script:
        accepted = player.do(word)
        player.settle()
        if accepted is not None:
            done.append((word, accepted))
    return tuple(done)


def category(word: str) -> str:
    """Return the name of a word in COMMANDS or FAULTS; the word itself if it is one of them, or no part of them."""
    if word.startswith(("die before", "die after")):
        return " ".join(word.split()[:2]) + " a step"
    return "rotate password" if word.startswith("rotate") else word


def draw(random_: random.Random) -> tuple[str, ...]:
    """Draw one script."""
    words = ["hold"] if random_.random() < 0.05 else []
    words += random_.sample(ARMED, random_.choice((0, 1, 1)))
    blocker = random_.choice((None, *BLOCKERS))
    meanwhile = random_.sample(MEANWHILE[blocker], random_.choice((0, 1, 1, 2))) if blocker else []
    after = random_.sample(AFTER, random_.choice((0, 0, 1, 2)))
    return (*words, *([blocker] if blocker else []), "close", *meanwhile, "clear", *after)


def choose(seed: int, play, times: int = TIMES, most: int | None = None) -> list[tuple[tuple[str, ...], Outcome]]:
    """Choose at most `most` scripts of a seed, until each command and each fault has had an effect `times` times.

    play: the model, Script -> Outcome. Takes the script first that adds most for its length. Raises ValueError if the
    candidates do not suffice.
    """
    random_ = random.Random(seed)
    candidates = {script: play(script) for script in (draw(random_) for _ in range(CANDIDATES))}
    counts: Counter = Counter()
    chosen = []
    while lacking := {name for name in (*COMMANDS, *FAULTS) if counts[name] < times}:
        if len(chosen) == most:
            break

        def worth(script, lacking=lacking) -> float:
            outcome = candidates[script]
            return len(lacking & set(outcome.effective)) / (4 + len(script) + 2 * len(outcome.next))

        best = max(candidates, key=worth)
        if not worth(best):
            raise ValueError(f"no script of seed {seed} has an effective {', '.join(sorted(lacking))}")
        outcome = candidates.pop(best)
        chosen.append((best, outcome))
        counts.update(set(outcome.effective))
    return chosen
