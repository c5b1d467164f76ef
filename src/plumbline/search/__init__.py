"""Searches: studies of many trials, the workers that do them, and what they taught.

`start` is what -m does, `request` reads what it asks, `study` is what there is; `worker`, `queue` and `trial` do it,
`finish` and `postmortem` say what came out.
"""

import warnings

warnings.filterwarnings("ignore", message=".* is (an )?experimental")  # Optuna says so of parts that are years old
