"""Time several functions against each other: in turns, each the median of many runs, with its quartiles.

On one thread of a CPU it is the thread's own processor time that counts, which other programs delay least; on more
threads, or on a GPU, the time that passes.
"""

import statistics
import time

import torch


def clock(device, threads):
    """Seconds, and what waits for the work that was given."""
    if device.type == "cuda":
        return time.perf_counter, lambda: torch.cuda.synchronize(device)
    return (time.thread_time if threads == 1 else time.perf_counter), lambda: None


def works(run):
    """None, or why it does not run."""
    try:
        run()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def interleaved(functions, device, threads, seconds=10.0, most=51, least=3):
    """Milliseconds of each function by name: median, first and third quartile, and the number of runs.

    Runs go on for about so many ``seconds``, at least ``least`` and at most ``most`` of each.
    """
    now, wait = clock(device, threads)
    for function in functions.values():
        function()
    taken = {name: [] for name in functions}
    start, turns = time.perf_counter(), 0
    while turns < least or (turns < most and time.perf_counter() - start < seconds):
        for name, function in functions.items():
            wait()
            before = now()
            function()
            wait()
            taken[name].append(1e3 * (now() - before))
        turns += 1
    return {name: {"ms": _round(times), "quartiles": _quartiles(times), "runs": turns} for name, times in taken.items()}


def _round(times):
    return round(statistics.median(times), 3)


def _quartiles(times):
    first, _, third = statistics.quantiles(times, n=4)
    return [round(first, 3), round(third, 3)]
