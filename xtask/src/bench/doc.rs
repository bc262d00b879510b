//! What a result looks like to people: sections of text, tables and plots. Written as Markdown, and to a terminal.

pub mod plot;

use std::fmt::Write as _;

use super::report::table::aligned;
use plot::Plot;

/// A suite's part of the report.
#[derive(Debug)]
pub struct Section {
    pub title: String,
    pub blocks: Vec<Block>,
}

/// A piece of it.
#[derive(Debug)]
pub enum Block {
    Text(String),
    Table(Table),
    Plot(Plot),
}

/// Rows of cells; the first one is the heading.
#[derive(Debug)]
pub struct Table {
    pub caption: String,
    pub rows: Vec<Vec<String>>,
}

impl Section {
    /// An empty one.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// Adds a table.
    pub fn table<const N: usize>(
        &mut self,
        caption: impl Into<String>,
        heading: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) {
        let heading = heading.map(str::to_owned).to_vec();
        let rows = std::iter::once(heading).chain(rows.into_iter().map(|row| row.to_vec())).collect();
        self.blocks.push(Block::Table(Table { caption: caption.into(), rows }));
    }

    /// Adds a plot.
    pub fn plot(&mut self, plot: Plot) {
        self.blocks.push(Block::Plot(plot));
    }

    /// Its plots.
    pub fn plots(&self) -> impl Iterator<Item = &Plot> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Plot(plot) => Some(plot),
            Block::Text(_) | Block::Table(_) => None,
        })
    }

    /// As Markdown; plots as links to their files, if they are to be in it.
    pub fn markdown(&self, with_plots: bool) -> String {
        let mut text = format!("## {}\n", self.title);
        for block in &self.blocks {
            match block {
                Block::Text(paragraph) => line(&mut text, &format!("\n{paragraph}")),
                Block::Table(table) => line(&mut text, &format!("\n{}", table.markdown())),
                Block::Plot(plot) if with_plots => {
                    line(&mut text, &format!("\n![{}]({}.svg)", plot.title, plot.name));
                }
                Block::Plot(_) => {}
            }
        }
        text
    }

    /// For a terminal.
    pub fn plain(&self) -> String {
        let mut text = format!("\n{}\n", self.title);
        for block in &self.blocks {
            match block {
                Block::Text(paragraph) => line(&mut text, &format!("\n  {paragraph}")),
                Block::Table(table) => {
                    write!(text, "\n  {}:\n{}", table.caption, aligned(&table.rows))
                        .expect("a String takes all");
                }
                Block::Plot(_) => {}
            }
        }
        text
    }
}

impl Table {
    fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", self.caption);
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            line(&mut text, &format!("| {} |", cells.join(" | ")));
            if number == 0 {
                let rules: Vec<_> =
                    (0..row.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
                line(&mut text, &format!("| {} |", rules.join(" | ")));
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let mut section = Section::new("delay");
        section.text("Said once.");
        section.table(
            "by variant",
            ["", "p50 us"],
            [["none".to_owned(), "1.0".to_owned()], ["a|b".to_owned(), "2.0".to_owned()]],
        );
        section.plot(plot::tests::plot());
        section
    }

    #[test]
    fn markdown_has_the_table_and_the_plot_only_where_it_is_wanted() {
        let text = section().markdown(true);
        assert!(
            text.starts_with(
                "## delay\n\nSaid once.\n\n**by variant**\n\n|  | p50 us |\n| --- | ---: |\n| none | 1.0 |\n"
            ),
            "{text}"
        );
        assert!(text.contains("| a\\|b | 2.0 |\n\n!["), "{text}");
        assert!(text.contains("(a-plot.svg)"), "{text}");
        assert!(!section().markdown(false).contains("svg"));
    }

    #[test]
    fn a_terminal_gets_columns() {
        let text = section().plain();
        assert!(
            text.contains("  by variant:\n         p50 us\n  none      1.0\n  a|b       2.0\n"),
            "{text}"
        );
    }
}
