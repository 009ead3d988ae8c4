//! How many connections to keep ready, computed from how clients come and go. It has no clock: the caller reports how time passes.

/// Number of seconds over which the smallest number of idle connections shows how many no client needed.
pub(super) const DEMAND_WINDOW: u64 = 10;

/// A hundredth of the target is forgotten each second, half of it in about a minute.
const FORGOTTEN: u64 = 100;

/// Demand is kept in thousandths of a connection, so that it can decay slowly.
const SCALE: u64 = 1000;

/// The number of connections to keep ready, between a minimum and a maximum.
#[derive(Debug)]
pub(super) struct Demand {
    min: usize,
    max: usize,
    /// The highest recent number of clients that came in one second beyond those that left. Scaled, and it decays.
    target: u64,
    leased: usize,
    returned: usize,
    /// Connections returned in the last second. About as many are expected to return in this second.
    returning: usize,
    /// The smallest number of idle connections in this window.
    low_water: usize,
    seconds: u64,
}

/// How the demand goes on while no client comes or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trend {
    /// Clients came or left a moment ago.
    Moving,
    /// It falls slowly, or more connections are ready than needed.
    Fading,
    /// It stays the same.
    Settled,
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

    /// The number of connections that should be ready or being dialled.
    pub(super) fn wanted(&self) -> usize {
        self.target().saturating_sub(self.returning).clamp(self.min, self.max)
    }

    /// A client came.
    pub(super) fn leased(&mut self) {
        self.leased += 1;
    }

    /// Records that a connection was taken and `idle` are left.
    pub(super) fn left(&mut self, idle: usize) {
        self.low_water = self.low_water.min(idle);
    }

    /// A client's connection was returned.
    pub(super) fn returned(&mut self) {
        self.returned += 1;
    }

    /// Ends a second, or several in which no client came or left. Returns how many of the `idle` connections to close: half of those that no
    /// client needed in the window, because a lull may be short.
    pub(super) fn pass(&mut self, seconds: u64, idle: usize) -> usize {
        self.returning = std::mem::take(&mut self.returned);
        let came = std::mem::take(&mut self.leased).saturating_sub(self.returning);
        let came = came.clamp(self.min, self.max) as u64 * SCALE;
        for _ in 0..seconds {
            self.target = (self.target - self.target.div_ceil(FORGOTTEN)).max(came);
        }
        self.low_water = self.low_water.min(idle);
        self.seconds += seconds;
        if self.seconds < DEMAND_WINDOW {
            return 0;
        }
        self.seconds = 0;
        let unneeded = std::mem::replace(&mut self.low_water, idle).saturating_sub(self.target());
        unneeded.div_ceil(2)
    }

    /// How the demand goes on while `idle` connections are ready and no client comes or leaves.
    pub(super) fn trend(&self, idle: usize) -> Trend {
        if self.leased > 0 || self.returned > 0 || self.returning > 0 {
            Trend::Moving
        } else if self.target > self.min as u64 * SCALE || idle > self.target() {
            Trend::Fading
        } else {
            Trend::Settled
        }
    }

    fn target(&self) -> usize {
        self.target.div_ceil(SCALE) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_follows_arrivals_within_bounds_and_decays_slowly() {
        let mut demand = Demand::new(2, 40);
        assert_eq!(demand.wanted(), 2);
        for _ in 0..10 {
            demand.leased();
        }
        demand.pass(1, 0);
        assert_eq!(demand.wanted(), 10);
        for _ in 0..60 {
            demand.pass(1, 0);
        }
        assert_eq!(demand.wanted(), 6);
        for _ in 0..1000 {
            demand.leased();
        }
        demand.pass(1, 0);
        assert_eq!(demand.wanted(), 40);
        for _ in 0..1000 {
            demand.pass(1, 0);
        }
        assert_eq!(demand.wanted(), 2);
    }

    #[test]
    fn demand_settles_some_time_after_the_last_client() {
        let mut demand = Demand::new(1, 40);
        assert_eq!((demand.trend(1), demand.trend(2)), (Trend::Settled, Trend::Fading));
        for _ in 0..10 {
            demand.leased();
            assert_eq!(demand.trend(1), Trend::Moving);
        }
        demand.pass(1, 10);
        demand.returned();
        assert_eq!(demand.trend(1), Trend::Moving);
        let mut idle = 20;
        demand.pass(1, idle);
        demand.pass(1, idle);
        assert_eq!(demand.trend(1), Trend::Fading);
        let windows = (1..60).find(|_| {
            idle -= demand.pass(DEMAND_WINDOW, idle);
            demand.trend(idle) == Trend::Settled
        });
        assert!(windows.is_some());
        assert_eq!((demand.wanted(), idle), (1, 1));
    }

    #[test]
    fn target_decays_to_zero_if_the_minimum_is_zero() {
        let mut demand = Demand::new(0, 40);
        for _ in 0..10 {
            demand.leased();
        }
        demand.pass(1, 0);
        assert_eq!(demand.wanted(), 10);
        let seconds = (1..600).find(|_| {
            demand.pass(1, 0);
            demand.wanted() == 0
        });
        assert!(seconds.is_some());
    }

    #[test]
    fn returned_connections_need_no_replacement() {
        let mut demand = Demand::new(1, 40);
        for _ in 0..500 {
            demand.leased();
            demand.left(3);
            demand.returned();
        }
        demand.pass(1, 4);
        assert_eq!(demand.wanted(), 1);
    }

    #[test]
    fn only_connections_unused_for_a_whole_window_are_surplus() {
        let mut demand = Demand::new(1, 40);
        for second in 0..30 {
            // Sixteen idle, of which a burst needs twelve in every window.
            if second % 5 == 0 {
                for idle in (4..16).rev() {
                    demand.left(idle);
                }
            }
            let surplus = demand.pass(1, 16);
            assert_eq!(surplus, if second % 10 == 9 { 2 } else { 0 }, "second {second}");
        }
    }
}
