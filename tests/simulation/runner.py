"""Draw scripts from seeds, run them, and shrink one that breaks an invariant."""

from __future__ import annotations

import random

from .oracle_model import Plan
from .world import DATES, DAY, HOUR, STEP_FAULTS, Broken, Script, World, install

install()
# The actions of an operator and of the world, each with a function that draws its arguments.
ACTIONS = {
    "close": lambda draw: (draw.choice(DATES),),
    "cancel": lambda draw: (draw.choice(DATES),),
    "kill": lambda draw: (draw.choice(DATES),),
    "rerun": lambda draw: (draw.choice(DATES), draw.choice((None, None, "genius", "ledger")), draw.random() < 0.4),
    "resolve": lambda draw: (draw.choice(DATES)[:7],),
    "stop_job": lambda draw: (draw.choice(DATES),),
    "resume": lambda draw: (draw.choice(DATES),),
    "deploy": lambda draw: (),
    "rotate_oracle": lambda draw: (),
    "rotate_postgres": lambda draw: (),
    "genius_down": lambda draw: (draw.choice((60.0, HOUR, 14 * HOUR)),),
    "postgres_down": lambda draw: (draw.choice((60.0, HOUR)),),
    "fail_over": lambda draw: (draw.choice((5.0, 600.0)),),
    "restart_genius": lambda draw: (),
    "slaves": lambda draw: (draw.random() < 0.5,),
    "drop_job": lambda draw: (draw.randrange(3),),
    "purge_log": lambda draw: (draw.randrange(3),),
    "zombies": lambda draw: (),
    "other_program": lambda draw: (draw.choice(DATES)[:7],),
    "lose_restate": lambda draw: (),
    "start_schedule": lambda draw: (),
    "hold": lambda draw: (draw.choice((None, 6 * HOUR, 30 * HOUR)),),
}
NAMES = tuple(ACTIONS)


def script_of(seed: int) -> Script:
    """Return the script of a seed: one to three closings, and some faults and actions around them."""
    draw = random.Random(seed)
    closes = [(draw.uniform(0, HOUR), "close", (date,)) for date in draw.sample(DATES, draw.choice((1, 1, 1, 2, 3)))]
    actions = [
        (when(draw), name, ACTIONS[name](draw)) for name in draw.choices(NAMES, k=draw.choice((0, 1, 2, 3, 5, 8)))
    ]
    faults = {draw.randrange(1, 60): draw.choice(STEP_FAULTS) for _ in range(draw.choice((0, 0, 1, 1, 2, 4)))}
    jobs = tuple(
        Plan(
            delay=draw.choice((2.0,) * 8 + (5000.0, 40000.0, None)),
            seconds=draw.choice((1.0, 600.0, 7200.0)),
            end=draw.choice(("succeeded",) * 4 + ("failed", "dies", "purged", "forgets", 20807, 20808)),
        )
        for _ in range(3)
    )
    lost = tuple(draw.randrange(1, 4) for _ in range(draw.choice((0, 0, 0, 1))))
    return Script(tuple(sorted(closes + actions, key=lambda one: one[0])), tuple(sorted(faults.items())), jobs, lost)


def when(draw: random.Random) -> float:
    """Return a moment in which something is under way: while closings begin, while jobs run, or after them."""
    return draw.choice((draw.uniform(0, HOUR), draw.uniform(0, HOUR), draw.uniform(0, 4 * HOUR), draw.uniform(0, DAY)))


def run(script: Script) -> str:
    """Run a script; returns the invariant that it breaks, or ""."""
    try:
        World(script).run()
    except Broken as error:
        return str(error)
    except AssertionError as error:
        return f"the model itself: {error}"
    return ""


def shrink(script: Script) -> Script:
    """Return a script that still breaks something and of which no part can be left out."""
    before = None
    while script != before:
        before = script
        # From the last one, so that a number stays the one of its part.
        for name, number in reversed(before.parts()):
            shorter = script.without(name, number)
            if run(shorter):
                script = shorter
    return script
