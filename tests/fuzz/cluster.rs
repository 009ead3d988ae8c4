//! The part of `src/cluster` that does no I/O, by path.

#[path = "../../src/cluster/line.rs"]
mod line;
#[path = "../../src/cluster/map.rs"]
mod map;
#[path = "../../src/cluster/node.rs"]
mod node;
#[path = "../../src/cluster/rewrite/mod.rs"]
mod rewrite;
#[path = "../../src/cluster/told.rs"]
mod told;
#[path = "../../src/cluster/topology.rs"]
mod topology;

pub use self::map::NodeMap;
pub use self::rewrite::Rewriter;
pub use self::topology::Topology;
