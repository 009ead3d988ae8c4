//! Formats the fleet's report for people.

use super::answers::{FleetReport, GroupReport, NeedingProgram};
use crate::commands::colour::{QUESTIONS, with_coloured_answers, yes_or_no};
use crate::commands::status::{last_seen, library};
use crate::commands::table::Table;
use crate::commands::words::how_many_are_safe;
use crate::commands::wrap::wrapped;
use crate::counted::counted;
use crate::group::verdict::Verdict;
use crate::moment::Moment;
use crate::printable::printable;

/// Maximum number of lines of a list.
pub(super) const LISTED: usize = 10;

/// Maximum number of lines of the work list.
const LISTED_PROGRAMS: usize = 50;

/// Maximum number of groups that are shown. A fleet has few.
const LISTED_GROUPS: usize = 50;

/// Formats the whole report.
pub(super) fn describe(report: &FleetReport, now: Moment) -> String {
    let mut parts = vec![bridges(report)];
    for group in report.groups.iter().take(LISTED_GROUPS) {
        parts.push(wrapped(&with_coloured_answers(&group.ticket)));
        if !group.clients.is_empty() {
            parts.push(work_list(group, now));
        }
    }
    let more = report.groups.len().saturating_sub(LISTED_GROUPS);
    if more > 0 {
        parts.push(format!("({} not shown: see --json)", counted(more, "group")));
    }
    if !report.groups.is_empty() {
        let answers = report.groups.iter().map(|group| group.safe_to_require_tls.answer);
        parts.push(how_many_are_safe("group", answers));
    }
    parts.join("\n\n")
}

fn bridges(report: &FleetReport) -> String {
    let expected = report.bridges_expected.map(|count| format!(", expected: {count}")).unwrap_or_default();
    let mut lines = vec![format!(
        "bridges asked: {}, answered: {}{expected}",
        report.bridges_asked, report.bridges_answered
    )];
    lines.extend(
        report
            .silent
            .iter()
            .take(LISTED)
            .map(|silent| printable(&format!("  - {}: {}", silent.bridge, silent.problem)).into_owned()),
    );
    let more = report.silent.len().saturating_sub(LISTED);
    if more > 0 {
        lines.push(format!("  ({more} more: see --json)"));
    }
    lines.join("\n")
}

/// Formats the verdicts for a group, for a change ticket. `as_of` says when the bridges were asked, and how many answered.
pub(super) fn ticket(group: &GroupReport, as_of: &str) -> String {
    let mut lines = vec![
        format!("group {}", group.group),
        format!("  evidence as of {as_of}"),
        format!("  bridges of this group: {}, asking the servers: {}", group.bridges, group.bridges_asking),
    ];
    let endpoints: Vec<&str> = group.endpoints.iter().take(LISTED).map(String::as_str).collect();
    let more = more(group.endpoints.len() - endpoints.len());
    lines.push(format!("  endpoints: {}{more}", endpoints.join(", ")));
    lines.extend(servers(group));
    let verdicts = [&group.uses_only_tls, &group.safe_to_require_tls, &group.bridge_needed];
    for ((question, ..), verdict) in QUESTIONS.iter().zip(verdicts) {
        let Verdict { answer, because, evidence } = verdict;
        lines.push(format!("{question}: {}", yes_or_no(*answer)));
        lines.extend(because.iter().map(|reason| format!("  - {reason}")));
        lines.extend(evidence.iter().map(|evidence| format!("  + {evidence}")));
    }
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

/// Returns ` and 3 more`, or nothing if a list leaves nothing out.
pub(super) fn more(count: usize) -> String {
    if count > 0 { format!(" and {count} more") } else { String::new() }
}

/// Formats the servers' own counts and lists of clients.
fn servers(group: &GroupReport) -> Vec<String> {
    let servers = &group.servers;
    let Some(asked) = servers.iter().map(|server| server.asked).max() else { return Vec::new() };
    let answered = servers.iter().filter(|server| server.problem.is_none()).count();
    let counts: Option<u64> =
        servers.iter().map(|server| server.plaintext_clients.filter(|_| server.problem.is_none())).sum();
    let counts = counts.map_or("unknown".to_owned(), |count| count.to_string());
    let asked = asked.map(|asked| format!(", asked last at {asked}")).unwrap_or_default();
    let mut lines = vec![format!(
        "  servers that answered: {answered} of {}, plaintext clients by their counts: {counts}{asked}",
        servers.len()
    )];
    let speaking = servers.iter().filter_map(|server| {
        let words = match (&server.problem, server.plaintext_clients) {
            (Some(problem), _) => problem.clone(),
            (None, Some(count @ 1..)) => format!("plaintext clients: {count}"),
            (None, _) => return None,
        };
        Some(format!("  - {}: {words}", server.endpoint))
    });
    lines.extend(speaking.take(LISTED));
    let beside = group.direct.iter().map(|clients| ("direct client", clients));
    let unknown = group.unknown.iter().map(|clients| ("direct or bridged client", clients));
    lines.extend(beside.chain(unknown).take(LISTED).map(|(what, similar)| {
        let told = [&similar.library, &similar.version, &similar.name, &similar.user, &similar.address];
        let told: Vec<&str> = told.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        format!("  - {}: {}", counted(similar.clients as usize, what), told.join(" "))
    }));
    lines
}

/// Formats the programs that need the bridges of a group, and what to change in each.
fn work_list(group: &GroupReport, now: Moment) -> String {
    let mut table = Table::new([
        "PROCESS",
        "LIBRARY",
        "SESSIONS NOW",
        "SO FAR",
        "LAST SEEN",
        "BRIDGES",
        "AT",
        "TO SPEAK TLS ITSELF",
    ]);
    for NeedingProgram { program, usage, bridges, at, to_do } in group.clients.iter().take(LISTED_PROGRAMS) {
        let first = at.first().map(String::as_str).unwrap_or_default();
        table.row([
            program.process.as_deref().unwrap_or("unknown").to_owned(),
            library(program.library.as_ref()),
            usage.sessions_active.to_string(),
            usage.sessions_total.to_string(),
            last_seen(usage.sessions_active, usage.last_seen, now),
            bridges.to_string(),
            if *bridges > 1 { format!("{first}, …") } else { first.to_owned() },
            to_do.clone(),
        ]);
    }
    let more = group.clients.len().saturating_sub(LISTED_PROGRAMS);
    if (more, group.clients_hidden) == (0, 0) {
        return table.to_string();
    }
    let hidden = [counted(more, "program"), counted(group.clients_hidden, "client")].join(", ");
    format!("{table}\n(not shown: {hidden})")
}
