//! Tables for people.

use std::fmt::Write as _;

/// A table in the making.
#[derive(Clone, Debug)]
pub struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each head. An empty cell shows as `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.heads.len(), "a cell for each head");
        self.rows.push(cells);
    }

    /// Lays it out: columns as wide as their widest cell, except for the last.
    pub fn render(&self, colours: bool) -> String {
        let mut out = String::new();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| cell(&row[column]).chars().count());
            cells.chain([self.heads[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.heads.len()).map(width).collect();
        let heads: Vec<_> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let (on, off) = if colours { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        writeln!(out, "{on}{}{off}", line(&heads, &widths)).expect("writing to a string");
        for row in &self.rows {
            writeln!(out, "{}", line(row, &widths)).expect("writing to a string");
        }
        out
    }
}

fn cell(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (text, width) in cells.iter().zip(widths) {
        write!(line, "{:<width$}  ", cell(text)).expect("writing to a string");
    }
    line.truncate(line.trim_end().len());
    line
}

/// A cell for what may not be there.
pub fn maybe(text: Option<&impl ToString>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// A number of bytes, short.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (count, 0);
    let mut tenths = 0;
    while value >= 1000 && unit + 1 < units.len() {
        tenths = value % 1000 / 100;
        value /= 1000;
        unit += 1;
    }
    if unit == 0 || value >= 100 {
        format!("{value} {}", units[unit])
    } else {
        format!("{value}.{tenths} {}", units[unit])
    }
}

/// A time, short.
pub fn duration_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "N", "LAST"]);
        table.row(vec!["cart".into(), "10".into(), "a b".into()]);
        table.row(vec!["größer".into(), String::new(), "c".into()]);
        assert_eq!(table.render(false), "NAME    N   LAST\ncart    10  a b\ngrößer  -   c\n");
        assert!(table.render(true).starts_with("\u{1b}[1mNAME"));
    }

    #[test]
    fn short_numbers() {
        for (count, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (12_345_678, "12.3 MB")]
        {
            assert_eq!(bytes(count), text);
        }
        for (ms, text) in [(5, "5ms"), (1500, "1.5s"), (61_000, "1m01s"), (3_661_000, "1h01m")] {
            assert_eq!(duration_ms(ms), text);
        }
    }
}
