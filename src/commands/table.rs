//! Tables of text for people: columns are as wide as their content, and a row is no wider than the terminal.

use std::fmt;
use std::io::{IsTerminal, stdout};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement};
use rustix::termios::tcgetwinsize;

use super::colour::Tint;
use crate::printable::printable;

/// Spaces between two columns.
const GAP: u16 = 2;

/// Rows of `N` cells.
pub(super) struct Table<const N: usize>(comfy_table::Table);

impl<const N: usize> Table<N> {
    /// Creates an empty table with a heading.
    pub(super) fn new(heading: [&str; N]) -> Self {
        let mut table = Self::without_heading();
        table.0.set_header(heading.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        table
    }

    /// Creates an empty table without a heading.
    pub(super) fn without_heading() -> Self {
        let mut table = comfy_table::Table::new();
        // The output stream removes colours that it does not show.
        table.load_style(NOTHING).enforce_styling().style_text_only();
        Self(table)
    }

    /// Adds a row. Escapes hidden characters, because the text may come from the network.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.0.add_row(cells.map(|text| cell(&text)));
    }

    /// Adds a row with the cell in `column` in colour.
    pub(super) fn tinted_row(&mut self, cells: [String; N], column: usize, tint: Tint) {
        let mut cells = cells.map(|text| cell(&text));
        cells[column] = cells[column].clone().fg(match tint {
            Tint::Good => Color::DarkGreen,
            Tint::Doubtful => Color::DarkYellow,
            Tint::Bad => Color::DarkRed,
        });
        self.0.add_row(cells);
    }

    /// Formats the table for a terminal of this width. Without a width, each row is one line, for `grep` and `awk`.
    fn text(&self, width: Option<u16>) -> String {
        let mut table = self.0.clone();
        match width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for (number, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if number + 1 < N { GAP } else { 0 }));
        }
        table.trim_fmt()
    }
}

fn cell(text: &str) -> Cell {
    Cell::new(printable(text))
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tests may run in a terminal, but expect unwrapped rows.
        f.write_str(&self.text(if cfg!(test) { None } else { terminal_width() }))
    }
}

/// Returns the terminal's width. `None` if standard output is not a terminal, or its width is unknown.
pub(super) fn terminal_width() -> Option<u16> {
    let stdout = stdout();
    let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    const HOST: &str = "master.sessions.abc123.apne1.cache.amazonaws.com:6379";
    const ENGINE: &str = "Valkey 8.1.0, cluster";

    fn nodes() -> Table<5> {
        let mut table = Table::new(["NODE", "ROLE", "PLAINTEXT", "CONNECTED", "ENGINE"]);
        table.row([HOST, "master", "0", "12", ENGINE].map(Into::into));
        table
    }

    fn lines(table: &Table<5>, width: Option<u16>) -> Vec<String> {
        strip_str(&table.text(width)).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "B"]);
        table.row(["größer".into(), "1".into()]);
        table.row(["x".into(), "2\n3".into()]);
        assert_eq!(strip_str(&table.to_string()).to_string(), "A       B\ngrößer  1\nx       2\\n3");
    }

    #[test]
    fn a_row_that_fits_is_one_line_with_and_without_a_terminal() {
        let expected = [
            format!("NODE{}  ROLE    PLAINTEXT  CONNECTED  ENGINE", " ".repeat(HOST.len() - 4)),
            format!("{HOST}  master  0          12         {ENGINE}"),
        ];
        for width in [None, Some(200)] {
            assert_eq!(lines(&nodes(), width), expected);
        }
    }

    #[test]
    fn a_row_that_does_not_fit_wraps_inside_its_cells_and_loses_nothing() {
        let lines = lines(&nodes(), Some(80));
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let host_end = lines[0].find("ROLE").unwrap() - usize::from(GAP);
        let cell: String =
            lines[1..].iter().map(|line| line.get(..host_end).unwrap_or(line).trim()).collect();
        assert_eq!(cell, HOST);
        assert!(lines[0].contains("PLAINTEXT  CONNECTED  ENGINE"), "short columns stay whole: {lines:#?}");
    }

    #[test]
    fn a_table_without_heading_has_only_rows() {
        let mut table = Table::without_heading();
        table.row(["mode".into(), "preferred".into()]);
        table.row(["certificate".into(), "localhost".into()]);
        assert_eq!(table.to_string(), "mode         preferred\ncertificate  localhost");
    }

    #[test]
    fn the_heading_is_bold_and_a_result_has_its_colour() {
        let mut table = Table::new(["STEP", "RESULT"]);
        table.tinted_row(["tls".into(), "failed\u{1b}[2J".into()], 1, Tint::Bad);
        let text = table.to_string();
        assert!(text.contains("\u{1b}[1mSTEP\u{1b}[0m"), "{text:?}");
        assert!(text.contains("\u{1b}[38;5;1mfailed\\u{1b}[2J\u{1b}[39m"), "{text:?}");
    }
}
