#!/usr/bin/env bash
# neuroglancer 2.41.2: `retry_txn` makes one attempt, however many retries it is asked for.
#
# Input: a viewer whose position is set by a script with `retry_txn(..., retries=10)`, while somebody
# else, such as the browser in which the view is moved, changes the layout once in between.
# Seen: the change of the script is lost with ConcurrentModificationError after its first attempt. A
# second one would have succeeded, as the same loop written by hand shows. The handler of the conflict
# raises it again in every case, the last or not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q neuroglancer==2.41.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import neuroglancer
from neuroglancer.trackable_state import ConcurrentModificationError, TrackableState
from neuroglancer.viewer_state import ViewerState


def attempt(state, calls):
    def change(new):
        calls.append(1)
        if len(calls) == 1:  # the browser comes in between, once
            with state.txn() as other:
                other.layout = "xy"
        new.position = [10, 20, 30]

    return change


state, calls, raised = TrackableState(ViewerState), [], False
try:
    state.retry_txn(attempt(state, calls), retries=10)
except ConcurrentModificationError:
    raised = True
print(f"retry_txn with 10 retries: {len(calls)} attempt, raised {raised},"
      f" position {state.state.position}")

other, tries = TrackableState(ViewerState), []
change = attempt(other, tries)
for _ in range(10):
    try:
        with other.txn(lock=False) as new:
            change(new)
        break
    except ConcurrentModificationError:
        pass
print(f"the same by hand: {len(tries)} attempts, position {list(other.state.position)}")
assert raised and len(calls) == 1, "this has changed"
assert len(tries) == 2 and list(other.state.position) == [10, 20, 30]
P
