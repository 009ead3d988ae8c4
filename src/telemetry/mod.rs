//! Logging: format, level, the subscriber that obeys them.

mod events;
mod json;
mod log;
mod throttle;

pub use self::events::{LoggedEvent, recent};
pub use self::log::{AlreadySet, Format, LogFilter, SLOW, Settings, init, set_level};
pub use self::throttle::Throttle;
