//! Tables in Markdown.

/// A table that is filled row by row.
pub(super) struct Table {
    text: String,
    columns: usize,
}

impl Table {
    /// One with these headings; the first column is text, the others are numbers.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut table = Self { text: String::new(), columns: headings.len() };
        table.row(headings.iter().map(ToString::to_string));
        table.row((0..headings.len()).map(|column| if column == 0 { "---" } else { "--:" }.into()));
        table
    }

    /// Appends a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns, "a cell for each column: {cells:?}");
        self.text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }

    /// The table, with an empty line after it.
    pub(super) fn finish(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_headings() {
        let mut table = Table::new(&["what", "ns"]);
        table.row(["a packet".to_owned(), "5".to_owned()]);
        assert_eq!(table.finish(), "| what | ns |\n| --- | --: |\n| a packet | 5 |\n\n");
    }
}
