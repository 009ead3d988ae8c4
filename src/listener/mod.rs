//! Listeners: bind TCP and Unix sockets, accept clients within the route's limits, and recover from a lack of file descriptors.
//!
//! The caller serves the accepted clients.

mod admission;
mod bound;
mod descriptors;
mod handover;
mod holder;
mod inherited;
mod settings;
mod socket;
mod socket_file;

pub use self::admission::{Admission, ClientPermit, Clients, Terms};
pub use self::bound::{Accepting, HANDOVER, Listener};
pub use self::descriptors::{DESCRIPTORS_OF_A_CLIENT, DescriptorBudget, OTHER_DESCRIPTORS};
pub use self::holder::Holder;
pub use self::inherited::{InheritError, Inherited};
pub use self::settings::Settings;
pub use self::socket::BindError;
