"""The bytes of request bodies that a process holds at once, over all connections."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

BODIES = 32
"""Budget in bodies of the largest size; a few hundred times as many prompts of ordinary length fit."""


class BodyBudget:
    """The memory for bodies that arrive, and for bodies whose requests are being answered.

    When it is used up, the body that has been arriving longest is given up. So clients that never finish their bodies
    cannot keep others from sending theirs.
    """

    def __init__(self) -> None:
        self.held = 0
        self.arriving: OrderedDict[Share, None] = OrderedDict()

    def share(self, largest: int) -> Share:
        """A share for one body of up to `largest` bytes."""
        return Share(self, largest)


class Share:
    """The bytes of one body, from their arrival until its request has been answered."""

    def __init__(self, budget: BodyBudget, largest: int) -> None:
        self.budget, self.largest, self.size = budget, largest, 0
        self.given_up = False
        self.wake: Callable[[], None] | None = None
        """Tells the reader of the body that it has been given up."""

    def __enter__(self) -> Share:
        self.budget.arriving[self] = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def grow(self, size: int) -> None:
        """`size` bytes have arrived by now. May give up the oldest body, which can be this one."""
        self.budget.held += size - self.size
        self.size = size
        while self.budget.held > BODIES * self.largest and self.budget.arriving:
            next(iter(self.budget.arriving)).give_up()

    def arrived(self) -> None:
        """The body is complete; it is held until its request has been answered."""
        self.budget.arriving.pop(self, None)

    def give_up(self) -> None:
        self.given_up = True
        self.release()
        if self.wake is not None:
            self.wake()

    def release(self) -> None:
        self.arrived()
        self.budget.held -= self.size
        self.size = 0
