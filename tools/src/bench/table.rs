//! Tables of text whose columns line up.

/// A table: the first column to the left, numbers to the right.
pub(crate) struct Table {
    head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(|cell| cell.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.head.len());
        self.rows.push(row);
    }

    /// Writes it, two spaces from the edge.
    pub(crate) fn write(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |at: usize| lines.iter().map(|line| line[at].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        // A column of words is one whose cells do not start with a digit; it stands to the left.
        let words: Vec<bool> = (0..self.head.len())
            .map(|at| !self.rows.iter().any(|row| row[at].starts_with(|c: char| c.is_ascii_digit())))
            .collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().enumerate().map(|(at, cell)| match words[at] {
                true => format!("{cell:<width$}", width = widths[at]),
                false => format!("{cell:>width$}", width = widths[at]),
            });
            text.push_str("  ");
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::new(&["phase", "rate"]);
        table.row(vec!["mix".into(), "1,000/s".into()]);
        table.row(vec!["commits".into(), "9/s".into()]);
        assert_eq!(table.write(), "  phase       rate\n  mix      1,000/s\n  commits      9/s\n");
    }
}
