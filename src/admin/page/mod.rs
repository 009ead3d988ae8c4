//! `GET /`: the status page for people with a browser.
//!
//! The document contains everything, and only the document itself is fetched again. Its script fetches it every two seconds and applies the
//! changes with [idiomorph](https://github.com/bigskysoftware/idiomorph), which is included unchanged under the 0BSD licence beside it.
//! Without scripts the page reloads itself. The HTML library escapes all text, including names that clients choose.

mod chart;
mod clients;
mod document;
mod events;
mod health;
mod hour;
mod road;
mod route;
mod words;

pub(super) use self::document::page;

#[cfg(test)]
mod tests;
