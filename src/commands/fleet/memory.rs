//! Stores in a file which bridges have answered, so that a bridge that is missing later makes the verdict a no.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::sources::BridgeSource;
use crate::moment::Moment;
use crate::state::replace;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "--state: {} {problem}: restore the file, or remove it and name every bridge again, with --expect",
    path.display()
)]
pub struct BadFleetState {
    path: PathBuf,
    problem: String,
}

/// Version of the file's format.
const FLEET_VERSION: u32 = 1;

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetMemory {
    version: u32,
    /// The time of each bridge's last answer, by admin address.
    bridges: BTreeMap<String, Moment>,
}

impl FleetMemory {
    /// Reads the file. A file that does not exist counts as empty, but a damaged one is an error.
    pub(super) fn open(path: &Path) -> Result<Self, BadFleetState> {
        let bad = |problem: String| BadFleetState { path: path.to_owned(), problem };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { version: FLEET_VERSION, bridges: BTreeMap::new() });
            }
            text => text.map_err(|error| bad(format!("cannot be read: {error}")))?,
        };
        let memory: Self = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("is not a state file of `pontoon fleet`: {error}")))?;
        if memory.version != FLEET_VERSION {
            let version = memory.version;
            return Err(bad(format!(
                "has version {version}, but this pontoon reads version {FLEET_VERSION}"
            )));
        }
        for bridge in memory.bridges.keys() {
            bridge
                .parse::<BridgeSource>()
                .map_err(|error| bad(format!("names the bridge \"{bridge}\": {error}")))?;
        }
        Ok(memory)
    }

    /// Returns the bridges that have answered before.
    pub(super) fn bridges(&self) -> impl Iterator<Item = BridgeSource> {
        // `open` has parsed each of them.
        self.bridges.keys().filter_map(|bridge| bridge.parse().ok())
    }

    /// Removes a bridge. Returns false if the file does not name it.
    pub(super) fn forget(&mut self, bridge: &str) -> bool {
        self.bridges.remove(bridge).is_some()
    }

    /// Stores that a bridge answered at this time.
    pub(super) fn note(&mut self, bridge: String, now: Moment) {
        self.bridges.insert(bridge, now);
    }

    /// Writes the file, atomically.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        replace(path, &text).with_context(|| format!("{} cannot be written", path.display()))
    }
}
