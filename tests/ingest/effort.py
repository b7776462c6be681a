"""What a piece of work costs the interpreter, counted: the same on every machine, busy or not."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any


def events(work: Callable[[], object]) -> Counter[str]:
    """How many calls of Python and of C functions, and how many instructions, a piece of work makes."""
    counted: Counter[str] = Counter()

    def profile(_: FrameType, event: str, __: object) -> None:
        if event in {"call", "c_call"}:
            counted[event] += 1

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401  # what a trace function returns
        frame.f_trace_opcodes = True
        counted[event] += event == "opcode"
        return trace

    traced, profiled = sys.gettrace(), sys.getprofile()
    gc.disable()
    try:
        sys.setprofile(profile)
        work()
        sys.setprofile(None)
        sys.settrace(trace)
        work()
    finally:
        sys.settrace(traced)
        sys.setprofile(profiled)
        gc.enable()
    return counted
