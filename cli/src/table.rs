//! Tables that fit the terminal. Where the output is no terminal, nothing is cut.

use comfy_table::{CellAlignment, presets};

use crate::human::visible;

/// Blanks between two columns.
const GAP: u16 = 2;
/// No column is cut to less than this.
const NARROWEST: usize = 8;

/// How a column takes part in making the table fit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Keeps its width: ids, states, ages.
    Fixed(&'static str),
    /// The same, for numbers.
    Right(&'static str),
    /// Is cut in its middle when the terminal is narrow: names.
    Cut(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Fixed(name) | Self::Right(name) | Self::Cut(name) => name,
        }
    }
}

/// A table under way.
#[derive(Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }

    /// The table as text, fitted to stdout's terminal if there is one.
    pub(crate) fn render(&self) -> String {
        let terminal = comfy_table::Table::new();
        self.fitted(if terminal.is_tty() { terminal.width() } else { None })
    }

    fn fitted(&self, width: Option<u16>) -> String {
        let widths = self.widths(width.map_or(usize::MAX, usize::from));
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.columns.iter().map(|column| column.name()));
        for row in &self.rows {
            table.add_row(row.iter().zip(&widths).map(|(cell, width)| cut(cell, *width)));
        }
        for (index, column) in self.columns.iter().enumerate() {
            let Some(laid_out) = table.column_mut(index) else { continue };
            laid_out.set_padding((0, if index + 1 == self.columns.len() { 0 } else { GAP }));
            if matches!(column, Column::Right(_)) {
                laid_out.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// How wide each column may be.
    fn widths(&self, width: usize) -> Vec<usize> {
        let content = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.max().unwrap_or(0).max(column.name().len())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(content).collect();
        let gaps = usize::from(GAP) * (self.columns.len() - 1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        // One character at a time from whichever is the widest, so that short names stay whole.
        while excess > 0 {
            let cuttable = widths
                .iter_mut()
                .zip(self.columns)
                .filter(|(width, column)| matches!(column, Column::Cut(_)) && **width > NARROWEST);
            let Some((widest, _)) = cuttable.max_by_key(|(width, _)| **width) else { break };
            *widest -= 1;
            excess -= 1;
        }
        widths
    }
}

/// Cuts the middle out of what is too long: the ends of a name tell it apart.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head: String = text.chars().take(kept / 2).collect();
    let tail: String = text.chars().skip(length - (kept - kept / 2)).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        const COLUMNS: &[Column] = &[
            Column::Fixed("ID"),
            Column::Cut("NAME"),
            Column::Cut("IMAGE"),
            Column::Right("SIZE"),
        ];
        let mut table = Table::new(COLUMNS);
        let image = "registry.example/a/long/name:1.2.3";
        table.row(["0123", "web", image, "5 MB"].map(str::to_owned));
        table.row(["4567", "db", "b\tc", "512 MB"].map(str::to_owned));
        table
    }

    #[test]
    fn a_pipe_gets_everything() {
        let expected = "\
ID    NAME  IMAGE                                 SIZE
0123  web   registry.example/a/long/name:1.2.3    5 MB
4567  db    b\\tc                                512 MB
";
        assert_eq!(example().fitted(None), expected);
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let expected = "\
ID    NAME  IMAGE            SIZE
0123  web   regist…:1.2.3    5 MB
4567  db    b\\tc           512 MB
";
        assert_eq!(example().fitted(Some(33)), expected);
        let text = example().fitted(Some(10));
        assert!(text.contains("web") && text.contains("reg….2.3"), "{text}");
    }

    #[test]
    fn an_empty_table_has_its_header() {
        let table = Table::new(&[Column::Fixed("ID"), Column::Cut("NAME")]);
        assert_eq!(table.fitted(Some(80)), "ID  NAME\n");
    }
}
