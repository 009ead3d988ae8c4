//! How many connections to keep ready, from how clients came and went. No clock: somebody says when a second is over.

/// Seconds over which the smallest number of idle connections tells what nobody needed.
const DEMAND_WINDOW: u32 = 10;

/// A hundredth of an old demand is forgotten each second: half of it in about a minute.
const FORGOTTEN: u64 = 100;

/// Demand is kept in thousandths of a connection, so that it can decay slowly.
const SCALE: u64 = 1000;

/// Between a floor and a ceiling, as clients arrive.
#[derive(Debug)]
pub(super) struct Demand {
    min: usize,
    max: usize,
    /// Clients that came in a second beyond those that left, of late; scaled.
    target: u64,
    leased: usize,
    returned: usize,
    /// Those of the last second: they will come back in this one, too.
    returning: usize,
    /// The fewest that were idle in this window.
    low_water: usize,
    seconds: u32,
}

impl Demand {
    pub(super) fn new(min: usize, max: usize) -> Self {
        Self {
            min,
            max,
            target: min as u64 * SCALE,
            leased: 0,
            returned: 0,
            returning: 0,
            low_water: usize::MAX,
            seconds: 0,
        }
    }

    /// So many must be there, or be dialled.
    pub(super) fn wanted(&self) -> usize {
        self.target().saturating_sub(self.returning).clamp(self.min, self.max)
    }

    /// A client came.
    pub(super) fn leased(&mut self) {
        self.leased += 1;
    }

    /// One was taken, and left so many idle.
    pub(super) fn left(&mut self, idle: usize) {
        self.low_water = self.low_water.min(idle);
    }

    /// A client's connection came back.
    pub(super) fn returned(&mut self) {
        self.returned += 1;
    }

    /// A second is over. Returns how many of the `idle` can go: half of what nobody needed in the window, so that a
    /// lull is not taken for an end.
    pub(super) fn second(&mut self, idle: usize) -> usize {
        self.returning = std::mem::take(&mut self.returned);
        let came = std::mem::take(&mut self.leased).saturating_sub(self.returning);
        let came = came.clamp(self.min, self.max) as u64 * SCALE;
        self.target = (self.target - self.target.div_ceil(FORGOTTEN)).max(came);
        self.low_water = self.low_water.min(idle);
        self.seconds += 1;
        if self.seconds < DEMAND_WINDOW {
            return 0;
        }
        self.seconds = 0;
        let unneeded = std::mem::replace(&mut self.low_water, idle).saturating_sub(self.target());
        unneeded.div_ceil(2)
    }

    fn target(&self) -> usize {
        self.target.div_ceil(SCALE) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_arrivals_within_its_bounds_and_forgets_them_slowly() {
        let mut demand = Demand::new(2, 40);
        assert_eq!(demand.wanted(), 2);
        for _ in 0..10 {
            demand.leased();
        }
        demand.second(0);
        assert_eq!(demand.wanted(), 10);
        for _ in 0..60 {
            demand.second(0);
        }
        assert_eq!(demand.wanted(), 6);
        for _ in 0..1000 {
            demand.leased();
        }
        demand.second(0);
        assert_eq!(demand.wanted(), 40);
        for _ in 0..1000 {
            demand.second(0);
        }
        assert_eq!(demand.wanted(), 2);
    }

    #[test]
    fn where_none_are_kept_when_no_client_comes_all_are_forgotten_in_the_end() {
        let mut demand = Demand::new(0, 40);
        for _ in 0..10 {
            demand.leased();
        }
        demand.second(0);
        assert_eq!(demand.wanted(), 10);
        let seconds = (1..600).find(|_| {
            demand.second(0);
            demand.wanted() == 0
        });
        assert!(seconds.is_some());
    }

    #[test]
    fn connections_that_come_back_need_no_replacement() {
        let mut demand = Demand::new(1, 40);
        for _ in 0..500 {
            demand.leased();
            demand.left(3);
            demand.returned();
        }
        demand.second(4);
        assert_eq!(demand.wanted(), 1);
    }

    #[test]
    fn only_what_nobody_needed_for_a_while_can_go() {
        let mut demand = Demand::new(1, 40);
        for second in 0..30 {
            // Sixteen idle, of which a burst needs twelve in every window.
            if second % 5 == 0 {
                for idle in (4..16).rev() {
                    demand.left(idle);
                }
            }
            let surplus = demand.second(16);
            assert_eq!(surplus, if second % 10 == 9 { 2 } else { 0 }, "second {second}");
        }
    }
}
