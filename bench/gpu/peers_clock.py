"""Times of calls on a GPU. Each call's work is captured in a graph, ours and the peers' alike, so that nobody waits for
the host; the graphs run in turn, and a time is the median of its turns."""

import contextlib
import math
import statistics
import time

WARMUPS, TURNS = 3, 15
TURN_SECONDS, MOST_CALLS = 0.02, 20
BUSY_SECONDS = 0.2  # until an idle GPU has its clock back


class Clock:
    """All work is expected on self.stream, from whoever makes the operands on."""

    def __init__(self, torch, device, cuda, copied_bytes=1 << 30, turn_seconds=TURN_SECONDS, busy_seconds=BUSY_SECONDS):
        self.cuda, self.stream = cuda, cuda.Stream(device)
        self.copied_bytes, self.turn_seconds, self.busy_seconds = copied_bytes, turn_seconds, busy_seconds
        self.source = torch.randint(0, 256, (copied_bytes,), dtype=torch.uint8, device=device)
        self.target = torch.empty_like(self.source)
        cuda.synchronize()

    def copy(self, i):
        self.target.copy_(self.source)

    def captured(self, call, calls):
        """Something that repeats calls 0 … calls - 1, and whether it is a graph."""
        for i in range(WARMUPS):
            call(i)
        self.stream.synchronize()
        graph = self.cuda.CUDAGraph()
        try:
            with self.cuda.graph(graph, stream=self.stream):
                for i in range(calls):
                    call(i)
            return graph.replay, True
        except RuntimeError as error:
            print(f"peers: not captured: {error}", flush=True)
            self.cuda.synchronize()
            return lambda: [call(i) for i in range(calls)], False

    def event(self):
        event = self.cuda.Event(enable_timing=True)
        event.record(self.stream)
        return event

    def once(self, call):
        """Seconds of a call, roughly."""
        call(0)
        self.stream.synchronize()
        begin = time.perf_counter()
        for i in range(WARMUPS):
            call(i)
        self.stream.synchronize()
        return (time.perf_counter() - begin) / WARMUPS

    def stay_busy(self):
        end = time.perf_counter() + self.busy_seconds
        while time.perf_counter() < end:
            for i in range(10):
                self.copy(i)
            self.stream.synchronize()

    def medians(self, calls_of, copies):
        """Seconds of a call of each, the bandwidth of copies between them, and who was not captured. A turn takes all
        copies of the weights, so that none of them is still in the cache when its turn comes again."""
        one = max(1e-6, self.once(calls_of["ours"]))
        calls = max(copies, min(MOST_CALLS, math.ceil(self.turn_seconds / one)))
        prepared = {name: (*self.captured(call, calls), calls) for name, call in calls_of.items()}
        prepared["copy"] = (*self.captured(self.copy, 2), 2)
        single = [name for name, (_, graph, _) in prepared.items() if not graph]
        self.stay_busy()
        names = list(prepared)
        spans = {name: [] for name in names}
        for turn in range(-1, TURNS):  # the first is not counted
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                begin = self.event()
                prepared[name][0]()
                end = self.event()
                if turn >= 0:
                    spans[name].append((begin, end))
        self.stream.synchronize()
        seconds = {
            name: statistics.median(begin.elapsed_time(end) for begin, end in spans[name]) / 1e3 / prepared[name][2]
            for name in names
        }
        return seconds, 2 * self.copied_bytes / seconds.pop("copy"), single

    def peak(self, call):
        """Bytes that a call takes beyond those there before it, its results among them."""
        self.stream.synchronize()
        self.cuda.empty_cache()
        self.cuda.reset_peak_memory_stats()
        before = self.cuda.memory_allocated()
        call(0)
        self.stream.synchronize()
        return self.cuda.max_memory_allocated() - before


class HostCuda:
    """What of torch.cuda the above uses, for --check on a CPU: work is done when it is asked for, a graph repeats
    nothing, and nobody counts memory."""

    class Stream:
        def __init__(self, device):
            self.device = device

        def synchronize(self):
            pass

    class Event:
        def __init__(self, enable_timing):
            self.seconds = None

        def record(self, stream):
            self.seconds = time.perf_counter()

        def elapsed_time(self, end):
            return max(1e-6, (end.seconds - self.seconds) * 1e3)

    class CUDAGraph:
        def replay(self):
            pass

    @staticmethod
    def graph(graph, stream):
        return contextlib.nullcontext()

    synchronize = empty_cache = reset_peak_memory_stats = staticmethod(lambda: None)
    memory_allocated = max_memory_allocated = staticmethod(lambda: 0)

    @staticmethod
    def stream(stream):
        return contextlib.nullcontext()
