"""What a reader does, in a process of its own: prints one line of JSON.

    load.py random FILE ORIGINAL COUNT SIZE JOBS SEED
    load.py together ORIGINALS-OR-DASH FILE[:START:END]...

`random` reads COUNT pieces of SIZE bytes at random offsets (multiples of 4 KiB) from JOBS threads
and compares them with the original. `together` reads all parts at once, each from its start to
its end by a thread of its own, and tells how far each was when the first one ended.
"""

import json
import os
import random
import sys
import threading
import time

PIECE = 1 << 20


def read_random(path, original, count, size, jobs, seed):
    """Random reads from several threads."""
    source = os.open(original, os.O_RDONLY)
    file = os.open(path, os.O_RDONLY)
    pages = max((os.fstat(source).st_size - size) // 4096, 1)
    draw = random.Random(seed)
    offsets = [draw.randrange(pages) * 4096 for _ in range(count)]
    taken, latencies, wrong = iter(list(enumerate(offsets))), [0.0] * count, []
    lock = threading.Lock()
    pieces = [b""] * count

    def work():
        while True:
            with lock:
                number, offset = next(taken, (None, None))
            if number is None:
                return
            start = time.monotonic()
            pieces[number] = os.pread(file, size, offset)
            latencies[number] = time.monotonic() - start

    seconds, cpu = timed([threading.Thread(target=work) for _ in range(jobs)])
    for offset, piece in zip(offsets, pieces, strict=True):
        if piece != os.pread(source, size, offset):
            wrong.append(offset)
    return {"seconds": seconds, "cpu": cpu, "latencies": latencies, "wrong": len(wrong)}


def read_together(originals, parts):
    """Sequential reads side by side."""
    progress = [0] * len(parts)
    at_first_end, ends, wrong = [], [0.0] * len(parts), [0] * len(parts)
    begin = time.monotonic()

    def work(number, path, start, end, original):
        file = os.open(path, os.O_RDONLY)
        # A mount may learn the size only now.
        end = os.fstat(file).st_size if end is None else end
        source = original and os.open(original, os.O_RDONLY)
        buffer = bytearray(PIECE)
        at = start
        while at < end:
            got = os.preadv(file, [memoryview(buffer)[: end - at]], at)
            if got == 0:
                wrong[number] += 1
                break
            if source and os.pread(source, got, at) != buffer[:got]:
                wrong[number] += 1
            at += got
            progress[number] = at - start
        if not at_first_end:
            at_first_end.extend(progress)
        ends[number] = time.monotonic() - begin

    threads = []
    for number, part in enumerate(parts):
        path, *bounds = part.rsplit(":", 2)
        start, end = map(int, bounds) if bounds else (0, None)
        original = originals[number] if originals else None
        threads.append(threading.Thread(target=work, args=(number, path, start, end, original)))
    seconds, cpu = timed(threads)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "bytes": sum(progress),
        "ends": ends,
        "at_first_end": at_first_end,
        "wrong": sum(wrong),
    }


def timed(threads):
    """Seconds of the clock and of the processor that the threads take."""
    before, start = time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - start, time.process_time() - before


def main():
    """Does what the command line asks."""
    what, *words = sys.argv[1:]
    if what == "random":
        path, original, *numbers = words
        answer = read_random(path, original, *map(int, numbers))
    else:
        originals, *parts = words
        answer = read_together(originals.split(",") if originals != "-" else None, parts)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
