"""A campaign against runs on disk: trainings are killed, files damaged, inputs garbled.

    make campaign MINUTES=30
    python -m campaign --minutes 30 --seed 1 --output campaign.json    # in tests/
    python -m campaign --only kills.train.twice --number 7 --seed 1    # one case again

Every case runs in a process of its own, most of them forks, and ends well if

- a killed training, started again, has the same files with the same numbers in the end;
- a damaged file is an error in one line that names it, is made anew, or is read as it was;
- nothing hangs, nothing is written outside the case's folder, and nothing is run from a file.

`turns.py` has the table of turns, and `docs/reliability.md` what each of them does.
"""
