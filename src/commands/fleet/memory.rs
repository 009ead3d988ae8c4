//! Which bridges have answered before, in a file: one that is missing later is a no.

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
    "--state: {} {problem}: restore it, or remove it and name every bridge again, with --expect",
    path.display()
)]
pub struct BadFleetState {
    path: PathBuf,
    problem: String,
}

/// Of the file's form.
const FLEET_VERSION: u32 = 1;

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetMemory {
    version: u32,
    /// By admin address: when it answered last.
    bridges: BTreeMap<String, Moment>,
}

impl FleetMemory {
    /// Reads the file. One that does not exist yet is an empty one; one that is damaged is not.
    pub(super) fn open(path: &Path) -> Result<Self, BadFleetState> {
        let bad = |problem: String| BadFleetState { path: path.to_owned(), problem };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { version: FLEET_VERSION, bridges: BTreeMap::new() });
            }
            text => text.map_err(|error| bad(format!("cannot be read: {error}")))?,
        };
        let memory: Self = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("is no state file of `pontoon fleet`: {error}")))?;
        if memory.version != FLEET_VERSION {
            let version = memory.version;
            return Err(bad(format!(
                "is of version {version}, and this pontoon knows version {FLEET_VERSION}"
            )));
        }
        for bridge in memory.bridges.keys() {
            bridge
                .parse::<BridgeSource>()
                .map_err(|error| bad(format!("names the bridge {bridge:?}: {error}")))?;
        }
        Ok(memory)
    }

    /// The bridges that have answered before.
    pub(super) fn bridges(&self) -> impl Iterator<Item = BridgeSource> {
        // `open` has parsed each of them.
        self.bridges.keys().filter_map(|bridge| bridge.parse().ok())
    }

    /// No longer expects a bridge. Whether it did.
    pub(super) fn forget(&mut self, bridge: &str) -> bool {
        self.bridges.remove(bridge).is_some()
    }

    /// Remembers that a bridge answered.
    pub(super) fn note(&mut self, bridge: String, now: Moment) {
        self.bridges.insert(bridge, now);
    }

    /// Replaces the file as a whole.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        replace(path, &text).with_context(|| format!("{} cannot be written", path.display()))
    }
}
