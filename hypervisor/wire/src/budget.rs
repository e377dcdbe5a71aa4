// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much one guest, or one kind of event, may put on the shared line.

/// A token bucket over a counter's ticks that counts what it refuses.
///
/// Tokens are bytes of a console or events of a kind. Arithmetic is exact: a token is `ticks_per_second`
/// units of credit, and each tick adds `rate` units, so no rounding ever eats a slow refill.
///
/// Once it is empty, nothing passes until a quarter of it is back: what passes again is told with
/// the number of what did not, and that line is longer than the token that a tick brings.
#[derive(Clone, Copy, Debug)]
pub struct OutputBudget {
    rate_per_second: u64,
    ticks_per_second: u64,
    capacity: u64,
    credit: u64,
    last_ticks: u64,
    suppressed: u64,
    /// Refused something, and has not refilled since.
    dry: bool,
}

impl OutputBudget {
    /// Makes a full bucket that holds `burst` tokens and regains `rate_per_second` of them,
    /// for a counter of `ticks_per_second` that stands at `now_ticks`.
    pub const fn new(
        rate_per_second: u64,
        burst: u64,
        ticks_per_second: u64,
        now_ticks: u64,
    ) -> Self {
        let ticks_per_second = if ticks_per_second == 0 {
            1
        } else {
            ticks_per_second
        };
        let capacity = burst.saturating_mul(ticks_per_second);
        Self {
            rate_per_second,
            ticks_per_second,
            capacity,
            credit: capacity,
            last_ticks: now_ticks,
            suppressed: 0,
            dry: false,
        }
    }

    /// Takes `tokens` if they are there. If they are not, takes none, and counts them as suppressed.
    ///
    /// A counter that stands still or steps back (another PE's reading) adds nothing.
    pub fn take(&mut self, now_ticks: u64, tokens: u64) -> bool {
        if self.is_open(now_ticks, tokens) {
            self.spend(tokens);
            self.dry = false;
            true
        } else {
            self.refuse(tokens);
            false
        }
    }

    /// Says whether `tokens` are there and may be spent.
    pub fn is_open(&mut self, now_ticks: u64, tokens: u64) -> bool {
        self.refill(now_ticks);
        self.credit >= self.threshold(tokens)
    }

    /// Spends tokens that were found to be there.
    pub fn spend(&mut self, tokens: u64) {
        let cost = tokens.saturating_mul(self.ticks_per_second);
        self.credit = self.credit.saturating_sub(cost);
    }

    /// Counts tokens that were asked for in vain.
    pub fn refuse(&mut self, tokens: u64) {
        self.suppressed = self.suppressed.saturating_add(tokens);
        self.dry = true;
    }

    /// Returns how many ticks it takes until so many tokens may be spent.
    pub fn ticks_until_open(&mut self, now_ticks: u64, tokens: u64) -> u64 {
        self.refill(now_ticks);
        let missing = self.threshold(tokens).saturating_sub(self.credit);
        match self.rate_per_second {
            0 if missing > 0 => u64::MAX,
            0 => 0,
            rate => missing.div_ceil(rate),
        }
    }

    /// The credit that so many tokens need.
    fn threshold(&self, tokens: u64) -> u64 {
        let cost = tokens.saturating_mul(self.ticks_per_second);
        if self.dry {
            cost.max(self.capacity / 4)
        } else {
            cost
        }
    }

    fn refill(&mut self, now_ticks: u64) {
        if now_ticks > self.last_ticks {
            let elapsed = now_ticks - self.last_ticks;
            let gained = elapsed.saturating_mul(self.rate_per_second);
            self.credit = self.credit.saturating_add(gained).min(self.capacity);
            self.last_ticks = now_ticks;
            self.dry &= self.credit < self.capacity / 4;
        }
    }

    /// Returns how many tokens were refused since [`Self::take_suppressed`] was last called.
    pub const fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Returns that number, and starts to count anew: it has been told.
    pub fn take_suppressed(&mut self) -> u64 {
        core::mem::take(&mut self.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_counted() {
        let mut budget = OutputBudget::new(10, 3, 1000, 0);
        assert!(budget.take(0, 3));
        assert!(!budget.take(0, 1));
        assert!(!budget.take(99, 1));
        assert!(budget.take(100, 1));
        assert_eq!(budget.take_suppressed(), 2);
        assert_eq!(budget.suppressed(), 0);
        assert!(budget.take(1_000_000, 3));
        assert!(!budget.take(1_000_000, 1));
    }

    #[test]
    fn a_slow_rate_is_not_rounded_away_and_time_may_step_back() {
        let mut budget = OutputBudget::new(1, 1, 1_000_000_000, 5);
        assert!(budget.take(5, 1));
        for now in 6..1006 {
            assert!(!budget.take(now, 1));
        }
        assert!(!budget.take(0, 1));
        assert!(budget.take(1_000_000_005, 1));
    }

    #[test]
    fn regression_a_flood_is_not_told_at_each_token_that_comes_back() {
        let mut budget = OutputBudget::new(100_000, 1000, 1_000_000, 0);
        let mut told = 0;
        for now in 0..100_000 {
            if budget.take(now, 1) && budget.take_suppressed() > 0 {
                told += 1;
            }
        }
        assert!((1..=50).contains(&told), "told {told} times");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow_and_nothing_uncounted(
            rate in 0..1000_u64,
            burst in 0..1000_u64,
            hz in 1..10_000_u64,
            steps in proptest::collection::vec((0..5000_u64, 0..50_u64), 1..200),
        ) {
            let mut budget = OutputBudget::new(rate, burst, hz, 0);
            let (mut now, mut passed, mut asked) = (0, 0, 0);
            for (wait, tokens) in steps {
                now += wait;
                asked += tokens;
                if budget.take(now, tokens) {
                    passed += tokens;
                }
                prop_assert!(passed * hz <= burst * hz + now * rate);
            }
            prop_assert_eq!(passed + budget.suppressed(), asked);
        }
    }
}
