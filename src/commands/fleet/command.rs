//! The command: asks the bridges concurrently, and prints one report on all of them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use futures_util::stream::{self, StreamExt as _};

use super::answers::{FleetReport, GroupReport, NAMED_BRIDGES, SilentBridge, groups};
use super::asking::ask;
use super::joining::{Fleet, short};
use super::memory::FleetMemory;
use super::sources::BridgeSource;
use super::text::{LISTED, describe, more};
use crate::commands::json::print_json;
use crate::commands::status::Unless;
use crate::endpoint::ListenAddr;
use crate::moment::Moment;
use crate::printable::printable;

/// Maximum number of bridges that are asked at the same time.
const BRIDGES_AT_ONCE: usize = 64;

/// Options of `pontoon fleet`.
#[derive(Debug)]
pub struct FleetOptions {
    /// Where to find the bridges.
    pub sources: Vec<BridgeSource>,
    /// Number of bridges that must answer, over all groups.
    pub expect: Option<usize>,
    /// State file that stores which bridges have answered.
    pub memory: Option<PathBuf>,
    /// Bridges to remove from the state file.
    pub forget: Vec<String>,
    /// Timeout for the answer of a bridge.
    pub timeout: Duration,
    /// Write JSON.
    pub json: bool,
    /// The state that every group must have.
    pub unless: Option<Unless>,
}

/// Asks the bridges, and prints a report on each group. Fails unless every group has the state that `unless` names.
pub fn run(options: &FleetOptions) -> anyhow::Result<()> {
    let mut memory = options.memory.as_deref().map(FleetMemory::open).transpose()?;
    let mut sources = options.sources.clone();
    if let Some(memory) = &mut memory {
        for bridge in &options.forget {
            if !memory.forget(bridge) {
                bail!("--forget {bridge}: the state file (--state) does not name this bridge");
            }
        }
        sources.extend(memory.bridges());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(ask_all(options, &sources, memory.as_mut()));
    // A lookup at a name server that does not answer may still occupy a thread. Do not wait for it.
    runtime.shutdown_background();
    if options.json {
        print_json(&report);
    } else {
        say!("{}", describe(&report, Moment::now()));
    }
    if let (Some(memory), Some(path)) = (&memory, &options.memory) {
        memory.save(path)?;
    }
    if report.groups.is_empty() {
        bail!("no bridge answered. Check that these are the --admin addresses of running bridges");
    }
    let Some(unless) = options.unless else { return Ok(()) };
    let is_so = |group: &GroupReport| match unless {
        Unless::TlsOnly => group.uses_only_tls.answer,
        Unless::Ready => group.safe_to_require_tls.answer,
        Unless::Unused => !group.bridge_needed.answer,
    };
    let failing: Vec<&str> =
        report.groups.iter().filter(|group| !is_so(group)).map(|group| &*group.group).collect();
    if failing.is_empty() {
        return Ok(());
    }
    let named = failing.iter().take(LISTED).copied().collect::<Vec<_>>();
    let rest = more(failing.len() - named.len());
    bail!("{}: {}{rest}", unless.refusal(), printable(&named.join(", ")))
}

async fn ask_all(
    options: &FleetOptions,
    sources: &[BridgeSource],
    mut memory: Option<&mut FleetMemory>,
) -> FleetReport {
    let time = options.timeout;
    let (mut silent, mut addresses, mut known) = (Vec::new(), Vec::<ListenAddr>::new(), HashSet::new());
    let found = sources.iter().map(|source| source.addresses(time));
    let found: Vec<_> = stream::iter(found).buffered(BRIDGES_AT_ONCE).collect().await;
    for (source, found) in sources.iter().zip(found) {
        match found {
            Ok(found) => {
                addresses.extend(found.into_iter().filter(|address| known.insert(address.to_string())));
            }
            Err(problem) => silent.push(SilentBridge { bridge: source.to_string(), problem }),
        }
    }
    let asked_at = Moment::now();
    let mut fleet = Fleet::default();
    let mut mute = Vec::new();
    let asked = addresses.iter().enumerate().map(|(order, address)| async move {
        let answer = ask(address, time).await;
        (order, address.to_string(), answer)
    });
    let mut asked = stream::iter(asked).buffer_unordered(BRIDGES_AT_ONCE);
    while let Some((order, bridge, answer)) = asked.next().await {
        match answer {
            Ok(answer) => {
                fleet.add(order, &bridge, answer);
                if let Some(memory) = &mut memory {
                    memory.note(bridge, asked_at);
                }
            }
            Err(problem) => mute.push((order, SilentBridge { bridge, problem: short(&problem) })),
        }
    }
    mute.sort_unstable_by_key(|(order, _)| *order);
    let answered = addresses.len() - mute.len();
    silent.extend(mute.into_iter().map(|(_, silent)| silent));
    let mut missing = Vec::new();
    if !silent.is_empty() {
        let named = silent.iter().take(NAMED_BRIDGES).map(|silent| silent.bridge.clone()).collect::<Vec<_>>();
        missing.push(format!(
            "no usable answer from {}{}",
            named.join(", "),
            more(silent.len() - named.len())
        ));
    }
    if let Some(expected) = options.expect.filter(|expected| answered < *expected) {
        missing.push(format!("{answered} of {expected} expected bridges answered (--expect)"));
    }
    let as_of = format!(
        "{asked_at}, bridges asked: {}, answered: {answered}{}",
        addresses.len(),
        options.expect.map(|count| format!(", expected: {count}")).unwrap_or_default()
    );
    FleetReport {
        asked_at,
        bridges_expected: options.expect,
        bridges_asked: addresses.len(),
        bridges_answered: answered,
        silent,
        groups: groups(&mut fleet, &missing, &as_of),
    }
}
