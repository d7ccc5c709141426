//! Tables that fit the terminal. Where the output is no terminal, each row is one line.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, presets};

use crate::human::visible;

/// Blanks between two columns.
const GAP: u16 = 3;

/// How a column takes part in making the table fit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Keeps its width: ids, states, ages.
    Fixed(&'static str),
    /// The same, for numbers.
    Right(&'static str),
    /// Wraps when the terminal is narrow: names.
    Wraps(&'static str),
}

/// A table under way.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|column| match column {
            Column::Fixed(name) | Column::Right(name) | Column::Wraps(name) => *name,
        }));
        for (index, column) in columns.iter().enumerate() {
            let Some(laid_out) = table.column_mut(index) else { continue };
            laid_out.set_padding((0, if index + 1 == columns.len() { 0 } else { GAP }));
            match column {
                Column::Wraps(_) => {}
                Column::Fixed(_) => {
                    laid_out.set_constraint(ColumnConstraint::ContentWidth);
                }
                Column::Right(_) => {
                    laid_out.set_constraint(ColumnConstraint::ContentWidth);
                    laid_out.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Self(table)
    }

    /// Adds a row, a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells.into_iter().map(|cell| visible(&cell)));
    }

    /// The table as text, fitted to stdout's terminal if there is one.
    pub(crate) fn render(&mut self) -> String {
        let arrangement = if self.0.is_tty() {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        };
        self.lay_out(arrangement)
    }

    fn lay_out(&mut self, arrangement: ContentArrangement) -> String {
        self.0.set_content_arrangement(arrangement);
        let mut text = String::new();
        for line in self.0.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let columns = [Column::Fixed("ID"), Column::Wraps("IMAGE"), Column::Right("SIZE")];
        let mut table = Table::new(&columns);
        table.row(["0123".into(), "registry.example/a/long/name:1.2.3".into(), "5 MB".into()]);
        table.row(["4567".into(), "b\tc".into(), "512 MB".into()]);
        table
    }

    #[test]
    fn a_pipe_gets_one_line_a_row() {
        let text = example().lay_out(ContentArrangement::Disabled);
        let expected = "\
ID     IMAGE                                  SIZE
0123   registry.example/a/long/name:1.2.3     5 MB
4567   b\\tc                                 512 MB
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let mut table = example();
        table.0.set_width(30);
        let text = table.lay_out(ContentArrangement::Dynamic);
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
        assert!(text.contains("512 MB") && text.contains("0123"), "{text}");
        assert!(text.lines().count() > 3, "{text}");
    }
}
