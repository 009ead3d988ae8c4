//! `GET /`: the status page, for a person with a browser and ten seconds.
//!
//! Everything is in the one document, and nothing is fetched but the document again: its script asks for it every other
//! second and changes what has changed ([idiomorph](https://github.com/bigskysoftware/idiomorph) does, unchanged, under the
//! 0BSD licence that lies beside it). Without scripts the page reloads itself. What clients call themselves is escaped as
//! all text is, by the library that writes the HTML.

mod chart;
mod clients;
mod document;
mod events;
mod hour;
mod road;
mod route;
mod words;

pub(super) use self::document::page;

#[cfg(test)]
mod tests;
