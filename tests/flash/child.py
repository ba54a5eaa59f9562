"""A process that carries out jobs on a real device, each in a fork of its own that can be traced and killed.

Reads lines ``VERB DEVICE BACKUPS STOP``; answers the pid of the fork (which waits in SIGSTOP if STOP is 1), then its
exit code (negative: killed by that signal).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

from miniscope_xr.errors import MiniscopeError
from miniscope_xr.tools.flash import jobs, operation
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import InterruptedWriteError
from miniscope_xr.tools.flash.target.open import open_target


def carry_out(job: jobs.CardJob, device: str, backups: str) -> int:
    try:
        with open_target(identify(device), write=True) as target:
            jobs.verify_shown(target, job.seen)
            jobs.carry_out(job, target, Path(backups))
    except InterruptedWriteError as error:
        return error.exit_code
    except (MiniscopeError, OSError):
        return 5
    return 0


def main() -> None:
    jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
    operation.STEP = 64 << 10
    for line in sys.stdin:
        verb, device, backups, stop = line.split()
        pid = os.fork()
        if not pid:
            if stop == "1":
                os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(carry_out(jobs[verb], device, backups))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
