"""Throughput: how fast, measured so that it can be believed.

Run by `pytest --benchmark`, by `ddpm-bench throughput` (which makes a record of it) and by `ddpm-bench run`.
Plain `pytest` runs each body once at a tiny size, untimed.

**Only what is right is timed.** Each case is called once and its result checked, in the process, at the shape and
in the dtype that are then measured (`verification`). A case that cannot run here, or is wrong, is a row with its reason.

**Units.** One table fits all sizes because time is per element. Two more columns say where the limit is:

    bytes/element   what the way of computing moves: every tensor read or written counts once          (1)
    copy fraction   (bytes that *any* way must move / time) / (bytes of a copy / time of the copy)     (2)

Any way of noising a batch must read x_0 and write x_t and ε: 12 bytes an element in float32. A copy reads 4 and writes
4; it is timed in the same run, at the same size, with as many threads. A fraction of 1 is the speed of memory.

**Time.** The median over rounds; raw rounds are kept. Compilation is a column of its own, with a cold cache. A fixed
piece of work is timed before and after everything (`bench.measure.throughput.calibration`): where it drifts, so did the machine.
"""
