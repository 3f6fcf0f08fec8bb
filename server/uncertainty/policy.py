"""What happens to an answer whose risk is above a limit. Pure: no vLLM, no HTTP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it imports torch, which takes a second
    from server.uncertainty.calibration import Calibration

OnDoubt = Literal["flag", "replace", "refuse"]

DOUBT_TEXT = "I am not sure enough to answer that."


@dataclass(frozen=True)
class DoubtPolicy:
    """The server's default, or that of one request.

    `flag` delivers every answer. `replace` gives `text` in the place of an answer with a risk above the limit, and
    `refuse` an error if all choices are such. An answer without a risk is delivered.
    """

    on_doubt: OnDoubt = "flag"
    text: str = DOUBT_TEXT
    above: float | None = None
    """The limit; None for that of the calibration."""

    @property
    def withholds(self) -> bool:
        return self.on_doubt != "flag"

    def applied(self, on_doubt: OnDoubt | None, above: float | None, calibration: Calibration | None) -> DoubtPolicy:
        """The policy for a request with these options (None: not given) to a model with this calibration."""
        own = calibration.abstain["above"] if calibration and calibration.abstain else None
        limit = next((limit for limit in (above, self.above, own) if limit is not None), None)
        return replace(self, on_doubt=on_doubt or self.on_doubt, above=limit)
