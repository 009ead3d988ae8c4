//! Logging: format, level, the subscriber that obeys them.

mod events;
mod json;
mod log;
mod throttle;

pub use self::events::{Event, recent};
pub use self::log::{AlreadySet, Format, Level, SLOW, Settings, init, set_level};
pub use self::throttle::Throttle;
