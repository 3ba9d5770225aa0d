"""Evidence that one of two versions is worse, looked at again and again without being fooled by that.

    errors = Evidence()
    errors.compare(canary=(3, 410), stable=(2, 3890), tolerated=1.5)   # failures and requests since the last look
    errors.value >= 400                                                # wrong in at most 1 of 400 watches

Each look multiplies the evidence by a likelihood ratio that is 1 on average, or less, where the canary is no worse than
is tolerated. So whoever watches for ever, and stops at the worst moment, is fooled with a chance of 1 / evidence at
most (Ville's inequality; Ramdas et al., Game-Theoretic Statistics and Safe Anytime-Valid Inference, Statistical Science
38, 2023). Both versions are compared within a look, so an hour in which everything fails is no evidence against either.
"""

import math

import numpy as np
from scipy import special

# How many times worse than tolerated it may be, in terms of odds: the evidence is the mean of that for each.
_WORSE = np.array([1.25, 1.5, 2.0, 4.0, 8.0, 32.0])
_MOST = 700.0  # whose exponential is a number yet
_LOOKS = 50  # after which a new account of the evidence begins, for a canary that was good before


class Evidence:
    """How many times likelier what was seen is if the canary is worse than if it is just as bad as is tolerated.

    That it was good for hours must not make it hard to see that it is no more. So the evidence is an average of
    accounts that begin at different looks, with weights that add up to 1; one that has not begun is 1.
    """

    def __init__(self) -> None:
        self._logs = np.zeros((0, len(_WORSE)))  # a row for each account
        self._looks = 0

    @property
    def value(self) -> float:
        """1 before anything was seen."""
        number = np.arange(len(self._logs)) + 1.0
        begun = special.logsumexp(self._logs, axis=1) - math.log(len(_WORSE)) - np.log(number * (number + 1))
        waiting = -math.log(len(self._logs) + 1)  # what is left of 1/2 + 1/6 + 1/12 + ...
        return math.exp(min(_MOST, float(special.logsumexp([*begun, waiting]))))

    def compare(self, canary: tuple[int, int], stable: tuple[int, int], tolerated: float) -> None:
        """Failures and requests of both, of the same time; `tolerated`: the canary's odds of failing over stable's.

        Given how many fail of both together, those of the canary follow Fisher's noncentral hypergeometric law.
        """
        failed, of_canary, of_stable = canary[0], canary[1], stable[1]
        failures = failed + stable[0]
        if not (failures and of_canary and of_stable):
            return
        possible = np.arange(max(0, failures - of_stable), min(failures, of_canary) + 1)
        weights = _log_choose(of_canary, possible) + _log_choose(of_stable, failures - possible)
        weights = weights + possible * math.log(tolerated)
        if_worse = special.logsumexp(weights + possible * np.log(_WORSE)[:, None], axis=1)
        self._add(failed * np.log(_WORSE) - if_worse + special.logsumexp(weights))

    def exceed(self, count: int, of: int, tolerated: float) -> None:
        """So many of the canary's answers do something of which a share is `tolerated`."""
        odds = tolerated / (1 - tolerated)
        self._add(count * np.log(_WORSE) + of * np.log((1 + odds) / (1 + odds * _WORSE)))

    def _add(self, logs: np.ndarray) -> None:
        if self._looks % _LOOKS == 0:
            self._logs = np.vstack([self._logs, np.zeros(len(_WORSE))])
        self._looks += 1
        self._logs += logs


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    """Logarithms of the binomial coefficients."""
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
