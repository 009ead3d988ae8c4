//! The table of clients and what each needs to leave the bridge. The page's script sorts and filters it.

use maud::{Markup, html};

use super::words;
use crate::clients::{ClientRecord, InventoryReport, advice};
use crate::moment::Moment;

/// The name by which the script sorts each column, and the column's heading.
const COLUMNS: [(&str, &str); 8] = [
    ("client", "Client"),
    ("name", "Name"),
    ("library", "Library"),
    ("now", "Sessions now"),
    ("total", "Sessions so far"),
    ("stays", "Why in plaintext or pinned"),
    ("seen", "Last seen"),
    ("todo", "To use TLS itself"),
];

pub(super) fn section(report: &InventoryReport, several_routes: bool, now: Moment) -> Markup {
    let hidden = report.clients_total.saturating_sub(report.clients.len());
    let clients = words::count(report.clients_total as u64, "client");
    let sessions = words::count(report.sessions_total as u64, "session");
    let route = several_routes.then_some(("route", "Route"));
    html! {
        section.card aria-labelledby="clients-name" {
            header {
                h2 #clients-name { "Clients" }
                p.muted { (clients) ", " (sessions) " now" }
            }
            @if report.clients.is_empty() {
                p { "No client has used the bridge." }
            } @else {
                p.filter hidden {
                    label for="filter" { "Filter" }
                    input #filter type="search" autocomplete="off" spellcheck="false";
                    span #shown .muted {}
                }
                div.scroll tabindex="0" role="region" aria-label="Table of clients" {
                    table #clients {
                        caption.unseen { "Clients, active ones first; use the headings to sort" }
                        thead {
                            tr {
                                @for (key, name) in route.iter().chain(&COLUMNS) {
                                    th scope="col" {
                                        button type="button" id={ "by-" (key) } { (name) span.arrow aria-hidden="true" {} }
                                    }
                                }
                            }
                        }
                        tbody { @for client in &report.clients { (row(client, several_routes, now)) } }
                    }
                }
                @if hidden > 0 || report.clients_forgotten > 0 {
                    p.muted {
                        (hidden) " more: see " a href="clients" { "clients" } ". "
                        @if report.clients_forgotten > 0 { (report.clients_forgotten) " forgotten." }
                    }
                }
            }
        }
    }
}

/// A cell whose text does not sort correctly has the value to sort by as an attribute.
fn row(client: &ClientRecord, several_routes: bool, now: Moment) -> Markup {
    html! {
        tr {
            @if several_routes { td { (client.route) } }
            th scope="row" { (who(client)) }
            td { @if let Some(name) = &client.client_name { (name) } @else { span.muted { "–" } } }
            td { (library(client)) }
            td.number data-value=(client.active) { (words::whole(client.active)) }
            td.number data-value=(client.sessions) { (words::whole(client.sessions)) }
            td { @for stay in &client.stays { div { (stay.describe()) } } }
            @let seen = if client.active > 0 { now } else { client.last_seen };
            td data-value=(seen.unix()) { @if client.active > 0 { "now" } @else { (words::when(client.last_seen, now)) } }
            td { (to_do(client)) }
        }
    }
}

fn who(client: &ClientRecord) -> Markup {
    html! {
        @if let Some(process) = &client.process { (process) } @else { span.muted { "not known" } }
        @if let Some(uid) = client.uid { span.muted { " uid " (uid) } }
        // The first 12 digits, as container runtimes show it.
        @if let Some(id) = &client.container { span.muted { " container " (id.get(..12).unwrap_or(id)) } }
    }
}

fn library(client: &ClientRecord) -> Markup {
    let Some(library) = &client.library else { return html! { span.muted { "not known" } } };
    html! {
        (library.name)
        @if let Some(version) = &library.version { " " (version) }
        @if library.guessed { span.muted { " (by its commands)" } }
    }
}

fn to_do(client: &ClientRecord) -> Markup {
    if client.own_tls {
        return html! { "uses TLS itself: only its address has to change" };
    }
    let advice = client.library.as_ref().and_then(|library| advice(&library.name));
    html! { @if let Some(advice) = advice { (advice.setting) } @else { span.muted { "ask its owner for the library" } } }
}
