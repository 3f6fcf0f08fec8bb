"""The published EPR and WEPR scores (Moslonka et al. 2026, doi 10.1007/978-3-032-21289-4_8), as the package artefactual
2026.9.1 computes them: what a client can know that sees the 15 likeliest words of every token, as OpenAI's API returns
them.

A token's k-th likeliest word contributes s_k = -p_k ln p_k. EPR is the mean over the answer's tokens of sum_k s_k. WEPR
reads the mean and the maximum of every s_k over the answer's tokens. Either is the input of a logistic regression
without a penalty. `make parity` holds these numbers to the package's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RANKS = 15


def wepr_features(log_probs: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The mean and the maximum of every rank's contribution: log-probabilities [tokens, words], at least RANKS words of
    each token, in any order -> [2 RANKS]."""
    ranked = -np.sort(-log_probs.astype(np.float64), axis=-1)[:, :RANKS]
    contributions = -np.exp(ranked) * ranked
    return np.concatenate([contributions.mean(axis=0), contributions.max(axis=0)])


def epr(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """EPR of WEPR's features: [..., 2 RANKS] -> [...]."""
    found: npt.NDArray[np.float64] = features[..., :RANKS].sum(axis=-1, dtype=np.float64)
    return found
